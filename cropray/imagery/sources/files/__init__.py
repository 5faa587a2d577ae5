"""Scenes as GeoTIFF files of one's own."""
