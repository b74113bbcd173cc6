"""Fits in few steps: for tests of what a text or a program does, not of how good fields become."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import napari_medgs
from napari_medgs.fitting import api
from napari_medgs.fitting.params import FitParams

MOST_ITERATIONS = 10
# All modules that look the function up when they fit. Those that import it at their top are
# imported before it is exchanged, so that none keeps the quick one.
PLACES = (
    "napari_medgs.fitting",
    "napari_medgs.segmentation.api",
    "napari_medgs.compression.learned.fits",
    "napari_medgs.learning.networks.field",
)


def shorten(params: FitParams | None, most_iterations: int) -> FitParams:
    """Return settings with fewer steps, unless a quality is to be reached."""
    params = params or FitParams()
    if params.quality is not None:
        return params
    return dataclasses.replace(params, iterations=min(params.iterations, most_iterations))


@contextlib.contextmanager
def quick_fits(known: dict[Any, api.FitResult], most_iterations: int | None) -> Iterator[None]:
    """Fit in few steps, and an image with the same settings once in all.

    Parameters
    ----------
    known : dict
        Fits so far, which are not made again.
    most_iterations : int or None
        None: as many as are asked for.
    """
    original = api.fit

    def quick(volume, params=None, mask=None, *, initial=None, known_ones=True, **others):
        params = params or FitParams()
        if most_iterations is not None:
            params = shorten(params, most_iterations)
        if not known_ones or mask is not None or initial is not None or params.checkpoint:
            return original(volume, params, mask, initial=initial, **others)
        grid = volume.grid
        key = (
            params,
            volume.channel_names,
            grid.shape,
            grid.affine.tobytes(),
            volume.data.tobytes(),
        )
        if key not in known:
            known[key] = original(volume, params, **others)
        return copy.deepcopy(known[key])

    def quick_in_examples(*words, **others):
        # An example's own function is called.
        return quick(*words, known_ones="progress" not in others, **others)

    modules = [importlib.import_module(place) for place in PLACES]
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "fit", quick)
        patch.setattr(napari_medgs, "fit", quick_in_examples)
        yield
    ours = [(n, m) for n, m in list(sys.modules.items()) if n.startswith("napari_medgs")]
    keep = [
        name
        for name, module in ours
        if any(value is quick or value is quick_in_examples for value in vars(module).values())
    ]
    assert not keep, f"{keep} imported the quick fit and keep it: name them in PLACES"
