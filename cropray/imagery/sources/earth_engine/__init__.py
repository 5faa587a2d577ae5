"""Monthly composites by Earth Engine."""
