"""Zones chosen where the cropland is: windows around each region's town, scored on a land cover map."""
