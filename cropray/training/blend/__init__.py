"""The mean of the other families' winners: no fit of its own."""
