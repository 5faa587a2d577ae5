"""Scenes in, gap-filled monthly composites out."""
