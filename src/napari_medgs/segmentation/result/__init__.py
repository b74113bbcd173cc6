"""Masks, uncertainty, suggested slices."""
