"""The drawn landscape: a deterministic France in a box, for tests and the demo.

Comes in: a seed and sizes. Goes out: zones, scenes, parcels and land cover as files, with known truth. May be added:
a crop (`spectra`), or another kind of weather (`sky`).
"""
