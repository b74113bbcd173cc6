"""FreeSurfer volumes: ``.mgz`` and ``.mgh``."""

from __future__ import annotations

import gzip
import io
import math
import warnings
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.orientation import is_usable
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, GeometryError
from napari_medgs.io._content import unlike
from napari_medgs.io._limits import check_claim, check_file, check_memory, read_to_end
from napari_medgs.io.fourth_axis import chosen_entries, entry_names, fourth_axis

SUFFIXES = (".mgz", ".mgh", ".mgh.gz")
_HEADER_BYTES = 284
_TYPES = {0: "u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}


def is_mgh(path: str | Path) -> bool:
    """Tell by its name whether a path is meant to be a FreeSurfer volume."""
    return str(path).lower().endswith(SUFFIXES)


def read_mgh(
    path: str | Path,
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
    volume: int | None = None,
    every: bool = False,
) -> Volume:
    """Read a FreeSurfer volume; its frames become channels, or are volumes in time.

    Parameters
    ----------
    path : str or Path
        ``.mgz``, ``.mgh`` or ``.mgh.gz``.
    spacing : (z, y, x) in mm, optional
        For a file whose header says that its orientation is not valid; the axes are then taken
        as FreeSurfer does: to left, inferior and anterior.
    assume_identity : bool
        Take such a file as FreeSurfer does, with voxels of 1 mm, and warn.
    volume, every
        See :func:`~napari_medgs.io.nifti.reader.read_nifti`.

    Returns
    -------
    Volume
        In the file's dtype.

    Raises
    ------
    FileError
        When the file is missing, truncated, damaged or no FreeSurfer volume.
    ImageError
        When it has more than six frames and none is chosen.
    GeometryError
        When it does not say where it lies.
    MemoryEstimateError
        When it would not fit into memory.

    References
    ----------
    https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat
    """
    path = check_file(path, "a FreeSurfer volume")
    try:
        with _opened(path) as opened:
            start = opened.read(_HEADER_BYTES)
            shape, dtype = _layout(path, start)
            axis = fourth_axis(shape[3])
            taken = chosen_entries(path, axis, volume, every)
            claimed = math.prod(shape) * dtype.itemsize
            deflated = _is_compressed(path)
            stored = path.stat().st_size - (0 if deflated else _HEADER_BYTES)
            check_claim(path, claimed, stored, deflated=deflated)
            check_memory(path, 2 * claimed)
            values = opened.read(claimed)
            read_to_end(path, opened, claimed)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path}: truncated or damaged ({error}).") from error
    if len(values) < claimed:
        raise FileError(f"{path}: truncated: it holds {len(values)} of {claimed} bytes.")
    affine, assumed = _affine(path, start, shape, spacing, assume_identity)
    array = np.frombuffer(values, dtype).reshape(shape, order="F")
    array = array[..., taken].astype(dtype.newbyteorder("="))
    lower = path.name.lower()
    stem = path.name[: -max(len(s) for s in SUFFIXES if lower.endswith(s))]
    return Volume.from_axes(
        np.moveaxis(array, -1, 0),
        affine,
        channel_names=entry_names(stem, axis, taken),
        source={
            "kind": "freesurfer",
            "assumed": assumed,
            **(axis.to_source() if every else {}),
        },
    )


def _is_compressed(path: Path) -> bool:
    return path.name.lower().endswith((".mgz", ".gz"))


def _opened(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb") if _is_compressed(path) else path.open("rb"))


def _layout(path: Path, start: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the sizes (i, j, k, frames) and the type of the stored values."""
    if len(start) < _HEADER_BYTES or int.from_bytes(start[:4], "big") != 1:
        raise FileError(unlike(path, "a FreeSurfer volume"))
    _, *shape, kind = np.frombuffer(start[:24], ">i4").tolist()
    if min(shape) < 1:
        raise FileError(f"{path}: damaged header: its sizes are {shape}.")
    if kind not in _TYPES:
        raise FileError(f"{path}: values of FreeSurfer type {kind} cannot be read.")
    return tuple(shape), np.dtype(_TYPES[kind])


def _affine(
    path: Path,
    start: bytes,
    shape: tuple[int, ...],
    spacing: tuple[float, float, float] | None,
    assume_identity: bool,
) -> tuple[NDArray[np.float64], bool]:
    """Return the affine (i, j, k, 1) to RAS mm, and whether it had to be assumed."""
    from nibabel.freesurfer.mghformat import MGHHeader

    valid = int.from_bytes(start[28:30], "big", signed=True) > 0
    if valid:
        try:
            affine = np.asarray(MGHHeader.from_fileobj(io.BytesIO(start)).get_affine())
        except Exception as error:
            # nibabel raises many kinds of errors on damaged headers.
            raise FileError(f"{path}: its header is damaged.") from error
        if not is_usable(affine):
            raise FileError(f"{path}: damaged header: its axes or voxel sizes are unusable.")
        if spacing is not None:
            raise GeometryError(f"{path}: has its own geometry; do not give a spacing.")
        return affine.astype(np.float64), False
    if spacing is not None:
        sizes = np.array([spacing[2], spacing[1], spacing[0]])
    elif not assume_identity:
        raise GeometryError(
            f"{path}: its header says that its orientation is not valid, so its place is "
            "unknown. Give the spacing in mm, or allow an assumed identity orientation."
        )
    else:
        # FreeSurfer and nibabel read voxel sizes only where the orientation is valid, too.
        sizes = np.ones(3)
        warnings.warn(
            f"{path}: has no valid orientation and voxel size; LIA is assumed, and 1 mm.",
            stacklevel=4,
        )
    axes = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]]) * sizes
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = -axes @ (np.asarray(shape[:3]) / 2)
    return affine, True
