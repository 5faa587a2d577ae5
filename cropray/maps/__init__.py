"""From a trained model and composites to maps.

Comes in: a model of any family and a cube of pixels. Goes out: class and confidence as COG, parcels with their crop,
previews. May be added: a band of the map (`cog`).
"""
