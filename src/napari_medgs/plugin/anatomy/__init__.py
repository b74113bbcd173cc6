"""Upright anatomical planes in napari's canvas, with letters at its borders."""
