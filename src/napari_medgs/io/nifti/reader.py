"""NIfTI-1 and NIfTI-2 images and masks, read to canonical axes and written back as they came."""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import is_orientation_known, source_axes
from napari_medgs.data.shear import is_sheared
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, LabelError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io._axes import PLACED_SOURCES, file_axes
from napari_medgs.io._limits import check_memory, read_to_end
from napari_medgs.io._reasons import reason
from napari_medgs.io._values import cast, with_channels
from napari_medgs.io.fourth_axis import chosen_entries, entry_names
from napari_medgs.io.label_names import write_label_names
from napari_medgs.io.labels import as_labels, compact_labels
from napari_medgs.io.nifti.geometry import forms_apart, header_affine
from napari_medgs.io.nifti.header import (
    NiftiHeader,
    header_axis,
    header_record,
    make_header,
    open_nifti,
    read_header,
)

SUFFIXES = (".nii", ".nii.gz")
_INTENT_LABEL = 1002


def is_nifti(path: str | Path) -> bool:
    """Tell by its name whether a path is meant to be a NIfTI file."""
    return str(path).lower().endswith(SUFFIXES)


def read_nifti(
    path: str | Path,
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
    volume: int | None = None,
    every: bool = False,
) -> Volume:
    """Read a NIfTI image of 2 to 4 axes; the fourth holds channels, or volumes in time.

    Parameters
    ----------
    path : str or Path
        A ``.nii`` or ``.nii.gz`` file, NIfTI-1 or NIfTI-2, of either byte order.
    spacing : (z, y, x) in mm, optional
        For a file without a usable affine, whose axes are then taken as x, y, z towards right,
        anterior, superior.
    assume_identity : bool
        Take such a file with the voxel size of its header (1 mm where it has none), and warn.
    volume : int, optional
        Which entry of the fourth axis to read, from 1; needed where that holds volumes in time.
    every : bool
        Read all volumes as channels; ``Grid.source`` then says that they are volumes.

    Returns
    -------
    Volume
        In the file's dtype, or float32 where the file rescales its values.

    Raises
    ------
    FileError
        When the file is missing, truncated, no NIfTI, or its header is impossible.
    ImageError
        When it holds colors, complex numbers or more axes, or several volumes in time and none
        is chosen.
    ParameterError
        When there is no such volume.
    GeometryError
        When it has no usable affine.
    MemoryEstimateError
        When it would not fit into memory.
    """
    path = Path(path)
    info = read_header(path)
    geometry = header_affine(
        path, info.header, info.shape, spacing=spacing, assume_identity=assume_identity
    )
    axis = header_axis(info.header, info.shape)
    taken = chosen_entries(path, axis, volume, every)
    values = _read_values(path, info, taken)
    if info.scaled:
        # float32 sums would lose the low bits of large integers before the intercept is added.
        wide = np.dtype(np.float64 if info.dtype.itemsize > 2 else np.float32)
        scaled: NDArray[Any] = values.astype(wide) * info.slope + info.intercept
        values = scaled.astype(np.float32, copy=False)
    elif values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    names = entry_names(_stem(path), axis, taken)
    found = _volume(info, values, *geometry, names)
    if every:
        found.grid.source.update(axis.to_source())
    return found


def read_nifti_labels(
    path: str | Path,
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
    volume: int | None = None,
) -> tuple[NDArray[Any], Grid]:
    """Read a NIfTI mask.

    Parameters
    ----------
    path, spacing, assume_identity, volume
        See :func:`read_nifti`.

    Returns
    -------
    labels : (Z, Y, X) ndarray of integers
        In the file's integer type, or the smallest one that fits where the file has floats.
    grid : Grid

    Raises
    ------
    LabelError
        When values are not integers, or the file has several channels.
    FileError, ImageError, GeometryError, MemoryEstimateError
        As :func:`read_nifti`.
    """
    path = Path(path)
    info = read_header(path)
    if len(info.shape) == 4 and info.shape[3] > 1 and volume is None:
        raise LabelError(f"{path}: a mask has one channel; this file has {info.shape[3]}.")
    geometry = header_affine(
        path, info.header, info.shape, spacing=spacing, assume_identity=assume_identity
    )
    taken = chosen_entries(path, header_axis(info.header, info.shape), volume)
    values = _read_values(path, info, taken)
    if info.scaled:
        values = values.astype(np.float64) * info.slope + info.intercept
    labels = as_labels(values, f"{path}: the mask")
    found = _volume(info, labels, *geometry, (_stem(path),))
    return found.data[0], found.grid


def _stem(path: Path) -> str:
    return path.name[: -len(".nii.gz" if path.name.lower().endswith(".gz") else ".nii")]


def _read_values(path: Path, info: NiftiHeader, taken: slice) -> NDArray[Any]:
    """Read entries of the fourth axis in the file's axis order, and the file to its end."""
    from nibabel.volumeutils import array_from_file

    itemsize = max(info.dtype.itemsize, (16 if info.dtype.itemsize > 2 else 8) * info.scaled)
    shape = (*(*info.shape[:3], 1)[:3], taken.stop - taken.start)
    check_memory(path, 2 * math.prod(shape) * itemsize)
    start = info.offset + math.prod(shape[:3]) * taken.start * info.dtype.itemsize
    try:
        with open_nifti(path) as opened:
            values = array_from_file(shape, info.dtype, opened, start, mmap=False)
            if info.compressed:
                # The checksum stands at the end of the stream: only reading it reveals damage.
                read_to_end(path, opened, info.nbytes)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise FileError(f"{path}: truncated or damaged ({reason(error)}).") from error
    return np.asarray(values)


def _volume(
    info: NiftiHeader,
    values: NDArray[Any],
    affine: NDArray[np.float64],
    assumed: bool,
    names: tuple[str, ...],
) -> Volume:
    """Make a canonical volume of values (x, y, z, entry)."""
    data = np.moveaxis(values, -1, 0)
    source: dict[str, Any] = {
        "kind": "nifti",
        "header": header_record(info.header, info.shape),
        "assumed": assumed,
    }
    apart = forms_apart(info.header, info.shape)
    if apart is not None:
        source["qform_apart_mm"] = round(apart.mm, 3)
    return Volume.from_axes(data, affine, channel_names=names, source=source)


def write_nifti(
    path: str | Path,
    data: NDArray[Any],
    grid: Grid,
    dtype: DTypeLike | None = None,
) -> Path:
    """Write an image in its source file's orientation, or LPS where it has none.

    With a grid that was read from NIfTI the affine (sform, qform, codes, quaternion), the voxel
    sizes and the units come out bit for bit, even where they were unusable and had to be replaced:
    image and mask then still overlay in every program.

    Parameters
    ----------
    path : str or Path
        Ends in ``.nii`` or ``.nii.gz``.
    data : (Z, Y, X) or (C, Z, Y, X) ndarray
        Several channels become the fourth axis.
    grid : Grid
        Where the data lie.
    dtype : optional
        Type of the stored values; floats are rounded to an integer type. By default the data's.

    Raises
    ------
    FileError
        When the name has another suffix or the folder cannot be written.
    GeometryError
        When data and grid differ in shape.
    ImageError
        When the data have no such axes, or do not fit the type.
    """
    path = _check_name(path)
    _write(path, cast(with_channels(data), dtype), grid, intent=0)
    return path


def write_nifti_labels(
    path: str | Path,
    labels: NDArray[Any],
    grid: Grid,
    names: Mapping[int, str] | None = None,
) -> Path:
    """Write a mask in its source file's orientation, in the smallest integer type.

    Parameters
    ----------
    path : str or Path
        Ends in ``.nii`` or ``.nii.gz``.
    labels : (Z, Y, X) ndarray
        Integer values.
    grid : Grid
        Where they lie; see :func:`write_nifti`.
    names : mapping of int to str, optional
        Names by label value, written to a JSON file beside the mask.

    Raises
    ------
    LabelError
        When values are not integers.
    FileError, GeometryError
        As :func:`write_nifti`.
    """
    path = _check_name(path)
    array = np.asarray(labels)
    if array.ndim != 3:
        raise LabelError(f"A mask has three axes (z, y, x), not shape {array.shape}.")
    array = compact_labels(array)
    _write(path, array[None], grid, intent=_INTENT_LABEL)
    if names:
        write_label_names(path, names)
    return path


def _check_name(path: str | Path) -> Path:
    if not is_nifti(path):
        raise FileError(f"{path}: the name of a NIfTI file ends in .nii.gz or .nii.")
    return Path(path)


def _write(path: Path, data: NDArray[Any], grid: Grid, intent: int) -> None:
    """Write (C, Z, Y, X) data of a final type."""
    from nibabel.volumeutils import array_to_file

    array, affine = file_axes(data, grid)
    array = np.moveaxis(array, 0, -1)
    known = source_axes(grid) is not None and grid.source.get("kind") in PLACED_SOURCES
    record = grid.source.get("header") if known else None
    dims = int(record.get("dims", 3)) if isinstance(record, dict) else 3
    if array.shape[3] == 1 and dims < 4:
        array = array[..., 0]
        if dims == 2 and array.shape[2] == 1:
            array = array[..., 0]
    header = make_header(record, array.shape, array.dtype)
    if record is None:
        _set_affine(header, affine, _space_code(grid))
    if is_sheared(affine) and int(header["qform_code"]) == 0:
        warnings.warn(
            f"{path}: its slices are sheared (a tilted gantry), and ITK programs (3D Slicer, "
            "ITK-SNAP, nnU-Net) open no such NIfTI file; napari-medgs convert --deshear writes "
            "one that they open.",
            stacklevel=4,
        )
    header["intent_code"] = intent
    with atomic_path(path) as temporary, temporary.open("wb") as raw:
        if path.name.lower().endswith(".gz"):
            # No name and no time in the stream: equal data make equal files.
            with gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed:
                header.write_to(packed)
                array_to_file(array, packed, header.get_data_dtype(), None)
        else:
            header.write_to(raw)
            array_to_file(array, raw, header.get_data_dtype(), None)


def _space_code(grid: Grid) -> int:
    """Return the sform code of a grid without a NIfTI header: 1 (scanner) unless it says else.

    An assumed orientation is 2 ("aligned"): the place holds among files of one origin only.
    """
    if not is_orientation_known(grid):
        return 2
    code = grid.source.get("sform_code", 1)
    return code if type(code) is int and 1 <= code <= 5 else 1


def _set_affine(header: Any, affine: NDArray[np.float64], code: int) -> None:
    """Give a header an affine in the space of a code; the qform too where it can hold it."""
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=code)
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    header.set_qform(affine, code=code, strip_shears=True)
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-5):
        header["qform_code"] = 0
