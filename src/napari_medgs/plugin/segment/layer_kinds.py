"""Which layers the controls of the Segment widget offer."""

from __future__ import annotations

from typing import Any

from napari_medgs.plugin.layer_metadata import ROLE_KEY, field_of
from napari_medgs.plugin.widgets.layers import is_source_image


def is_scan(layer: Any) -> bool:
    """Tell whether a layer could be segmented: an image that was not made by this plugin."""
    return is_source_image(layer) and ROLE_KEY not in layer.metadata


def is_strokes(layer: Any) -> bool:
    """Tell whether a layer could hold strokes: a Labels layer that is no result."""
    role = layer.metadata.get(ROLE_KEY, "strokes")
    return type(layer).__name__ == "Labels" and role == "strokes" and field_of(layer) is None


def is_mask(layer: Any) -> bool:
    """Tell whether a layer could be a starting mask or hold accepted classes."""
    return type(layer).__name__ == "Labels" and layer.metadata.get(ROLE_KEY, "final") == "final"


def is_accepted(layer: Any) -> bool:
    """Tell whether a layer holds accepted classes."""
    return type(layer).__name__ == "Labels" and layer.metadata.get(ROLE_KEY) == "final"
