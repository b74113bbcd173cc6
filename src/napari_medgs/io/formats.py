"""Files whose format follows from their name: which are read and written, and by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import DTypeLike, NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, MedGSError
from napari_medgs.io.dicom.masks import STRUCTURES_SUFFIX, Codes, write_dicom_labels
from napari_medgs.io.dicom.masks import SUFFIX as _DICOM
from napari_medgs.io.folders import check_folder_of, link_target
from napari_medgs.io.freesurfer import SUFFIXES as _MGH
from napari_medgs.io.freesurfer import is_mgh, read_mgh
from napari_medgs.io.itk.reader import SUFFIXES as _ITK
from napari_medgs.io.itk.reader import is_itk_image, read_itk
from napari_medgs.io.itk.segments import is_segmentation
from napari_medgs.io.itk.writer import write_itk, write_itk_labels
from napari_medgs.io.label_names import (
    forget_label_names,
    sidecar_path,
    write_label_colors,
)
from napari_medgs.io.label_names import read_label_colors as read_sidecar_colors
from napari_medgs.io.label_names import read_label_names as read_sidecar_names
from napari_medgs.io.nifti.pair import SUFFIXES as _PAIR
from napari_medgs.io.nifti.pair import is_pair, read_pair
from napari_medgs.io.nifti.reader import is_nifti, read_nifti, write_nifti, write_nifti_labels
from napari_medgs.io.ome_zarr.opening import SUFFIXES as _ZARR
from napari_medgs.io.ome_zarr.opening import is_ome_zarr
from napari_medgs.io.ome_zarr.reader import read_ome_zarr_table
from napari_medgs.io.segmented import has_segments, segment_names
from napari_medgs.io.tiff_volume import is_tiff_volume, read_tiff_volume

READ_SUFFIXES = (".nii", ".nii.gz", *_ITK, *_MGH, *_PAIR)
"""Endings of the image files that say which format they are."""

WRITTEN_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
"""Endings of the image and mask files that are written; ``.seg.nrrd`` for masks only."""

MASK_SUFFIXES = (*WRITTEN_SUFFIXES, ".seg.nrrd", _DICOM, STRUCTURES_SUFFIX)
"""Endings of the mask files that are written: ``.dcm`` is a segmentation on a DICOM series, and
``.rtstruct.dcm`` contours on one."""

KINDS = (
    "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr, .seg.nrrd), MetaImage (.mha, .mhd), GIPL, "
    "FreeSurfer (.mgz, .mgh), a .hdr/.img pair, OME-Zarr (.zarr, .zarr.zip), a "
    "DICOM folder, a folder of numbered frames, a PNG, JPEG or TIFF image, or "
    "FILE.npz:SPLIT:INDEX of MedMNIST"
)
"""What can be read, for messages."""


def is_image_file(path: str | Path) -> bool:
    """Tell by its name whether a path is an image file of a known format.

    TIFF files count when they hold a volume; PNG and JPEG frames do not.
    """
    return str(path).lower().endswith(READ_SUFFIXES) or is_tiff_volume(path)


def is_written(path: str | Path) -> bool:
    """Tell by its name whether an image can be written to a path."""
    return str(path).lower().endswith(WRITTEN_SUFFIXES)


def image_stem(path: str | Path) -> str:
    """Return an image file's name without the ending of its format.

    Examples
    --------
    >>> from napari_medgs.io.formats import image_stem
    >>> image_stem("scan.v2.nii.gz"), image_stem("liver.seg.nrrd")
    ('scan.v2', 'liver.seg')
    """
    name = Path(path).name
    known = [
        s for s in (*READ_SUFFIXES, *_ZARR, ".ome.tif", ".ome.tiff") if name.lower().endswith(s)
    ]
    return name[: -max(map(len, known))] if known else Path(name).stem


def read_image_file(
    path: str | Path,
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
    volume: int | None = None,
    every: bool = False,
) -> Volume:
    """Read an image file whose name says its format.

    Parameters
    ----------
    path, spacing, assume_identity, volume
        See :func:`napari_medgs.io.read_volume`.
    every : bool
        Read all volumes of a fourth axis as channels; ``Grid.source`` then says that they are
        volumes.

    Returns
    -------
    Volume

    Raises
    ------
    FileError
        When the file is missing, damaged or of no such format.
    ImageError, GeometryError, MemoryEstimateError
        When it cannot be used.
    """
    for is_kind, read in (
        (is_nifti, read_nifti),
        (is_itk_image, read_itk),
        (is_mgh, read_mgh),
        (is_pair, read_pair),
    ):
        if is_kind(path):
            return read(
                path,
                spacing=spacing,
                assume_identity=assume_identity,
                volume=volume,
                every=every,
            )
    if is_tiff_volume(path):
        return read_tiff_volume(path, spacing=spacing, volume=volume, every=every)
    raise FileError(f"{path}: not an image that can be read; give {KINDS}.")


def write_image(
    path: str | Path, data: NDArray[Any], grid: Grid, dtype: DTypeLike | None = None
) -> Path:
    """Write an image in the format of the path's suffix.

    The axes are those of the source file where the grid came from one, else LPS.

    Parameters
    ----------
    path : str or Path
        Ends in ``.nii``, ``.nii.gz``, ``.nrrd`` or ``.mha``.
    data : (Z, Y, X) or (C, Z, Y, X) ndarray
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

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=12.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = mg.write_image(Path(folder) / "head.nii.gz", head.image, head.grid)
    ...     same = mg.read_volume(path).data[0]
    >>> bool((same == head.image).all())
    True
    """
    _check_written(path)
    if str(path).lower().endswith(".seg.nrrd"):
        raise FileError(f"{path}: .seg.nrrd holds masks; write images as .nrrd.")
    write = write_nifti if is_nifti(path) else write_itk
    return write(path, data, grid, dtype)


def is_dicom_output(path: str | Path) -> bool:
    """Tell by its name whether a mask is written as DICOM, for which its series is needed."""
    return str(path).lower().endswith(_DICOM)


def write_labels(
    path: str | Path,
    labels: NDArray[Any],
    grid: Grid,
    names: Mapping[int, str] | None = None,
    *,
    colors: Mapping[int, Sequence[float]] | None = None,
    codes: Mapping[int, Codes] | None = None,
    source: str | Path | None = None,
    series: str | None = None,
    volume: int | None = None,
) -> Path:
    """Write a mask in the format of the path's suffix, in the smallest integer type.

    Parameters
    ----------
    path : str or Path
        Ends in ``.nii``, ``.nii.gz``, ``.nrrd``, ``.seg.nrrd``, ``.mha``, ``.dcm`` (a DICOM
        segmentation) or ``.rtstruct.dcm`` (an RT Structure Set).
    labels : (Z, Y, X) ndarray
        Integer values.
    grid : Grid
        Where they lie.
    names : mapping of int to str, optional
        Names by label value: in the file for ``.seg.nrrd`` and DICOM, else in a JSON file beside
        it. Without names, those that an earlier mask left there are removed, with a warning.
    colors : mapping of int to (red, green, blue), optional
        From 0 to 1, by label value; kept by ``.seg.nrrd`` and DICOM.
    codes : mapping of int to (category, type), optional
        Coded concepts by label value, each (value, scheme, meaning) as
        ``("10200004", "SCT", "Liver")``, or None; kept by DICOM only.
    source : str or Path, optional
        The DICOM series of the image, on whose slices a DICOM mask lies; needed for one.
    series, volume : optional
        Which series and volume of ``source``; see :func:`napari_medgs.io.read_volume`.

    Returns
    -------
    Path

    Raises
    ------
    LabelError
        When values are not integers, or do not fit the format.
    FileError, GeometryError
        As :func:`write_image`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import napari_medgs as mg
    >>> head = mg.make_phantom(spacing=12.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = mg.write_labels(Path(folder) / "mask.nrrd", head.labels, head.grid)
    ...     same = mg.read_labels(path)[0]
    >>> bool((same == head.labels).all())
    True
    """
    if is_dicom_output(path):
        return write_dicom_labels(
            path, labels, grid, names,
            source=source, series=series, volume=volume, colors=colors, codes=codes,
        )  # fmt: skip
    _check_written(path, MASK_SUFFIXES)
    if names and not is_segmentation(path) and (beside := sidecar_path(path)).exists():
        check_folder_of(link_target(beside))  # before the mask is there without them
    if is_nifti(path):
        written = write_nifti_labels(path, labels, grid, names)
    else:
        written = write_itk_labels(path, labels, grid, names, colors)
    if not is_segmentation(path):
        if not names:
            forget_label_names(path)
        elif colors:
            write_label_colors(path, colors)
    return written


def read_label_names(path: str | Path) -> dict[int, str]:
    """Read the names of a mask's labels; empty where there are none.

    Parameters
    ----------
    path : str or Path
        A mask. ``.seg.nrrd`` and DICOM masks have names themselves; other masks have a JSON
        file beside them. A damaged JSON file is passed over with a warning.

    Returns
    -------
    dict of int to str
        Names by label value.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.io import read_label_names
    >>> labels = np.ones((2, 4, 4), np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mask = mg.write_labels(
    ...         folder + "/mask.nii.gz", labels, mg.Grid((2, 4, 4)), {1: "spleen"}
    ...     )
    ...     read_label_names(mask)
    {1: 'spleen'}
    """
    try:
        if has_segments(path):
            return segment_names(path)
        if is_ome_zarr(path):
            return read_ome_zarr_table(path)[0]
    except MedGSError:
        return {}
    return read_sidecar_names(path)


def read_label_colors(path: str | Path) -> dict[int, tuple[float, float, float]]:
    """Read the colors of a mask's labels; empty where there are none.

    Parameters
    ----------
    path : str or Path
        A mask. OME-Zarr has colors itself, other masks a JSON file beside them; those of
        ``.seg.nrrd`` and DICOM masks come with :func:`napari_medgs.io.segmented.read_segmented`.

    Returns
    -------
    dict of int to (red, green, blue)
        From 0 to 1, by label value.
    """
    try:
        if is_ome_zarr(path):
            return read_ome_zarr_table(path)[1]
    except MedGSError:
        return {}
    return {} if has_segments(path) else read_sidecar_colors(path)


def _check_written(path: str | Path, suffixes: Sequence[str] = WRITTEN_SUFFIXES) -> None:
    if not is_written(path):
        raise FileError(
            f"{path}: the name of an image or mask ends in {', '.join(suffixes[:-1])} or "
            f"{suffixes[-1]}."
        )
