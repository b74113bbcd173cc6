"""From a few strokes to a multi-class mask: prompts, the Gaussian graph, refinement, history."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_medgs.segment.params import SegmentParams
from napari_medgs.segment.prompts import Box, Point, Prompts

if TYPE_CHECKING:
    from napari_medgs.segment.api import fit_for_segmentation, segment
    from napari_medgs.segment.log import load_session
    from napari_medgs.segment.model import SegmentModel
    from napari_medgs.segment.result import SegmentResult
    from napari_medgs.segment.session import Session
    from napari_medgs.segment.settings import Settings
    from napari_medgs.segment.suggest import Suggestion, suggest_slices

# The engine is loaded when first used: forms and prompts need none of it.
_LAZY = {
    "fit_for_segmentation": "api",
    "segment": "api",
    "load_session": "log",
    "SegmentModel": "model",
    "SegmentResult": "result",
    "Session": "session",
    "Settings": "settings",
    "Suggestion": "suggest",
    "suggest_slices": "suggest",
}

__all__ = [
    "Box",
    "Point",
    "Prompts",
    "SegmentModel",
    "SegmentParams",
    "SegmentResult",
    "Session",
    "Settings",
    "Suggestion",
    "fit_for_segmentation",
    "load_session",
    "segment",
    "suggest_slices",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"napari_medgs.segment.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
