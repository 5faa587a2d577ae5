"""Networks: torch modules only, no files and no Ray."""
