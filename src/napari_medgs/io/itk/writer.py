"""Images and masks as NRRD and MetaImage files, compressed; segments in ``.seg.nrrd``."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, LabelError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io._axes import file_axes
from napari_medgs.io._values import cast, with_channels
from napari_medgs.io.itk.reader import LPS_TO_RAS, no_itk_warnings
from napari_medgs.io.itk.segments import SEG_SUFFIX, segment_metadata
from napari_medgs.io.label_names import write_label_names
from napari_medgs.io.labels import compact_labels

WRITTEN = (".nrrd", ".mha")
CHUNK = 1 << 20  # bytes


def write_itk(
    path: str | Path, data: NDArray[Any], grid: Grid, dtype: DTypeLike | None = None
) -> Path:
    """Write an image as NRRD or MetaImage in its source file's axis order, or LPS.

    Parameters
    ----------
    path : str or Path
        Ends in ``.nrrd`` or ``.mha``.
    data : (Z, Y, X) or (C, Z, Y, X) ndarray
        Several channels become the components of each voxel.
    grid : Grid
        Where the data lie.
    dtype : optional
        Type of the stored values; floats are rounded to an integer type. By default the data's.

    Returns
    -------
    Path

    Raises
    ------
    FileError
        When the name has another suffix or the file cannot be written.
    GeometryError
        When data and grid differ in shape.
    ImageError
        When the data have no such axes, or do not fit the type.
    """
    return _write(path, cast(with_channels(data), dtype), grid, {})


def write_itk_labels(
    path: str | Path,
    labels: NDArray[Any],
    grid: Grid,
    names: Mapping[int, str] | None = None,
    colors: Mapping[int, Sequence[float]] | None = None,
) -> Path:
    """Write a mask as NRRD, MetaImage or a segmentation of 3D Slicer (``.seg.nrrd``).

    Parameters
    ----------
    path : str or Path
        Ends in ``.nrrd``, ``.seg.nrrd`` or ``.mha``.
    labels : (Z, Y, X) ndarray
        Integer values; ``.seg.nrrd`` needs them not negative.
    grid : Grid
        Where they lie.
    names : mapping of int to str, optional
        Names by label value: in the file for ``.seg.nrrd``, else in a JSON file beside it.
    colors : mapping of int to (red, green, blue), optional
        From 0 to 1, by label value; kept by ``.seg.nrrd`` only.

    Returns
    -------
    Path

    Raises
    ------
    LabelError
        When values are not integers, or negative ones in ``.seg.nrrd``.
    FileError, GeometryError
        As :func:`write_itk`.
    """
    array = np.asarray(labels)
    if array.ndim != 3:
        raise LabelError(f"A mask has three axes (z, y, x), not shape {array.shape}.")
    array = compact_labels(array)
    metadata: dict[str, str] = {}
    if str(path).lower().endswith(SEG_SUFFIX):
        if array.min() < 0:
            raise LabelError(
                f"{path}: .seg.nrrd holds no negative labels and the mask has "
                f"{int(array.min())}; write .nrrd or .nii.gz."
            )
        stored, _ = file_axes(array[None], grid)
        metadata = segment_metadata(stored[0], names or {}, colors or {})
        _write(path, array[None], grid, metadata)
        return Path(path)
    _write(path, array[None], grid, metadata)
    if names:
        write_label_names(path, names)
    return Path(path)


def _write(path: str | Path, data: NDArray[Any], grid: Grid, metadata: Mapping[str, str]) -> Path:
    """Write (C, Z, Y, X) data of a final type."""
    import SimpleITK as sitk

    path = Path(path)
    if not path.name.lower().endswith(WRITTEN):
        raise FileError(f"{path}: the name of an NRRD or MetaImage file ends in .nrrd or .mha.")
    array, affine = file_axes(data, grid)
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    stored = array.transpose(3, 2, 1, 0) if len(array) > 1 else array[0].transpose(2, 1, 0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored), isVector=len(array) > 1)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    for key, value in metadata.items():
        image.SetMetaData(key, value)
    with atomic_path(path) as temporary, no_itk_warnings():
        try:
            sitk.WriteImage(image, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise FileError(f"{path}: cannot be written (is the disk full?).") from error
        if temporary.name.lower().endswith(".nrrd") and not _is_complete(temporary, array.nbytes):
            raise FileError(f"{path}: was not written completely (is the disk full?).")
    return path


def _is_complete(path: Path, size: int) -> bool:
    """Tell whether an NRRD file holds so many bytes of voxels.

    Its writer, unlike that of MetaImage, says nothing when the disk is full.
    """
    with path.open("rb") as opened:
        header = list(iter(lambda: opened.readline().strip(), b""))  # up to the empty line
        data = gzip.GzipFile(fileobj=opened) if b"encoding: gzip" in header else opened
        try:
            return sum(map(len, iter(lambda: data.read(CHUNK), b""))) == size
        except (EOFError, OSError, zlib.error):
            return False
