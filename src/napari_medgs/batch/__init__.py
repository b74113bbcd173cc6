"""Fit fields to whole cohorts: many images, many processes or machines, restartable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medgs.batch.cases import Case, find_cases
from napari_medgs.batch.params import CohortParams

if TYPE_CHECKING:
    from napari_medgs.batch.run import CohortResult, fit_many

__all__ = ["Case", "CohortParams", "CohortResult", "find_cases", "fit_many"]


def __getattr__(name: str) -> Any:
    """Load what runs fits on first use: finding the cases needs none of it."""
    if name in ("CohortResult", "fit_many"):
        from napari_medgs.batch import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
