"""Fit fields of folded Gaussians to volumes and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medgs.fitting.params import FitParams

if TYPE_CHECKING:
    from napari_medgs.fitting.api import FitResult, fit

__all__ = ["FitParams", "FitResult", "fit"]


def __getattr__(name: str) -> Any:
    """Load the engine on first use: settings alone (widget, command line) need no numba."""
    if name in ("FitResult", "fit"):
        from napari_medgs.fitting import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
