"""Label images: integer checks, smallest types, mask detection, names in a JSON sidecar."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.records import checked, parse_json
from napari_medgs.errors import FileError, LabelError, ParameterError
from napari_medgs.io._atomic import atomic_path, full_suffix

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume

_MAX_SIDECAR = 16 * 2**20
_MASK_NAME = re.compile(
    r"(^|[^a-z])(seg\w*|labels?|masks?|msk|lesions?|annot\w*|rois?|gt|aseg|aparc)([^a-z]|$)"
)
_MAX_MASK_VALUES = 40
_SHARING = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".nhdr", ".mgz", ".hdr", ".tif", ".tiff")
"""Endings of images whose label names may lie in the same JSON file."""
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


def sidecar_path(path: str | Path) -> Path:
    """Return where the label names of a mask are kept: ``seg.json`` beside ``seg.nii.gz``.

    Examples
    --------
    >>> sidecar_path("seg.nii.gz").name
    'seg.json'
    """
    path = Path(path)
    suffix = full_suffix(path)
    return path.with_name(path.name.removesuffix(suffix) + ".json")


def write_label_names(path: str | Path, names: Mapping[int, str]) -> Path:
    """Write the names of a mask's labels beside it.

    The file holds ``{"labels": {"1": "spleen", ..}}``. Other entries of a sidecar that is already
    there (as BIDS has them) are kept; colors only of labels whose name stays the same.

    Parameters
    ----------
    path : str or Path
        The mask's file.
    names : mapping of int to str
        Names by label value.

    Returns
    -------
    Path
        The JSON file.

    Raises
    ------
    FileError
        When it cannot be written, or a file of this name holds something else than a JSON object.

    Examples
    --------
    >>> import tempfile
    >>> from napari_medgs.io import read_label_names, write_label_names
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = write_label_names(folder + "/mask.nii.gz", {1: "spleen"})
    ...     table.name, read_label_names(folder + "/mask.nii.gz")
    ('mask.json', {1: 'spleen'})
    """
    sidecar = sidecar_path(path)
    record = _read_sidecar(sidecar) if sidecar.exists() else {}
    if record is None:
        raise FileError(
            f"{sidecar}: the label names go here, but the file holds no JSON object; move it."
        )
    before = record.get("labels")
    record["labels"] = {str(int(value)): str(name) for value, name in sorted(names.items())}
    if isinstance(record.get("colors"), dict) and isinstance(before, dict):
        record["colors"] = {
            value: color
            for value, color in record["colors"].items()
            if before.get(value) == record["labels"].get(value)
        }
    other = _same_stem(Path(path))
    if other is not None and isinstance(before, dict) and before != record["labels"]:
        warnings.warn(
            f"{sidecar}: had the label names of {other.name}, which are now those of "
            f"{Path(path).name}; give the mask another name.",
            stacklevel=3,
        )
    return _write_sidecar(sidecar, record)


def read_label_names(path: str | Path) -> dict[int, str]:
    """Read the names of a mask's labels from its sidecar; empty where there are none.

    A damaged sidecar gives a warning: the mask is readable without it.
    """
    sidecar = sidecar_path(path)
    if not sidecar.is_file():
        return {}
    record = _read_sidecar(sidecar)
    if record is None:
        warnings.warn(f"{sidecar}: no JSON object; label names are not read.", stacklevel=2)
        return {}
    found = record.get("labels", {})
    if isinstance(found, dict) and any(isinstance(entry, dict) for entry in found.values()):
        return {}  # numbers of a command, by label
    try:
        labels = checked(dict[str, str], found, "labels")
        return {int(value): name for value, name in labels.items()}
    except (ParameterError, ValueError):
        warnings.warn(f"{sidecar}: its label names are damaged; not read.", stacklevel=2)
        return {}


def write_label_colors(path: str | Path, colors: Mapping[int, Sequence[float]]) -> Path:
    """Write the colors of a mask's labels into the JSON file that holds their names.

    Parameters
    ----------
    path : str or Path
        The mask's file.
    colors : mapping of int to (red, green, blue)
        From 0 to 1, by label value.

    Raises
    ------
    FileError
        As :func:`write_label_names`.
    """
    sidecar = sidecar_path(path)
    record = _read_sidecar(sidecar) if sidecar.exists() else {}
    if record is None:
        raise FileError(
            f"{sidecar}: the label colors go here, but the file holds no JSON object; move it."
        )
    record["colors"] = {
        str(int(value)): [round(float(c), 6) for c in color[:3]]
        for value, color in sorted(colors.items())
    }
    return _write_sidecar(sidecar, record)


def forget_label_names(path: str | Path) -> None:
    """Remove the label names and colors that an earlier mask of the same name left beside it.

    Other entries stay, and so does the whole file where another image beside it has the same
    name with another suffix, of which it may be the sidecar. A warning says what was done.

    Parameters
    ----------
    path : str or Path
        The mask's file.

    Raises
    ------
    FileError
        When the sidecar cannot be written.
    """
    sidecar = sidecar_path(path)
    record = _read_sidecar(sidecar) if sidecar.is_file() else None
    found = (record or {}).get("labels")
    if record is None or not isinstance(found, dict):
        return
    if not all(isinstance(name, str) for name in found.values()):
        return  # numbers of a command, by label
    other = _same_stem(Path(path))
    if other is not None:
        warnings.warn(
            f"{sidecar}: has the label names of {other.name}, which count for "
            f"{Path(path).name} as well; give the mask another name.",
            stacklevel=3,
        )
        return
    rest = {key: value for key, value in record.items() if key not in ("labels", "colors")}
    if rest:
        _write_sidecar(sidecar, rest)
    else:
        sidecar.unlink()
    warnings.warn(
        f"{sidecar}: the label names of an earlier {Path(path).name} were removed from it, as "
        "the new mask has none.",
        stacklevel=3,
    )


def _same_stem(path: Path) -> Path | None:
    """Return another image beside a mask whose sidecar is the same file."""
    sidecar = sidecar_path(path)
    for suffix in _SHARING:
        other = path.with_name(sidecar.stem + suffix)
        if other.name != path.name and other.exists():
            return other
    return None


def read_label_colors(path: str | Path) -> dict[int, tuple[float, float, float]]:
    """Read the colors (red, green, blue) from 0 to 1 of a mask's labels from its sidecar.

    What is no color is passed over: the mask is readable without it.
    """
    sidecar = sidecar_path(path)
    record = _read_sidecar(sidecar) if sidecar.is_file() else None
    found = {} if record is None else record.get("colors")
    colors: dict[int, tuple[float, float, float]] = {}
    for value, color in found.items() if isinstance(found, dict) else ():
        parts = color if isinstance(color, list) and len(color) == 3 else []
        numbers = [p for p in parts if type(p) in (int, float) and 0 <= p <= 1]
        if len(numbers) == 3 and value.lstrip("-").isdecimal() and len(value) < 12:
            colors[int(value)] = (float(numbers[0]), float(numbers[1]), float(numbers[2]))
    return colors


def _write_sidecar(sidecar: Path, record: Mapping[str, Any]) -> Path:
    with atomic_path(sidecar) as temporary:
        text = json.dumps(record, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return sidecar


def _read_sidecar(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, None when the file holds none."""
    try:
        if path.stat().st_size > _MAX_SIDECAR:
            return None
        record = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


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
