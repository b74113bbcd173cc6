"""Fit fields of folded Gaussians to volumes and masks."""

from napari_medgs.fit.params import FitParams
from napari_medgs.fit.run import FitResult, fit

__all__ = ["FitParams", "FitResult", "fit"]
