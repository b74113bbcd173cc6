"""Measures of masks, images and surfaces."""
