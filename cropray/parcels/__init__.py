"""Declared parcels in, label rasters out.

Comes in: a register of any country and a legend. Goes out: class and parcel of every pixel, and how much of the
register the legend knows. May be added: a legend, as a file of the user's.
"""
