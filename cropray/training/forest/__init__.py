"""Extremely randomised trees."""
