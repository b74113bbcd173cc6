"""Prompts as they were at one time, rasterized: what a solve works on while drawing goes on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.segmentation.advanced import InitialMaskParams
from napari_medgs.segmentation.prompts.initial_mask import initial_mask_of
from napari_medgs.segmentation.prompts.markers import Markers
from napari_medgs.segmentation.prompts.prompts import Prompts
from napari_medgs.segmentation.prompts.rasterize import rasterize_prompts
from napari_medgs.segmentation.solver.constraints import Constraints

NOISE_SAMPLES = 1e6  # voxels that noise is measured on
LIKE_NOISE = 4.0  # differences of neighbors (their median) up to which voxels look alike


@dataclass(frozen=True)
class PromptSnapshot:
    """Prompts as they were when :meth:`SegmentModel.snapshot` was called, rasterized.

    It shares no array with them, so that they may change while a solve runs.

    Attributes
    ----------
    markers : Markers
    constraints : Constraints
    """

    markers: Markers
    constraints: Constraints

    @property
    def values(self) -> tuple[int, ...]:
        """Label value of every class, background (0) first."""
        return self.markers.values


class SnapshotMaker:
    """Rasterizes prompts on one image; keeps what it found of the last initial mask.

    Parameters
    ----------
    volume : Volume
    axes : (int, int, int)
        Canonical axes in slice-first order.
    """

    def __init__(self, volume: Volume, axes: tuple[int, int, int]) -> None:
        self._volume, self._axes = volume, axes
        self._relative_spacing = volume.grid.relative_spacing
        self._initial: tuple[int, float, Any] | None = None

    def make(self, prompts: Prompts, params: InitialMaskParams) -> PromptSnapshot:
        """Check prompts and rasterize them.

        Parameters
        ----------
        prompts : Prompts
        params : InitialMaskParams

        Returns
        -------
        PromptSnapshot

        Raises
        ------
        MedGSError
            When the prompts do not fit the image, or mark fewer than two classes.
        """
        shape = self._volume.shape
        prompts.check(shape)
        initial = None
        source = prompts.initial if prompts.prior is None else prompts.prior
        if source is not None:
            key = (id(source), prompts.initial_margin)
            if self._initial is None or self._initial[:2] != key:
                prepared = initial_mask_of(prompts, self._relative_spacing, params)
                self._initial = (*key, (source, prepared))
            initial = self._initial[2][1]
        # Clicks that correct a mask mean all of their balls.
        alike = self._alike if initial is None else None
        rasterized = rasterize_prompts(
            prompts, shape, self._axes, self._relative_spacing, initial, alike
        )
        return PromptSnapshot(rasterized, Constraints(prompts, rasterized, shape, self._axes))

    @cached_property
    def _contrast(self) -> NDArray[np.float64]:
        """Largest difference of two voxels of one tissue by noise, per channel."""
        longest = int(np.argmax(self._volume.shape))
        step = max(1, int(np.sqrt(np.prod(self._volume.shape) / NOISE_SAMPLES)))
        found = []
        for channel in self._volume.data:
            part = np.moveaxis(channel, longest, 2)[::step, ::step].astype(np.float64)
            steps = np.abs(np.diff(part, axis=2)).reshape(-1)
            steps = steps[steps > 0]
            found.append(LIKE_NOISE * float(np.median(steps)) if len(steps) else 0.0)
        return np.array(found)

    def _alike(self, flat: NDArray[np.int64], middle: int) -> NDArray[np.bool_]:
        """Return which voxels do not differ from one by more than noise does."""
        values = self._volume.data.reshape(len(self._volume.data), -1)
        away = np.abs(values[:, flat].astype(np.float64) - values[:, [middle]].astype(np.float64))
        near: NDArray[np.bool_] = np.logical_and.reduce(away <= self._contrast[:, None], axis=0)
        return near
