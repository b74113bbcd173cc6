"""Surfaces of masks and fields, in millimeters."""
