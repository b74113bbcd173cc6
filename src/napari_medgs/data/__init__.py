"""Volumes, fields of Gaussians, grids and orientations."""
