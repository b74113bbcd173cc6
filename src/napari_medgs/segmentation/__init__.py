"""From a few strokes to a multi-class mask: prompts, the Gaussian graph, refinement, history."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from napari_medgs.segmentation.params import IslandRule, SegmentParams, SegmentStage
from napari_medgs.segmentation.prompts.prompts import Box, Point, Prompts

if TYPE_CHECKING:
    from napari_medgs.segmentation.api import fit_for_segmentation, segment
    from napari_medgs.segmentation.model import PromptSnapshot, SegmentModel
    from napari_medgs.segmentation.result.result import SegmentResult
    from napari_medgs.segmentation.result.suggest import Suggestion, suggest_slices
    from napari_medgs.segmentation.session.replay import load_session, save_session
    from napari_medgs.segmentation.session.session import Session
    from napari_medgs.segmentation.session.settings import Settings

# The engine is loaded when first used: forms and prompts need none of it.
_LAZY = {
    "fit_for_segmentation": "api",
    "segment": "api",
    "load_session": "session.replay",
    "save_session": "session.replay",
    "PromptSnapshot": "model",
    "SegmentModel": "model",
    "SegmentResult": "result.result",
    "Session": "session.session",
    "Settings": "session.settings",
    "Suggestion": "result.suggest",
    "suggest_slices": "result.suggest",
}

__all__ = [
    "Box",
    "IslandRule",
    "Point",
    "PromptSnapshot",
    "Prompts",
    "SegmentModel",
    "SegmentParams",
    "SegmentResult",
    "SegmentStage",
    "Session",
    "Settings",
    "Suggestion",
    "fit_for_segmentation",
    "load_session",
    "save_session",
    "segment",
    "suggest_slices",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"napari_medgs.segmentation.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
