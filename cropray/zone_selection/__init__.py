"""Zones chosen where the cropland is: windows around each region's town, scored on a land cover map.

Comes in: a land cover map and a table of regions. Goes out: a zone table, and why each zone is in it. May be added: a
reader of land cover (`land_cover`).
"""
