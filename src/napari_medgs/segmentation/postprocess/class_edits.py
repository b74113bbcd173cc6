"""One-click edits of a class of a mask: margins, islands, holes, smoothing, slices between.

All lengths are millimeters, whatever the voxels' shape. An edit takes background or gives voxels
back to it; other classes keep theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import GeometryError, LabelError, ParameterError

Mask = NDArray[np.bool_]
Spacing = Sequence[float] | NDArray[np.float64]


class ClassEdit(StrEnum):
    """What can be done to a class at once."""

    GROW = "grow"
    SHRINK = "shrink"
    SMOOTH = "smooth"
    LARGEST = "keep largest"
    SMALL = "remove small"
    HOLES = "fill holes"
    BETWEEN = "fill between slices"

    @property
    def unit(self) -> str:
        """The unit of its amount: mm, mL, or empty where it has none."""
        if self in (ClassEdit.GROW, ClassEdit.SHRINK, ClassEdit.SMOOTH):
            return "mm"
        return "mL" if self is ClassEdit.SMALL else ""


def edit_class(
    labels: NDArray[Any],
    label: int,
    edit: ClassEdit | str,
    spacing: Spacing,
    amount: float = 0.0,
    *,
    within: Mask | None = None,
    slices: Sequence[int] = (),
    axis: int = 0,
) -> NDArray[Any]:
    """Return a mask in which one class was edited.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of int
        Not changed.
    label : int
        The class, above 0.
    edit : ClassEdit or str
    spacing : (z, y, x) in mm
    amount : float
        Millimeters of a margin, standard deviation in mm for smoothing, or the volume in mL
        below which pieces are removed.
    within : (Z, Y, X) ndarray of bool, optional
        Where voxels may be added, such as those of a range of intensities.
    slices : sequence of int
        Of :attr:`ClassEdit.BETWEEN`: the slices that stay, at least two.
    axis : int
        Across which these slices lie.

    Returns
    -------
    (Z, Y, X) ndarray of int
        A copy, of the same type.

    Raises
    ------
    LabelError
        When the class has no voxels, or would lose all.
    ParameterError
        For an unknown edit, an amount that is not positive, or too few slices.
    GeometryError
        When shapes differ or the spacing is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.zeros((1, 7, 9), int)
    >>> labels[0, 3, 4] = 2
    >>> int((edit_class(labels, 2, "grow", (5, 1, 1), 2.0) == 2).sum())
    13
    """
    try:
        edit = ClassEdit(edit)
    except ValueError:
        known = ", ".join(ClassEdit)
        raise ParameterError(f"There is no edit {edit!r}; there are {known}.") from None
    sizes = np.asarray(spacing, np.float64)
    if sizes.shape != (3,) or not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise GeometryError(f"The spacing must be three positive numbers in mm, not {spacing}.")
    if edit.unit and not (np.isfinite(amount) and amount > 0):
        raise ParameterError(f"{edit.capitalize()} needs an amount above 0 {edit.unit}.")
    if within is not None and within.shape != labels.shape:
        raise GeometryError("The mask and the range within it differ in shape.")
    before = labels == label
    if label <= 0 or not before.any():
        raise LabelError(f"The mask has no voxels of class {label} to {edit}.")
    after = _edited(before, edit, sizes, amount, slices, axis)
    return with_shape(labels, label, after, within)


def with_shape(
    labels: NDArray[Any], label: int, after: Mask, within: Mask | None = None
) -> NDArray[Any]:
    """Return a mask in which a class has another shape; other classes keep their voxels.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of int
        Not changed.
    label : int
    after : (Z, Y, X) ndarray of bool
        The shape wanted.
    within : (Z, Y, X) ndarray of bool, optional
        Where voxels may be added.

    Raises
    ------
    LabelError
        When the class would lose all of its voxels.
    """
    before = labels == label
    added = after & ~before & (labels == 0)
    if within is not None:
        added &= within
    lost = before & ~after
    if not added.any() and np.array_equal(lost, before):
        raise LabelError(f"Nothing of class {label} would be left: choose a smaller amount.")
    result = labels.copy()
    result[lost] = 0
    result[added] = label
    return result


def _edited(
    mask: Mask,
    edit: ClassEdit,
    sizes: NDArray[np.float64],
    amount: float,
    slices: Sequence[int],
    axis: int,
) -> Mask:
    if edit is ClassEdit.BETWEEN:
        return fill_between(mask, slices, axis, sizes)
    reach = {ClassEdit.GROW: amount, ClassEdit.SMOOTH: 4 * amount}.get(edit, 0.0)
    box = _box(mask, np.ceil(reach / sizes).astype(int) + 1)
    part, result = mask[box], np.zeros_like(mask)
    if edit is ClassEdit.GROW:
        result[box] = grow(part, sizes, amount)
    elif edit is ClassEdit.SHRINK:
        result[box] = shrink(part, sizes, amount)
    elif edit is ClassEdit.SMOOTH:
        result[box] = smooth(part, sizes, amount)
    elif edit is ClassEdit.LARGEST:
        result[box] = keep_largest(part)
    elif edit is ClassEdit.SMALL:
        voxels = amount * 1000 / float(np.prod(sizes))
        result[box] = remove_small(part, voxels)
    else:
        from scipy.ndimage import binary_fill_holes

        result[box] = binary_fill_holes(part)
    return result


def grow(mask: Mask, spacing: Spacing, mm: float) -> Mask:
    """Add all voxels whose centers lie at most ``mm`` from the center of one of the mask's."""
    from scipy.ndimage import distance_transform_edt

    near: Mask = distance_transform_edt(~mask, sampling=spacing) <= mm + 1e-6
    return near


def shrink(mask: Mask, spacing: Spacing, mm: float) -> Mask:
    """Remove what :func:`grow` of the outside would take; the image's border is no outside."""
    from scipy.ndimage import distance_transform_edt

    if mask.all():
        return mask.copy()
    deep: Mask = distance_transform_edt(mask, sampling=spacing) > mm + 1e-6
    return deep


def smooth(mask: Mask, spacing: Spacing, mm: float) -> Mask:
    """Smooth with a Gaussian of standard deviation ``mm``; the number of voxels is kept."""
    from scipy.ndimage import gaussian_filter

    count = int(np.count_nonzero(mask))
    if count == mask.size:
        return mask.copy()
    blurred = gaussian_filter(mask.astype(np.float32), mm / np.asarray(spacing), mode="nearest")
    level = np.partition(blurred, blurred.size - count, axis=None)[blurred.size - count]
    kept: Mask = blurred >= max(float(level), 1e-6)
    return kept


def keep_largest(mask: Mask) -> Mask:
    """Keep the piece with most voxels; pieces touch with faces."""
    from scipy.ndimage import label as find_components

    pieces, count = find_components(mask)
    if count < 2:
        return mask.copy()
    sizes = np.bincount(pieces.reshape(-1))
    sizes[0] = 0
    kept: Mask = pieces == sizes.argmax()
    return kept


def remove_small(mask: Mask, voxels: float) -> Mask:
    """Remove pieces of fewer voxels; pieces touch with faces."""
    from scipy.ndimage import label as find_components

    pieces, _ = find_components(mask)
    large: Mask = np.asarray(np.bincount(pieces.reshape(-1)) >= voxels)
    large[0] = False
    kept: Mask = large[pieces]
    return kept


def fill_between(mask: Mask, slices: Sequence[int], axis: int, spacing: Spacing) -> Mask:
    """Replace the slices between given ones by shapes that lead from one to the next.

    Parameters
    ----------
    mask : (Z, Y, X) ndarray of bool
    slices : sequence of int
        Slices across ``axis`` that stay; at least two of them must hold the mask.
    axis : int
    spacing : (z, y, x) in mm

    Raises
    ------
    ParameterError
        For too few slices.
    """
    from napari_medgs.interpolation import interpolate_labels

    filled = _along(mask, axis)
    given = [int(k) for k in sorted(set(slices)) if 0 <= k < len(filled)]
    held = [k for k in given if filled[k]]
    if len(held) < 2:
        raise ParameterError(
            "Fill between slices needs at least two slices that hold the class: paint it in a "
            "few slices of the plane that is shown."
        )
    first, last = held[0], held[-1]
    given = [k for k in given if first <= k <= last]
    between: list[slice] = [slice(None)] * 3
    between[axis] = slice(first, last + 1)
    sizes = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    result = mask.copy()
    result[tuple(between)] = (
        interpolate_labels(mask.astype(np.uint8), given, slice_axis=axis, spacing=sizes)[
            tuple(between)
        ]
        > 0
    )
    return result


def intensity_mask(
    image: NDArray[Any], low: float | None = None, high: float | None = None
) -> Mask:
    """Return the voxels with intensities of a range, both ends included; NaN is outside.

    Parameters
    ----------
    image : (Z, Y, X) ndarray
    low, high : float, optional
        In the image's units; an end that is None is open.

    Raises
    ------
    ParameterError
        When the range is empty.
    """
    if low is not None and high is not None and low > high:
        raise ParameterError(f"The range of intensities from {low:g} to {high:g} is empty.")
    inside: Mask = np.isfinite(image)
    if low is not None:
        inside &= image >= low
    if high is not None:
        inside &= image <= high
    return inside


def clear_outside_range(
    labels: NDArray[Any], image: NDArray[Any], low: float | None, high: float | None
) -> None:
    """Make voxels with intensities outside a range background, in place and slice by slice.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of int
    image : (Z, Y, X) ndarray
    low, high : float or None
        See :func:`intensity_mask`.

    Raises
    ------
    ParameterError
        When the range is empty.
    """
    if low is None and high is None:
        return
    for plane, values in zip(labels, image, strict=True):
        plane[~intensity_mask(values, low, high)] = 0


def _box(mask: Mask, margin: NDArray[np.int64]) -> tuple[slice, ...]:
    """Return the bounding box of a mask with a margin, within the image."""
    box = []
    for axis in range(3):
        hits = np.flatnonzero(_along(mask, axis))
        low, high = int(hits[0]) - int(margin[axis]), int(hits[-1]) + 1 + int(margin[axis])
        box.append(slice(max(low, 0), min(high, mask.shape[axis])))
    return tuple(box)


def _along(mask: Mask, axis: int) -> Mask:
    """Tell which slices across an axis hold the mask."""
    held: Mask = np.asarray(mask.any(axis=tuple(a for a in range(3) if a != axis)))
    return held
