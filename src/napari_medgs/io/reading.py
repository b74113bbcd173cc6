"""Reading images of every supported kind as canonical volumes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs.data.intensities import parse_fill
from napari_medgs.data.orientation import spacing_affine
from napari_medgs.data.resampling import resample_volume
from napari_medgs.data.volume import CLOSE, Volume, stack_contrasts
from napari_medgs.errors import FileError, GeometryError, ParameterError
from napari_medgs.io._content import known_content
from napari_medgs.io.dicom.file import is_dicom_file
from napari_medgs.io.dicom.series import is_dicom_folder, is_dicom_tree, read_dicom
from napari_medgs.io.folders import missing, refuse_stream
from napari_medgs.io.formats import KINDS, is_image_file, read_image_file
from napari_medgs.io.fourth_axis import check_volume
from napari_medgs.io.image_stack import find_frames, read_frames
from napari_medgs.io.medmnist.reader import is_spec, read_medmnist
from napari_medgs.io.ome_zarr.opening import is_ome_zarr
from napari_medgs.io.ome_zarr.reader import read_ome_zarr


def read_volume(
    path: str | Path,
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
    series: str | None = None,
    volume: int | None = None,
    fill_nan: float | str | None = None,
) -> Volume:
    """Read an image of any supported kind as a canonical volume.

    Parameters
    ----------
    path : str or Path
        A NIfTI, NRRD, MetaImage, GIPL or FreeSurfer file, a ``.hdr``/``.img`` pair, a DICOM
        folder (or file), a TIFF of several pages or OME-TIFF, a folder of numbered frames, one
        such frame, OME-Zarr (a folder or zip file), or ``FILE.npz:SPLIT:INDEX`` of MedMNIST.
    spacing : (z, y, x) in mm, optional
        Needed for frames; for other files only where they carry no geometry.
    assume_identity : bool
        Accept a file without a usable affine, with a warning.
    series : str, optional
        Which series of a DICOM folder or study: its UID or its number in the list of
        :func:`~napari_medgs.io.dicom.series.list_series`; ``"2.1"`` is the first volume of the
        second series.
    volume : int, optional
        Which volume to read, from 1, of a file with a fourth axis. Needed where that holds
        volumes in time: where the file says so, or has more than six. Up to six are contrasts
        otherwise, and all are read.
    fill_nan : float or "background", optional
        What stands for NaN; see :meth:`napari_medgs.Volume.fill_nan`. By default the values are
        those of the file.

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
    ParameterError
        When there is no such volume.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "scan.nii.gz"
    ...     source = mg.Volume.from_array(np.ones((2, 4, 6), np.float32), (3.0, 1.0, 1.0))
    ...     path = mg.write_image(file, source.data, source.grid)
    ...     image = mg.read_volume(file)
    >>> image.shape, image.channels, image.spacing
    ((2, 4, 6), 1, (3.0, 1.0, 1.0))
    """
    spacing = checked_spacing(spacing)
    value = None if fill_nan is None else parse_fill(fill_nan)
    check_volume(volume)
    _check_series(os.fspath(path), series)
    found = _read_volume(os.fspath(path), spacing, assume_identity, series, volume)
    return found if fill_nan is None else found.fill_nan(value)


def read_all_volumes(path: str | Path, **options: Any) -> Volume:
    """Read an image with every volume of its fourth axis, contrasts or not, as a channel.

    Parameters
    ----------
    path : str or Path
    **options
        spacing, assume_identity, series and volume of :func:`read_volume`.

    Returns
    -------
    Volume
        ``grid.source["volumes"]`` is there where the channels are volumes in time.

    Raises
    ------
    MedGSError
        As :func:`read_volume`.
    """
    place = Path(path)
    _check_series(os.fspath(path), options.get("series"))
    if is_ome_zarr(place) and options.get("volume") is None:
        return read_ome_zarr(place, spacing=checked_spacing(options.get("spacing")), every=True)
    if options.get("volume") is not None or place.is_dir() or not is_image_file(path):
        return read_volume(path, **options)
    return read_image_file(
        path,
        spacing=checked_spacing(options.get("spacing")),
        assume_identity=bool(options.get("assume_identity")),
        every=True,
    )


def _read_volume(
    path: str,
    spacing: tuple[float, float, float] | None,
    assume_identity: bool,
    series: str | None,
    volume: int | None,
) -> Volume:
    """Read an image as it is stored."""
    if is_spec(path):
        _only_volume(path, volume)
        return read_medmnist(path, spacing=spacing)
    place = Path(path)
    if is_ome_zarr(place):
        return read_ome_zarr(place, spacing=spacing, volume=volume)
    if not place.exists():
        raise missing(path, "file or folder")
    refuse_stream(place)
    if not place.is_dir() and is_image_file(path):
        return read_image_file(
            path, spacing=spacing, assume_identity=assume_identity, volume=volume
        )
    if place.is_dir():
        if is_dicom_folder(place):
            return read_dicom(place, series=series, volume=volume, spacing=spacing)
        if find_frames(place):
            _only_volume(path, volume)
            return read_frames(place, spacing=spacing)
        if is_dicom_tree(place):
            return read_dicom(place, series=series, volume=volume, spacing=spacing)
        raise FileError(
            f"{path}: the folder holds neither DICOM slices nor PNG, JPEG or TIFF frames."
        )
    if is_dicom_file(place):
        return read_dicom(place, series=series, volume=volume, spacing=spacing)
    if find_frames(place):
        _only_volume(path, volume)
        return read_frames(place, spacing=spacing)
    kind = known_content(path)
    if kind is not None and "NIfTI" in kind:
        raise FileError(f"{path}: holds {kind} under another name; rename it.")
    what = "not an image that can be read" if kind is None else f"{kind}, which cannot be read"
    raise FileError(f"{path}: {what}; give {KINDS}.")


def _check_series(path: str, series: str | None) -> None:
    """Refuse a choice of series where there are none."""
    if series is not None and not _has_series(path):
        raise ParameterError(f"{path}: is no DICOM series; leave out the choice of one.")


def _has_series(path: str) -> bool:
    """Tell whether a path is one that DICOM series are chosen of; True where nothing is there."""
    place = Path(path)
    if not place.exists():
        return not is_spec(path)
    if place.is_dir():
        return not is_ome_zarr(place) and (is_dicom_folder(place) or is_dicom_tree(place))
    return not is_image_file(path) and is_dicom_file(place)


def _only_volume(path: str, volume: int | None) -> None:
    """Refuse a choice of volumes where there is one."""
    if volume not in (None, 1):
        raise ParameterError(f"{path}: has one volume; there is no volume {volume}.")


def read_volumes(
    paths: Sequence[str | Path],
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
    series: str | None = None,
    volume: int | None = None,
    fill_nan: float | str | None = None,
    resample: bool = False,
) -> Volume:
    """Read several contrasts as one volume on the grid of the first.

    Parameters
    ----------
    paths : sequence of str or Path
        One file or folder for each contrast.
    spacing, assume_identity, series, volume, fill_nan
        As in :func:`read_volume`, for all of them.
    resample : bool
        Bring contrasts of other grids onto that of the first instead of refusing them, linearly,
        see :func:`~napari_medgs.data.resampling.resample_volume`. What they do not reach is NaN,
        or what that is filled with. Registration is not done: the files must say where their
        images lie in one patient.

    Returns
    -------
    Volume
        Channels in the order of the paths.

    Raises
    ------
    GeometryError
        When their grids differ, or cannot be resampled.
    ParameterError
        When no path is given.
    MedGSError
        As :func:`read_volume`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> from napari_medgs.io import read_volumes, write_image
    >>> image = np.random.default_rng(0).random((4, 5, 6), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     names = [folder + "/t1.nii.gz", folder + "/t2.nii.gz"]
    ...     files = [write_image(name, image, mg.Grid(image.shape)) for name in names]
    ...     read_volumes(files).data.shape
    (2, 4, 5, 6)
    """
    paths = list(paths)
    if not paths:
        raise ParameterError("No image was given.")
    among = [p for p in paths if series is not None and _has_series(os.fspath(p))] or paths
    volumes = [
        read_volume(
            p,
            spacing=spacing,
            assume_identity=assume_identity,
            series=series if p in among else None,
            volume=volume,
            fill_nan=fill_nan,
        )
        for p in paths
    ]
    first = volumes[0]
    if resample:
        outside = None if fill_nan is None else parse_fill(fill_nan)
        for k, other in enumerate(volumes):
            if not first.grid.matches(other.grid, CLOSE):
                volumes[k] = resample_volume(
                    other,
                    first.grid,
                    outside=outside,
                    name=f"'{other.channel_names[0]}'",
                    like_name=f"'{first.channel_names[0]}'",
                )
    try:
        return stack_contrasts(volumes)
    except GeometryError as error:
        raise GeometryError(f"{error} resample=True (--resample) does that.") from None


def checked_spacing(spacing: Sequence[float] | None) -> tuple[float, float, float] | None:
    """Check a spacing before any file is opened."""
    if spacing is None:
        return None
    spacing_affine(spacing)
    z, y, x = np.asarray(spacing, dtype=np.float64).tolist()
    return (z, y, x)
