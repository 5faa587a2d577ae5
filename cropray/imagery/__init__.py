"""Scenes in, gap-filled composites out."""
