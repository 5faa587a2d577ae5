"""A network over single pixels: convolutions over time, trained on pixel tables and points."""
