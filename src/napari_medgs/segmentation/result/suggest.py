"""Which slice to annotate next: greedy facility location.

An annotated slice covers itself and, with exponentially decreasing weight, its neighbors. The
suggested slice adds most to the covered utility, which is the expected error (per class, so that
small classes count like large ones) plus the extent of the objects: where the result is certain
but far from all markers, only a look at the slice can tell. The greedy choice of a monotone
submodular utility is within a factor of 1 - 1/e of the best set of slices.

Errors are clustered, so that markers next to markers add little: the coverage is wide, and the
extent counts for half, with wide margins, since objects often end later than they seem to. Where a
class has many components, slices in which the mask lacks some of its look have a utility of their
own, and cover no more than one component's extent.

References
----------
Nemhauser, Wolsey and Fisher 1978, *An analysis of approximations for maximizing submodular set
functions*, Mathematical Programming 14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.segmentation.advanced import SuggestionParams


@dataclass(frozen=True)
class Suggestion:
    """A slice to annotate.

    Attributes
    ----------
    axis, index : int
        The slice of the canonical grid.
    position : (z, y, x)
        The voxel in it at which an error is most likely.
    score : float
        Part of the total utility, 0 to 1, that annotating the slice would newly cover.
    """

    axis: int
    index: int
    position: tuple[int, int, int]
    score: float


@dataclass(frozen=True)
class Lacking:
    """Slices in which a mask lacks components.

    Attributes
    ----------
    utility : (S,) ndarray
        Of every slice, with a sum of 1 at most: the part of all places that look like a class of
        many components and are not in the mask, times the probability that they are right.
    extent : float
        Of a component, in slices.
    """

    utility: NDArray[np.float64]
    extent: float


def suggest_slices(
    error_probability: Floats,
    labels: NDArray[np.uint8],
    runner_up: NDArray[np.uint8],
    axis: int,
    annotated: NDArray[np.int64],
    spacing: tuple[float, float, float],
    count: int = 1,
    params: SuggestionParams | None = None,
    lacking: Lacking | None = None,
) -> list[Suggestion]:
    """Return the slices of one orientation whose annotation has the highest utility, best first.

    Parameters
    ----------
    error_probability : (Z, Y, X) ndarray, 0 to 1
        Probability that a voxel's label is wrong.
    labels, runner_up : (Z, Y, X) ndarray of uint8
        Class indices as they are, and the most likely other ones; 0 is background.
    axis : int
        Normal of the slices.
    annotated : (S,) ndarray of int
        Slices of that orientation that carry markers already.
    spacing : (z, y, x) in mm
    count : int
        Most slices to return.
    params : SuggestionParams, optional
    lacking : Lacking, optional
        Slices in which components are missing.

    Returns
    -------
    list of Suggestion
        Fewer than ``count`` where nothing is left to cover.

    References
    ----------
    Nemhauser, Wolsey and Fisher 1978, Mathematical Programming 14.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.zeros((9, 6, 6), np.uint8)
    >>> labels[:, 2:4, 2:4] = 1
    >>> error = np.zeros(labels.shape, np.float32)
    >>> error[6, 2:4, 2:4] = 0.5
    >>> found = suggest_slices(error, labels, 1 - labels, 0, np.array([2]), (1.0, 1.0, 1.0))
    >>> found[0].index
    6
    """
    from scipy.ndimage import gaussian_filter

    params = params or SuggestionParams()
    annotated = np.asarray(annotated, np.int64)
    utility, extent = _utility(
        np.moveaxis(error_probability, axis, 0),
        np.moveaxis(labels, axis, 0),
        np.moveaxis(runner_up, axis, 0),
        params,
    )
    index = np.arange(len(utility))
    kernel = np.exp(-np.abs(index[:, None] - index) / max(1.0, params.bandwidth * extent))
    coverage = kernel[:, annotated].max(axis=1, initial=0.0)
    terms = [(utility, kernel, coverage)]
    if lacking is not None and lacking.utility.any():
        terms = [(utility * (1 - lacking.utility.sum()), kernel, coverage)]
        near = np.exp(-np.abs(index[:, None] - index) / max(1.0, lacking.extent))
        terms.append((lacking.utility, near, near[:, annotated].max(axis=1, initial=0.0)))
    candidate = np.ones(len(utility), np.bool_)
    candidate[annotated] = False
    others = tuple(a for a in range(3) if a != axis)
    sigmas = [params.blur * min(spacing) / spacing[a] for a in others]
    found: list[Suggestion] = []
    for _ in range(min(count, int(np.count_nonzero(candidate)))):
        gain = np.zeros(len(utility))
        for worth, reach, covered in terms:
            gain += worth @ np.maximum(reach - covered[:, None], 0)
        gain[~candidate] = 0
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        plane = np.take(error_probability, best, axis=axis)
        row, column = np.unravel_index(gaussian_filter(plane, sigmas).argmax(), plane.shape)
        position = [0, 0, 0]
        position[axis], position[others[0]], position[others[1]] = best, int(row), int(column)
        found.append(
            Suggestion(axis, best, (position[0], position[1], position[2]), float(gain[best]))
        )
        candidate[best] = False
        terms = [(u, reach, np.maximum(known, reach[:, best])) for u, reach, known in terms]
    return found


def _utility(
    error_probability: Floats,
    labels: NDArray[np.uint8],
    runner_up: NDArray[np.uint8],
    params: SuggestionParams,
) -> tuple[NDArray[np.float64], float]:
    """Return the utility of each slice (the first axis), with sum 1, and the mean extent."""
    from scipy.ndimage import gaussian_filter1d

    classes = int(max(labels.max(), runner_up.max())) + 1
    area, wrong = np.zeros((len(labels), classes)), np.zeros((len(labels), classes))
    for z in range(len(labels)):
        own, weight = labels[z].reshape(-1), error_probability[z].reshape(-1)
        area[z] = np.bincount(own, minlength=classes)
        # An error concerns two classes: the one that it is and the one that it should be.
        wrong[z] = np.bincount(own, weight, classes)
        wrong[z] += np.bincount(runner_up[z].reshape(-1), weight, classes)
    errors = (wrong[:, 1:] / np.maximum(area[:, 1:].sum(axis=0), 1)).sum(axis=1)
    errors = gaussian_filter1d(errors, 1.0)
    diameters, extents = np.zeros(len(labels)), []
    for k in range(1, classes):
        slices = int(np.count_nonzero(area[:, k]))
        if slices:
            diameter = np.sqrt(area[:, k])
            sigma = max(1.0, params.end_margin * slices)
            diameters += gaussian_filter1d(diameter, sigma) / diameter.sum()
            extents.append(slices)
    utility = np.zeros(len(labels))
    weights = 1 - params.extent_weight, params.extent_weight
    for part, weight in zip((errors, diameters), weights, strict=True):
        if part.sum() > 0:
            utility += weight * part / part.sum()
    return utility, float(np.mean(extents)) if extents else 1.0
