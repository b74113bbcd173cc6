"""Class probabilities, as networks write them: one channel per class on the grid of an image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs.data.grid import Grid
from napari_medgs.data.resampling import resampled_volume
from napari_medgs.data.volume import CLOSE, Volume, check_same_grid
from napari_medgs.errors import GeometryError
from napari_medgs.io.formats import is_image_file
from napari_medgs.io.one_hot import is_one_hot
from napari_medgs.io.reading import read_all_volumes
from napari_medgs.io.segmented import has_segments


def read_prior(
    path: str | Path, like: Grid, *, resample: bool = False, **options: Any
) -> Floats | None:
    """Read class probabilities, or tell that a file holds a mask.

    Parameters
    ----------
    path : str or Path
    like : Grid
        Of the image.
    resample : bool
        Interpolate probabilities of another grid linearly; voxels that they do not reach are
        background. They are refused otherwise.
    **options
        ``spacing`` and ``assume_identity`` of :func:`~napari_medgs.io.read_volume`.

    Returns
    -------
    (K, Z, Y, X) ndarray of float32, or None
        None for a file with one channel, or with channels of 0 and 1 only: a mask.

    Raises
    ------
    FileError, ImageError
        When the file cannot be read.
    GeometryError
        When the probabilities have another grid than the image, or cannot be resampled.

    Warns
    -----
    UserWarning
        When voxels of the image are not reached.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> volume = mg.Volume.from_array(np.zeros((2, 4, 6), np.float32))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = folder + "/probabilities.nii.gz"
    ...     path = mg.write_image(file, np.full((3, 2, 4, 6), 1 / 3, np.float32), volume.grid)
    ...     prior = read_prior(file, volume.grid)
    >>> prior.shape
    (3, 2, 4, 6)
    """
    place = Path(path)
    if place.is_dir() or not is_image_file(path) or has_segments(place):
        return None
    found = read_all_volumes(path, **options)
    if found.channels < 2 or is_one_hot(found.data):
        return None
    if resample and not like.matches(found.grid, CLOSE):
        found = _resampled(found, like, place.name)
    try:
        check_same_grid(like, found.grid, "the image", place.name)
    except GeometryError as error:
        raise GeometryError(f"{error} resample=True (--resample) does that.") from None
    return np.ascontiguousarray(found.data, np.float32)


def _resampled(probabilities: Volume, like: Grid, name: str) -> Volume:
    """Return probabilities on another grid; what they do not reach is background."""
    moved, _ = resampled_volume(probabilities, like, outside=0, name=name, like_name="the image")
    missed = ~moved.data.any(axis=0)
    if missed.any():
        moved.data[0][missed] = 1
        warnings.warn(
            f"{name} does not reach {np.count_nonzero(missed):,} voxels "
            f"({100 * missed.mean():.2g} %) of the image; they are taken as background.",
            stacklevel=3,
        )
    return moved
