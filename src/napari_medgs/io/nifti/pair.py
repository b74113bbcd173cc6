"""Pairs of ``.hdr`` and ``.img``: NIfTI headers with their image beside them, and Analyze 7.5."""

from __future__ import annotations

import glob
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, GeometryError, ImageError
from napari_medgs.io._limits import check_claim, check_file, check_memory
from napari_medgs.io._reasons import reason
from napari_medgs.io.dicom.file import is_dicom_file
from napari_medgs.io.fourth_axis import chosen_entries, entry_names, fourth_axis
from napari_medgs.io.nifti.geometry import forms_apart, header_affine
from napari_medgs.io.nifti.header import header_axis, header_record, plain_shape

SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")


def is_pair(path: str | Path) -> bool:
    """Tell by its name whether a path is one of a ``.hdr``/``.img`` pair, and no DICOM file."""
    return str(path).lower().endswith(SUFFIXES) and not is_dicom_file(Path(path))


def read_pair(
    path: str | Path,
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
    volume: int | None = None,
    every: bool = False,
) -> Volume:
    """Read an image that is stored as ``.hdr`` and ``.img``.

    Parameters
    ----------
    path : str or Path
        Either file; the other must lie beside it.
    spacing : (z, y, x) in mm, optional
        For a pair without a usable affine; see
        :func:`~napari_medgs.io.nifti.reader.read_nifti`.
    assume_identity : bool
        Take such a pair as its format's default, with a warning: RAS for NIfTI, LAS with the
        origin in the middle for Analyze 7.5, which has no orientation.
    volume, every
        See :func:`~napari_medgs.io.nifti.reader.read_nifti`.

    Returns
    -------
    Volume
        In the file's dtype, or float32 where the header rescales its values.

    Raises
    ------
    FileError
        When one of the files is missing, truncated or damaged.
    ImageError
        When it holds colors, complex numbers or other than 2 to 4 axes.
    GeometryError
        When it has no usable affine.
    MemoryEstimateError
        When it would not fit into memory.
    """
    import nibabel as nib

    path = check_file(path, "an image")
    base = path.name[: -max(len(s) for s in SUFFIXES if path.name.lower().endswith(s))]
    stored, deflated = _stored(path, base)
    try:
        with _quiet_nibabel():
            # Not mapped: a file that is written over meanwhile would end the process (SIGBUS).
            image: Any = nib.load(path, mmap=False)
    except Exception as error:
        # nibabel raises many kinds of errors on damaged headers.
        raise FileError(f"{path}: its header is damaged ({reason(error)}).") from error
    header = image.header
    shape = tuple(int(n) for n in header.get_data_shape())
    plain = plain_shape(shape)
    dtype = header.get_data_dtype()
    if plain is None or min(shape) < 1:
        raise ImageError(f"{path}: the image has shape {shape}; 2, 3 or 4 axes are read.")
    shape = plain
    if dtype.kind not in "iuf":
        what = "complex numbers" if dtype.kind == "c" else "colors"
        raise ImageError(f"{path}: the image holds {what}; plain gray values are needed.")
    check_claim(path, math.prod(shape) * dtype.itemsize, stored, deflated=deflated)
    nifti = isinstance(image, nib.Nifti1Pair)
    axis = header_axis(header, shape) if nifti else fourth_axis(math.prod(shape[3:]))
    taken = chosen_entries(path, axis, volume, every)
    check_memory(path, 3 * math.prod(shape) * max(4, dtype.itemsize))
    affine, assumed = _affine(path, image, shape, spacing, assume_identity)
    try:
        values = np.asarray(image.dataobj).reshape(shape)
    except Exception as error:
        raise FileError(f"{path}: truncated or damaged ({reason(error)}).") from error
    if values.dtype == np.float64 and dtype != np.float64:  # rescaled
        values = values.astype(np.float32)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    data = np.moveaxis(values.reshape((*(*shape[:3], 1)[:3], -1), order="F"), -1, 0)[taken]
    names = entry_names(base, axis, taken)
    source: dict[str, Any] = {"kind": "nifti", "assumed": assumed}
    if every:
        source |= axis.to_source()
    if nifti:
        source["header"] = header_record(header, shape)
        apart = forms_apart(header, shape)
        if apart is not None:
            source["qform_apart_mm"] = round(apart.mm, 3)
    return Volume.from_axes(data, affine, channel_names=names, source=source)


@contextmanager
def _quiet_nibabel() -> Iterator[None]:
    """Keep off the terminal what nibabel logs about headers; what matters is checked here."""
    from nibabel.imageglobals import logger

    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _stored(path: Path, base: str) -> tuple[int, bool]:
    """Return the size of the pair's image file, and whether it is compressed."""
    found: dict[str, Path] = {}
    for file in path.parent.glob(f"{glob.escape(base)}.*"):
        suffix = file.name[len(base) :].lower()
        if suffix in SUFFIXES:
            found[suffix[:4]] = file
    if len(found) < 2:
        raise FileError(
            f"{path}: the other file of the pair (.hdr and .img) is missing; keep both in one "
            "folder."
        )
    image = found[".img"]
    return image.stat().st_size, image.name.lower().endswith(".gz")


def _affine(
    path: Path,
    image: Any,
    shape: tuple[int, ...],
    spacing: tuple[float, float, float] | None,
    assume_identity: bool,
) -> tuple[NDArray[np.float64], bool]:
    """Return the affine (i, j, k, 1) to RAS mm, and whether it had to be assumed."""
    import nibabel as nib

    if isinstance(image, nib.Nifti1Pair):
        return header_affine(
            path, image.header, shape, spacing=spacing, assume_identity=assume_identity
        )
    if path.with_name(path.name.partition(".")[0] + ".mat").is_file():
        return np.asarray(image.affine, dtype=np.float64), False  # SPM keeps the affine there
    if spacing is not None:
        z, y, x = spacing
        return np.diag([x, y, z, 1.0]), True
    if not assume_identity:
        raise GeometryError(
            f"{path}: an Analyze 7.5 file, which does not say where it lies. Give the spacing in "
            "mm, or allow an assumed identity orientation."
        )
    affine = np.asarray(image.header.get_base_affine(), dtype=np.float64)
    warnings.warn(f"{path}: an Analyze 7.5 file; orientation LAS is assumed.", stacklevel=4)
    return affine, True
