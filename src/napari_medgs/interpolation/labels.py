"""From a few fully labeled slices to a label volume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.interpolation.intensity_model import refine_with_intensity
from napari_medgs.interpolation.signed_distance import (
    CLIP,
    ShapeMethod,
    check_method,
    interpolate_distances,
    signed_distances,
    smooth_distances,
)

MARGIN = 10


@dataclass(frozen=True)
class _Stack:
    """Labels and image, slice axis first, and which slices are labeled."""

    labels: NDArray[Any]
    labeled: NDArray[np.int64]
    images: tuple[NDArray[Any], ...]
    sampling: tuple[float, float]


def _prepare(
    labels: NDArray[Any],
    slices: Sequence[int] | NDArray[Any] | None,
    slice_axis: int,
    image: NDArray[Any] | None,
    spacing: Sequence[float] | None,
) -> _Stack:
    labels = np.asarray(labels)
    if labels.ndim != 3 or labels.dtype.kind not in "iub":
        raise LabelError("Labeled slices must be an integer array of three dimensions.")
    if slice_axis not in (0, 1, 2):
        raise ParameterError(f"The slice axis must be 0, 1 or 2, not {slice_axis}.")
    stack = np.moveaxis(labels, slice_axis, 0)
    if slices is None:
        labeled = np.flatnonzero((stack > 0).any(axis=(1, 2)))
    else:
        labeled = np.unique(np.asarray(slices, np.int64))
    if labeled.size and (labeled[0] < 0 or labeled[-1] >= len(stack)):
        raise ParameterError(f"Labeled slices must lie in 0 .. {len(stack) - 1}.")
    if labeled.size == 0 or not (stack[labeled] > 0).any():
        raise LabelError("There is nothing to interpolate: no slice holds a label above 0.")
    images: tuple[NDArray[Any], ...] = ()
    if image is not None:
        contrasts = image if np.ndim(image) == 4 else np.asarray(image)[None]
        images = tuple(np.moveaxis(np.asarray(one), slice_axis, 0) for one in contrasts)
        if any(one.shape != stack.shape for one in images):
            raise GeometryError("The labels and the image must share one grid.")
    sampling = (1.0, 1.0)
    if spacing is not None:
        sizes = [float(s) for k, s in enumerate(spacing) if k != slice_axis]
        if len(sizes) != 2 or not min(sizes) > 0:
            raise GeometryError("The spacing must be three positive numbers.")
        sampling = (sizes[0] / min(sizes), sizes[1] / min(sizes))
    return _Stack(stack, labeled, images, sampling)


def _shape_in_box(
    stack: _Stack, mask: NDArray[np.bool_], method: ShapeMethod, threads: int | None
) -> tuple[tuple[slice, slice, slice], Floats]:
    """Distance of one shape (S, Y, X on the labeled slices) in the box that it may reach.

    Painted slices within the box keep their own distances, outside it all is -CLIP.
    """
    labeled = stack.labeled
    filled = np.flatnonzero(mask.any(axis=(1, 2)))
    # One empty slice beyond each end says where the shape stops; one more steadies the cubic.
    first, last = max(0, filled[0] - 2), min(len(labeled), filled[-1] + 3)
    box = [slice(int(labeled[first]), int(labeled[last - 1]) + 1)]
    for axis in (1, 2):
        hits = np.flatnonzero(mask.any(axis=(0, 3 - axis)))
        low, high = int(hits[0]) - MARGIN, int(hits[-1]) + 1 + MARGIN
        box.append(slice(max(0, low), min(mask.shape[axis], high)))
    z, y, x = box
    some = np.ascontiguousarray(mask[first:last, y, x])
    where = labeled[first:last]
    exact = signed_distances(some, stack.sampling, threads)
    drawn = smooth_distances(exact, some, threads) if method == "flow" else exact
    depth = z.stop - z.start
    distance = np.empty((depth, *some.shape[1:]), np.float32)
    wanted = np.setdiff1d(np.arange(z.start, z.stop), where)
    if len(wanted):
        between = interpolate_distances(drawn, where, wanted, method, threads)
        if stack.images:
            near = [image[:, y, x] for image in stack.images]
            refine_with_intensity(between, wanted, drawn, where, near, threads)
        distance[wanted - z.start] = between
    distance[where - z.start] = exact
    return (z, y, x), np.clip(distance, -CLIP, CLIP, out=distance)


def _class_distances(
    stack: _Stack, method: ShapeMethod, threads: int | None
) -> Iterator[tuple[int, tuple[slice, slice, slice], Floats]]:
    """Yield the signed distances of background and every label.

    Yields
    ------
    value : int
        0 for background, then the labels, increasing.
    box : tuple of slice
        Where the distance holds.
    distance : ndarray of float32
        In pixels, positive inside.
    """
    labeled = stack.labels[stack.labeled]
    values = [int(v) for v in np.unique(labeled) if v > 0]
    box, distance = _shape_in_box(stack, labeled > 0, method, threads)
    yield 0, box, -distance
    for value in values:
        if len(values) > 1:
            box, distance = _shape_in_box(stack, labeled == value, method, threads)
        yield value, box, distance


def interpolate_labels(
    labels: NDArray[Any],
    slices: Sequence[int] | NDArray[Any] | None = None,
    *,
    slice_axis: int = 0,
    image: NDArray[Any] | None = None,
    method: ShapeMethod = "flow",
    spacing: Sequence[float] | None = None,
    threads: int | None = None,
) -> NDArray[Any]:
    """Fill in the labels between slices that are fully labeled.

    Parameters
    ----------
    labels : (Z, Y, X) integer ndarray
        Values outside the labeled slices are ignored.
    slices : sequence of int, optional
        Indices of the labeled slices along ``slice_axis``, at any distances; a slice named here
        that holds no label says that nothing is there. By default those with a label above 0.
    slice_axis : int
    image : (Z, Y, X) or (C, Z, Y, X) ndarray, optional
        Lets outlines follow the intensities, as far as the labeled slices show that they do.
    method : {"flow", "linear", "cubic"}
        How signed distances are interpolated; "flow" follows the outlines' motion.
    spacing : (float, float, float), optional
        Of the grid (z, y, x), for pixels that are not square.
    threads : int, optional
        CPU threads; all by default.

    Returns
    -------
    (Z, Y, X) ndarray
        Labels of the same type. Labeled slices are unchanged; slices beyond the outermost
        labeled ones are 0.

    Raises
    ------
    LabelError
        If labels are no integers or there are none.
    GeometryError, ParameterError
        If the image does not fit, or for impossible settings.

    References
    ----------
    S. P. Raya and J. K. Udupa, "Shape-based interpolation of multidimensional objects", IEEE
    Transactions on Medical Imaging 9 (1990).

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.interpolation import interpolate_labels
    >>> labels = np.zeros((5, 24, 24), np.uint8)
    >>> labels[0, 4:16, 4:16] = labels[4, 8:20, 8:20] = 1
    >>> filled = interpolate_labels(labels, slices=[0, 4])
    >>> bool(filled[2, 11, 11]), bool(filled[2, 2, 2])
    (True, False)
    """
    check_method(method)
    stack = _prepare(labels, slices, slice_axis, image, spacing)
    result = np.zeros(stack.labels.shape, stack.labels.dtype)
    best: Floats = np.zeros(0, np.float32)
    corner = (0, 0, 0)
    for value, box, distance in _class_distances(stack, method, threads):
        if value == 0:
            # No label reaches beyond the box of all of them.
            best, corner = distance, (box[0].start, box[1].start, box[2].start)
            continue
        part = tuple(slice(s.start - c, s.stop - c) for s, c in zip(box, corner, strict=True))
        wins = distance > best[part]
        result[box][wins] = value
        best[part][wins] = distance[wins]
    result[stack.labeled] = stack.labels[stack.labeled]
    return np.ascontiguousarray(np.moveaxis(result, 0, slice_axis))


def interpolate_probabilities(
    labels: NDArray[Any],
    slices: Sequence[int] | NDArray[Any] | None = None,
    *,
    slice_axis: int = 0,
    image: NDArray[Any] | None = None,
    method: ShapeMethod = "flow",
    spacing: Sequence[float] | None = None,
    threads: int | None = None,
    width: float = 1.0,
) -> tuple[list[int], Floats]:
    """Return how likely each label is between slices that are fully labeled.

    Parameters
    ----------
    labels, slices, slice_axis, image, method, spacing, threads
        As in :func:`interpolate_labels`.
    width : float
        Pixels over which an outline fades: the softmax is that of distances / width.

    Returns
    -------
    values : list of int
        0 (background), then the labels, increasing.
    probabilities : (K, Z, Y, X) ndarray of float32
        Sum to 1. Their argmax is what :func:`interpolate_labels` returns.

    Raises
    ------
    LabelError, GeometryError, ParameterError
        As in :func:`interpolate_labels`.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.interpolation import interpolate_probabilities
    >>> labels = np.zeros((5, 24, 24), np.uint8)
    >>> labels[0, 4:16, 4:16] = labels[4, 8:20, 8:20] = 1
    >>> values, probabilities = interpolate_probabilities(labels, slices=[0, 4])
    >>> values, probabilities.shape
    ([0, 1], (2, 5, 24, 24))
    """
    if not width > 0:
        raise ParameterError(f"The width of an outline must be positive, not {width}.")
    check_method(method)
    stack = _prepare(labels, slices, slice_axis, image, spacing)
    values: list[int] = []
    volumes: list[Floats] = []
    for value, box, distance in _class_distances(stack, method, threads):
        whole = np.full(stack.labels.shape, CLIP if value == 0 else -CLIP, np.float32)
        whole[box] = distance
        values.append(value)
        volumes.append(whole)
    odds = np.stack(volumes)
    del volumes
    odds -= odds.max(axis=0)
    np.exp(odds / np.float32(width), out=odds)
    odds /= odds.sum(axis=0)
    return values, np.ascontiguousarray(np.moveaxis(odds, 1, slice_axis + 1))
