"""Pictures, score tables and the HTML page."""
