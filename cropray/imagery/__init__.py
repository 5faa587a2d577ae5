"""Scenes in, gap-filled composites out.

Comes in: scenes or ready cubes of a source. Goes out: composites and counts of clear observations on the zone's grid.
May be added: a source, as settings below `registry.SOURCES` and a line in `sources`.
"""
