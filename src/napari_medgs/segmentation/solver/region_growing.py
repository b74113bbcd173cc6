"""Region growing on the voxels of a narrow band, from markers and from what is decided around it.

Every voxel takes the label of the seed that the shortest path to it comes from, where a step to
one of the 26 neighbors costs the difference of intensities: the fixed point of GrowCut's cellular
automaton. It works on the image without smoothing, so that structures of one or two voxels keep
their borders, which gradients of a smoothed image lose; only noise is smoothed a little.

References
----------
Zhu, Kolesov, Gao, Kikinis and Tannenbaum 2014, *An effective interactive medical image
segmentation method using Fast GrowCut*, MICCAI Workshop on Interactive Medical Image Computing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.threads import run_chunks
from napari_medgs.segmentation.solver.region_growing_kernels import (
    FAR,
    ROWS,
    grow_from_seeds,
    seed_from_decided,
    smooth_around,
    touch_own,
)
from napari_medgs.segmentation.terms.image_features import ImageFeatures

CHUNK = 8192
SIGMA = 0.7  # finest voxels: smoothing of noisy channels


@dataclass(frozen=True)
class GrownLabels:
    """Labels by region growing, with their weight among the data costs.

    Attributes
    ----------
    labels : (B,) ndarray of uint8
        Classes of the first voxels of a band.
    reached : (B,) ndarray of bool
        Whether a path leads there, and the label counts.
    weight : float
        Data cost, in nats, of all other classes.
    watershed_fraction : float
        Part of the weight of the watershed's votes that is left beside it.
    """

    labels: NDArray[np.uint8]
    reached: NDArray[np.bool_]
    weight: float
    watershed_fraction: float

    def add_cost(self, cost: Floats) -> None:
        """Lower the cost (P, K) of each voxel's own class by the weight.

        That is the same as to raise the others', as costs are normalized over the classes.
        """
        known = np.flatnonzero(self.reached)
        cost[known, self.labels[known]] -= np.float32(self.weight)


class CalmImage:
    """The intensities that regions grow on: smoothed where noise changes them at every voxel.

    Paths through noise pay for it at every step, wherever they lead, and find chains of voxels
    that happen to be alike. Only voxels in and around bands are smoothed, each of them once.

    Parameters
    ----------
    image : ImageFeatures
    """

    def __init__(self, image: ImageFeatures) -> None:
        self._image = image
        self._noisy = np.array(image.noisy, np.bool_)
        if self._noisy.any():
            shape = image.sharp.shape
            self._values, self._done = np.empty(shape, np.uint16), np.zeros(shape[1:], np.uint8)

    def near(self, voxels: NDArray[np.int32]) -> NDArray[np.uint16]:
        """Return intensities that are valid at voxels and their neighbors.

        Parameters
        ----------
        voxels : (B, 3) ndarray of int32

        Returns
        -------
        (C, Z, Y, X) ndarray of uint16
            ``image.sharp`` itself where no channel is noisy.
        """
        sharp = self._image.sharp
        if not self._noisy.any():
            return sharp
        place = np.arange(-1, 2) / SIGMA
        lines = [np.exp(-0.5 * (place * s) ** 2) for s in self._image.relative_spacing]
        weights = np.einsum("i,j,k->ijk", *lines).astype(np.float32)
        _in_chunks(
            lambda first, last: smooth_around(
                sharp, self._noisy, weights, voxels, first, last, self._done, self._values
            ),
            len(voxels),
        )
        return self._values


def grow_regions(
    image: NDArray[np.uint16],
    strengths: Floats | None,
    slot: NDArray[np.int32],
    voxels: NDArray[np.int32],
    marked: NDArray[np.int32],
    classes: NDArray[np.int32],
    decided: NDArray[np.uint8],
    best: Floats,
    leak_factor: int = 1,
    shown: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Label the first voxels of a band by the nearest marker or decided voxel.

    A class that grows to where nothing else shows it may have leaked there. It counts beside
    voxels of its own; elsewhere only if it would still come before the background were its
    steps so many times as long.

    Parameters
    ----------
    image : (C, Z, Y, X) ndarray of uint16
    strengths : (C,) ndarray of float32 or None
        Factors of the channels, at most 1; of all channels the largest difference counts.
    slot : (Z, Y, X) ndarray of int32
        Index of every voxel in the band, negative outside.
    voxels : (B, 3) ndarray of int32
        The first ones of the band, in memory order. Those that follow in it are decided.
    marked : (M,) ndarray of int32
        Indices of marked ones among them.
    classes : (M,) ndarray of int32
        Classes of these.
    decided : (Z, Y, X) ndarray of uint8
        Labels of the decided voxels, and in the band those of before.
    best : (Z, Y, X) ndarray of float32
        Scores of the voxels; those without any, the lowest number, are no seeds.
    leak_factor : int
        How many times; with 1 all labels count.
    shown : (K,) ndarray of bool, optional
        For which classes; all by default. Labels of the others count everywhere.

    Returns
    -------
    labels : (B,) ndarray of uint8
    reached : (B,) ndarray of bool
        Whether a path leads to the voxel, and the label counts.
    """
    count = len(voxels)
    factors = np.ones(len(image), np.float32) if strengths is None else strengths
    factors = np.ascontiguousarray(factors, np.float32)
    values = np.empty((count, len(image)), np.int32)
    rows, places = np.empty((count, ROWS), np.int32), np.empty(count, np.int64)
    touching = np.empty(count, np.bool_)

    def grow(factor: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        labels, costs = np.zeros(count, np.uint8), np.full(count, FAR, np.int32)
        labels[marked], costs[marked] = classes, 0

        def seed(first: int, last: int) -> None:
            seed_from_decided(
                image, factors, slot, voxels, decided, best, first, last, factor, values, rows,
                places, labels, costs,
            )  # fmt: skip

        _in_chunks(seed, count)
        grow_from_seeds(values, rows, places, *slot.shape[1:], factor, labels, costs)
        return labels, costs < FAR

    labels, reached = grow(1)
    if leak_factor > 1:
        _in_chunks(
            lambda first, last: touch_own(voxels, decided, labels, first, last, touching), count
        )
        if shown is not None:
            touching |= ~shown[labels]
        if not touching.all():
            reached &= touching | (grow(leak_factor)[0] > 0)
    return labels, reached


def shown_classes(
    labels: NDArray[np.uint8],
    voxels: NDArray[np.int32],
    classes: NDArray[np.int32],
    count: int,
    least: float,
) -> NDArray[np.bool_]:
    """Return which classes labels show at their own markers.

    Gaussians that are larger than a thin structure show it at some of its markers only.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of uint8
    voxels : (M, 3) ndarray of int32
        Markers.
    classes : (M,) ndarray of int32
    count : int
        Number of classes.
    least : float
        Share of the markers of a class.

    Returns
    -------
    (count,) ndarray of bool
        True also for classes without markers.

    Examples
    --------
    >>> labels = np.array([[[0, 1, 0, 2]]], np.uint8)
    >>> voxels = np.array([[0, 0, 1], [0, 0, 2], [0, 0, 3]], np.int32)
    >>> shown_classes(labels, voxels, np.array([1, 1, 2], np.int32), 3, 0.9).tolist()
    [True, False, True]
    """
    right = labels[tuple(voxels.T)] == classes
    return np.bincount(classes[right], minlength=count) >= least * np.bincount(
        classes, minlength=count
    )


def _in_chunks(task: Callable[[int, int], None], count: int) -> None:
    """Call a task with the first and last of so many voxels, on several threads."""
    run_chunks(lambda k: task(k * CHUNK, min(count, (k + 1) * CHUNK)), -(-count // CHUNK))
