"""Label images: integer checks, smallest types, mask detection."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import LabelError

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume

_MASK_NAME = re.compile(
    r"(^|[^a-z])(seg\w*|labels?|masks?|msk|lesions?|annot\w*|rois?|gt|aseg|aparc)([^a-z]|$)"
)
_MAX_MASK_VALUES = 40
_ROUNDING, _MOST_ROUNDING = 1e-6, 1e-3  # relative and absolute


def smallest_integer(low: int, high: int) -> np.dtype[Any]:
    """Return the smallest integer type for values in low .. high that viewers read.

    Of two types of equal size the one that more programs read: the order of preference is uint8,
    int16, uint16, int32, uint32, int64, uint64.
    """
    kinds = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
    for kind in kinds:
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max:
            return np.dtype(kind)
    raise LabelError(f"Labels from {low} to {high} fit into no integer type.")


def as_labels(array: NDArray[Any], name: str = "The mask") -> NDArray[Any]:
    """Return an array as integers; integer types stay as they are.

    Parameters
    ----------
    array : (...) ndarray
        Integers, booleans, or floats with integer values. Floats may be off by a millionth (of
        values above 1: of themselves, a thousandth at most), as rounding leaves them.
    name : str
        What to call it in messages.

    Returns
    -------
    ndarray of integers
        Of the same shape.

    Raises
    ------
    LabelError
        When a value is not an integer, not finite, or too large for one.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.io import as_labels
    >>> as_labels(np.array([0.0, 2.0]))
    array([0, 2], dtype=uint8)
    """
    array = np.asarray(array)
    if array.dtype.kind in "iu":
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind != "f":
        raise LabelError(f"{name} holds values of type {array.dtype}; labels are integers.")
    if not array.size:
        return array.astype(np.uint8)
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise LabelError(f"{name} holds values that are not finite; labels are integers.")
    if abs(low) > 2**53 or abs(high) > 2**53:
        raise LabelError(f"{name} holds values up to {max(abs(low), abs(high)):g}: no labels.")
    result = array.astype(smallest_integer(int(np.floor(low)), int(np.ceil(high))))
    wrong = result != array
    if wrong.any():
        rounded = np.rint(array)
        # What single precision makes of an integer that was scaled and back, or interpolated.
        slack = np.minimum(_ROUNDING * np.maximum(np.abs(rounded), 1), _MOST_ROUNDING)
        wrong = np.abs(array - rounded) > slack
        if not wrong.any():
            return rounded.astype(smallest_integer(int(rounded.min()), int(rounded.max())))
        raise LabelError(
            f"{name} holds values that are not integers ({float(array[wrong].flat[0]):g} for "
            "one): it is an image or a probability map, not a mask."
        )
    return result


def compact_labels(array: NDArray[Any], name: str = "The mask") -> NDArray[Any]:
    """Return labels in the smallest integer type that holds them; see :func:`as_labels`.

    Parameters
    ----------
    array : (...) ndarray
        Integers, booleans, or floats with integer values.
    name : str
        What to call it in messages.

    Returns
    -------
    (...) ndarray of integers
        Of the same shape.

    Raises
    ------
    LabelError
        As :func:`as_labels`.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.io import compact_labels
    >>> compact_labels(np.array([0, 300], np.int64)).dtype
    dtype('int16')
    """
    labels = as_labels(array, name)
    if not labels.size:
        return labels
    return labels.astype(smallest_integer(int(labels.min()), int(labels.max())), copy=False)


def looks_like_image(labels: NDArray[Any]) -> bool:
    """Tell whether integers are intensities: many values, and neighbors seldom share one.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of integers

    Returns
    -------
    bool
        True where there are more than 40 values and along every axis fewer than half of the
        voxels other than 0 have the value of the next one.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.io.labels import looks_like_image
    >>> looks_like_image(np.random.default_rng(0).integers(0, 500, (8, 9, 10)))
    True
    >>> looks_like_image(np.arange(200).repeat(40).reshape(10, 20, 40))
    False
    """
    if len(np.unique(labels)) <= _MAX_MASK_VALUES:
        return False
    shares = [0.0]
    for axis in range(labels.ndim):
        lines = np.moveaxis(labels, axis, 0)
        marked = lines[:-1] != 0
        same = int(np.count_nonzero(marked & (lines[:-1] == lines[1:])))
        shares.append(same / max(int(np.count_nonzero(marked)), 1))
    return max(shares) < 0.5


def is_mask_name(name: str) -> bool:
    """Tell whether a file's name without its suffix says that it is a mask.

    Examples
    --------
    >>> from napari_medgs.io.labels import is_mask_name
    >>> is_mask_name("ct_seg"), is_mask_name("segment_study")
    (True, True)
    >>> is_mask_name("ct_1")
    False
    """
    return _MASK_NAME.search(name.lower().replace("_", "-")) is not None


def as_mask(volume: Volume, name: str) -> NDArray[Any] | None:
    """Return a volume's only channel as labels if it is a mask, else None.

    A mask has integer values, and either a name that says so (seg, mask, label ..), or at most
    40 different values of an integer type of one or two bytes.

    Parameters
    ----------
    volume : Volume
    name : str
        The file's name without suffix.

    Returns
    -------
    (Z, Y, X) ndarray of integers, or None
        None for an image.
    """
    if volume.channels != 1:
        return None
    data = volume.channel(0)
    named = is_mask_name(name)
    if not named and not (data.dtype.kind in "iub" and data.dtype.itemsize <= 2):
        return None
    if not named and len(np.unique(data)) > _MAX_MASK_VALUES:
        return None
    try:
        labels = as_labels(data)
    except LabelError:
        return None
    return labels
