"""Prompts, and the markers that they are rasterized into."""
