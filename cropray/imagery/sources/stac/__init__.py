"""Scenes of STAC catalogues."""
