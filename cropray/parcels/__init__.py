"""Declared parcels in, label rasters out."""
