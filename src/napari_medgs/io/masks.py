"""Reading masks of every supported kind as labels on a canonical grid."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.resampling import resample_labels
from napari_medgs.data.volume import check_same_grid
from napari_medgs.errors import GeometryError, LabelError, ParameterError
from napari_medgs.io._axes import is_part_of, place_on_grid
from napari_medgs.io.dicom.masks import mask_in
from napari_medgs.io.dicom.series import is_dicom_folder
from napari_medgs.io.formats import is_image_file
from napari_medgs.io.image_stack import find_frames, read_frames
from napari_medgs.io.labels import as_labels
from napari_medgs.io.nifti.header import has_channels
from napari_medgs.io.nifti.reader import is_nifti, read_nifti_labels
from napari_medgs.io.ome_zarr.opening import is_ome_zarr
from napari_medgs.io.ome_zarr.reader import read_ome_zarr_labels
from napari_medgs.io.one_hot import join_one_hot
from napari_medgs.io.reading import checked_spacing, read_all_volumes
from napari_medgs.io.segmented import has_segments, read_segmented
from napari_medgs.io.tiff_volume import is_tiff_volume


def read_labels(
    path: str | Path,
    like: Grid | None = None,
    *,
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
    segments: Sequence[str] = (),
    volume: int | None = None,
    resample: bool = False,
    outside: int = 0,
) -> tuple[NDArray[Any], Grid]:
    """Read a mask as integers on the canonical grid.

    Parameters
    ----------
    path : str or Path
        As :func:`read_volume`; gray values or palette indices of frames are labels. Several
        channels of 0 and 1, one per class, are joined where they do not overlap.
    like : Grid, optional
        The grid that the mask must lie on. Frames take their spacing from it, and so does a
        mask without an affine whose image had none either. A mask of a smaller or larger extent
        with the same voxels is padded and cropped onto it, and contours are filled on it.
    spacing, assume_identity
        See :func:`read_volume`.
    segments : sequence of str
        Names (or numbers) of the segments to read of a ``.seg.nrrd`` file, a DICOM segmentation
        or structure set; all by default.
    volume : int, optional
        Which entry of a fourth axis is the mask, from 1.
    resample : bool
        Bring a mask of another grid onto ``like`` instead of refusing it: every voxel gets the
        label of the nearest one, see :func:`~napari_medgs.data.resampling.resample_labels`.
    outside : int
        The label of voxels that the mask does not reach.

    Returns
    -------
    labels : (Z, Y, X) ndarray of integers
    grid : Grid
        ``like`` where that was given.

    Raises
    ------
    LabelError
        When values are not integers, or channels or segments overlap.
    GeometryError
        When the mask lies on another grid than ``like``, or cannot be resampled.
    FileError, ImageError, MemoryEstimateError
        As :func:`read_volume`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> grid = mg.Volume.from_array(np.zeros((2, 4, 6), np.float32)).grid
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "mask.nii.gz"
    ...     path = mg.write_labels(file, np.full((2, 4, 6), 3), grid, {3: "liver"})
    ...     labels, _ = mg.read_labels(file, like=grid)
    >>> labels.dtype, int(labels.max())
    (dtype('uint8'), 3)
    """
    place = Path(path)
    if place.is_dir() and is_dicom_folder(place):
        path = place = mask_in(place)
    spacing = checked_spacing(spacing)
    is_file = not place.is_dir() and is_image_file(path)
    unplaced = spacing is None and not assume_identity
    if (
        like is not None
        and unplaced
        and (_is_stack(place) or (is_file and like.source.get("assumed")) or is_tiff_volume(path))
    ):
        spacing = like.spacing
    options: dict[str, Any] = {"spacing": spacing, "assume_identity": assume_identity}
    segmented = has_segments(place)
    segments = tuple(segments)
    if segments and not segmented:
        raise ParameterError(
            f"{path}: only .seg.nrrd files and DICOM masks have segments to choose from."
        )
    target = None if resample else like
    if segmented:
        labels, grid, _ = read_segmented(path, target, segments=segments, **options)
    elif is_file and is_nifti(path) and (volume is not None or not has_channels(path)):
        labels, grid = read_nifti_labels(path, volume=volume, **options)
    elif is_ome_zarr(place):
        labels, grid = read_ome_zarr_labels(place, target, spacing=spacing, volume=volume)
    elif _is_stack(place):
        frames = read_frames(place, spacing=spacing, indexed=True)
        if frames.channels > 1:
            raise LabelError(f"{path}: a mask has one channel; these frames are colored.")
        labels, grid = frames.data[0], frames.grid
    else:
        found = read_all_volumes(path, volume=volume, **options)
        grid, name = found.grid, f"{path}: the mask"
        labels = (
            join_one_hot(found.data, name)
            if found.channels > 1
            else as_labels(found.data[0], name)
        )
    if like is None:
        return labels, grid
    if grid.shape == like.shape and grid.source.get("kind") in ("frames", "tiff"):
        # Frames do not say where they lie; beside their image they lie where that does.
        return labels, like
    if resample:
        return resample_labels(labels, grid, like, outside=outside, name=f"{path}: the mask"), like
    if is_part_of(grid, like):
        warnings.warn(
            f"{path}: the mask has another extent than the image, with the same voxels: it is "
            "padded or cropped in place.",
            stacklevel=2,
        )
        return place_on_grid(labels, grid, like, str(path), outside), like
    try:
        check_same_grid(like, grid, "the image", Path(path).name)
    except GeometryError as error:
        raise GeometryError(f"{error} For a mask, resample=True (--resample) does that.") from None
    return labels, like


def _is_stack(place: Path) -> bool:
    """Tell whether a path is a folder of frames, or one frame."""
    if place.is_dir():
        return not is_dicom_folder(place) and not is_ome_zarr(place)
    return bool(find_frames(place)) and not is_image_file(place)
