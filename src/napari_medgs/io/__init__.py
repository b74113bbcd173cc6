"""Reading images and masks of every supported kind, writing them back as they came."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume, check_same_grid, stack_contrasts
from napari_medgs.errors import FileError, LabelError, ParameterError
from napari_medgs.io._atomic import atomic_path
from napari_medgs.io.dicom.file import is_dicom_file
from napari_medgs.io.dicom.series import is_dicom_folder, list_series, read_dicom
from napari_medgs.io.image_stack import find_frames, read_frames, write_frames
from napari_medgs.io.labels import as_labels, compact_labels, read_label_names, write_label_names
from napari_medgs.io.medmnist.reader import is_spec, read_medmnist
from napari_medgs.io.nifti.reader import (
    is_nifti,
    read_nifti,
    read_nifti_labels,
    write_nifti,
    write_nifti_labels,
)

__all__ = [
    "as_labels",
    "atomic_path",
    "compact_labels",
    "list_series",
    "read_label_names",
    "read_labels",
    "read_volume",
    "read_volumes",
    "write_frames",
    "write_image",
    "write_label_names",
    "write_labels",
]

write_image = write_nifti
write_labels = write_nifti_labels

_KINDS = (
    "a NIfTI file (.nii, .nii.gz), a DICOM folder, a folder of numbered frames, one PNG, JPEG or "
    "TIFF image, or "
    "FILE.npz:SPLIT:INDEX of MedMNIST"
)


def read_volume(
    path: str | Path,
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
    series: str | None = None,
) -> Volume:
    """Read an image of any supported kind as a canonical volume.

    Parameters
    ----------
    path : str or Path
        A NIfTI file, a DICOM folder (or file), a folder of numbered frames, one such frame, or
        ``FILE.npz:SPLIT:INDEX`` of MedMNIST.
    spacing : (z, y, x) in mm, optional
        Needed for frames; for other files only where they carry no geometry.
    assume_identity : bool
        Accept a NIfTI file without a usable affine, with a warning.
    series : str, optional
        Which series of a DICOM folder: its UID or its number in the list of
        :func:`~napari_medgs.io.dicom.series.list_series`.

    Returns
    -------
    Volume
        (C, Z, Y, X) data with their grid.

    Raises
    ------
    FileError
        When the file is missing, damaged or of no supported kind.
    ImageError, GeometryError, MemoryEstimateError
        When it cannot be used; the message says why.
    """
    path = os.fspath(path)
    spacing = _spacing(spacing)
    if is_spec(path):
        return read_medmnist(path, spacing=spacing)
    place = Path(path)
    if not place.exists():
        raise FileError(f"{path}: no such file or folder.")
    if is_nifti(path) and not place.is_dir():
        return read_nifti(path, spacing=spacing, assume_identity=assume_identity)
    if place.is_dir():
        if is_dicom_folder(place):
            return read_dicom(place, series=series, spacing=spacing)
        if find_frames(place):
            return read_frames(place, spacing=spacing)
        raise FileError(
            f"{path}: the folder holds neither DICOM slices nor PNG, JPEG or TIFF frames."
        )
    if is_dicom_file(place):
        return read_dicom(place, series=series, spacing=spacing)
    if find_frames(place):
        return read_frames(place, spacing=spacing)
    raise FileError(f"{path}: not an image that can be read; give {_KINDS}.")


def read_volumes(
    paths: Sequence[str | Path],
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
    series: str | None = None,
) -> Volume:
    """Read several contrasts of one grid as one volume; see :func:`read_volume`.

    Raises
    ------
    GeometryError
        When their grids differ.
    ParameterError
        When no path is given.
    """
    if not paths:
        raise ParameterError("No image was given.")
    return stack_contrasts(
        [
            read_volume(p, spacing=spacing, assume_identity=assume_identity, series=series)
            for p in paths
        ]
    )


def read_labels(
    path: str | Path,
    like: Grid | None = None,
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
) -> tuple[NDArray[Any], Grid]:
    """Read a mask as integers on the canonical grid.

    Parameters
    ----------
    path : str or Path
        A NIfTI file, or a folder of frames whose grey values are labels.
    like : Grid, optional
        The grid that the mask must lie on. Frames take their spacing from it, and so does a
        NIfTI mask without an affine whose image had none either.
    spacing, assume_identity
        See :func:`read_volume`.

    Returns
    -------
    labels : (Z, Y, X) ndarray of integers
    grid : Grid
        ``like`` where that was given.

    Raises
    ------
    LabelError
        When values are not integers, or there are several channels.
    GeometryError
        When the mask lies on another grid than ``like``.
    FileError, ImageError, MemoryEstimateError
        As :func:`read_volume`.
    """
    place = Path(path)
    spacing = _spacing(spacing)
    from_like = like is not None and spacing is None and not assume_identity
    if is_nifti(path) and not place.is_dir():
        if from_like and like is not None and like.source.get("assumed"):
            spacing = like.spacing
        labels, grid = read_nifti_labels(path, spacing=spacing, assume_identity=assume_identity)
    elif place.is_dir() and not is_dicom_folder(place):
        if from_like and like is not None:
            spacing = like.spacing
        volume = read_frames(place, spacing=spacing, indexed=True)
        if volume.channels > 1:
            raise LabelError(f"{path}: a mask has one channel; these frames are coloured.")
        labels, grid = volume.data[0], volume.grid
    else:
        volume = read_volume(path, spacing=spacing, assume_identity=assume_identity)
        if volume.channels > 1:
            raise LabelError(f"{path}: a mask has one channel; this has {volume.channels}.")
        labels, grid = as_labels(volume.data[0], f"{path}: the mask"), volume.grid
    if like is None:
        return labels, grid
    if not is_nifti(path) and grid.shape == like.shape and grid.source.get("kind") == "frames":
        # Frames do not say where they lie; beside their image they lie where that does.
        return labels, like
    check_same_grid(like, grid, "the image", Path(path).name)
    return labels, like


def _spacing(spacing: Sequence[float] | None) -> tuple[float, float, float] | None:
    """Check a spacing before any file is opened."""
    from napari_medgs.data.orientation import spacing_affine

    if spacing is None:
        return None
    spacing_affine(spacing)
    z, y, x = np.asarray(spacing, dtype=np.float64).tolist()
    return (z, y, x)
