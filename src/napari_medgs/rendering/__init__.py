"""Render fields on grids, as labels and at points, with the backend of choice."""

from napari_medgs.rendering.api import render, render_labels, render_points, render_stack
from napari_medgs.rendering.registry import backends

__all__ = ["backends", "render", "render_labels", "render_points", "render_stack"]
