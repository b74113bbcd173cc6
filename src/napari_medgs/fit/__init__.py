"""Fit fields of folded Gaussians to volumes and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medgs.fit.params import FitParams

if TYPE_CHECKING:
    from napari_medgs.fit.run import FitResult, fit

__all__ = ["FitParams", "FitResult", "fit"]


def __getattr__(name: str) -> Any:
    """Load the engine on first use: settings alone (widget, command line) need no numba."""
    if name in ("FitResult", "fit"):
        from napari_medgs.fit import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
