"""Label images and images of one grid on another, by the nearest voxel and linearly."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.progress import StopCallback, never_stop
from napari_medgs.data.grid import Grid
from napari_medgs.data.intensities import finite_volume
from napari_medgs.data.orientation import is_orientation_known
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, GeometryError

_TIE = 1e-6  # voxels: halfway between two voxels the upper one counts, whatever is rounded where
_PIECE = 2**21  # voxels that are interpolated between two questions whether to stop


def resample_labels(
    labels: NDArray[Any], grid: Grid, like: Grid, *, outside: int = 0, name: str = "The mask"
) -> NDArray[Any]:
    """Return labels on another grid: every voxel gets the label of the nearest voxel.

    Grids are compared in RAS millimeters, so that axis order, direction, units and voxel sizes of
    the files do not matter.

    Parameters
    ----------
    labels : (Z, Y, X) ndarray of integers
    grid : Grid
        Where the labels lie.
    like : Grid
        Where they should lie.
    outside : int
        The value of voxels beyond the labels' grid, half a voxel past its outermost centers.
    name : str
        What to call the labels in messages.

    Returns
    -------
    (Z, Y, X) ndarray of integers
        On ``like``; ``labels`` itself where the grids match.

    Raises
    ------
    GeometryError
        When shapes differ, one of the grids does not state where it lies, or the two do not
        overlap.

    Warns
    -----
    UserWarning
        When labels are lost, as they lie outside or are smaller than the new voxels.

    Notes
    -----
    The same voxels as SimpleITK's ``Resample`` with ``sitkNearestNeighbor``.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs import Grid
    >>> from napari_medgs.data.resampling import resample_labels
    >>> coarse = Grid((1, 2, 2)).with_spacing((1.0, 1.0, 1.0))
    >>> fine = coarse.with_spacing((1.0, 0.5, 0.5))
    >>> resample_labels(np.array([[[1, 2], [3, 0]]]), coarse, fine)[0].tolist()
    [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 0, 0], [3, 3, 0, 0]]
    """
    from scipy.ndimage import affine_transform

    labels = np.asarray(labels)
    if labels.shape != grid.shape:
        raise GeometryError(f"{name} has shape {labels.shape}, its grid {grid.shape}.")
    if grid.matches(like):
        return labels
    _check_placed(
        (grid, name),
        (like, "The image"),
        f"make {name[0].lower() + name[1:]} on the image's own voxels.",
    )
    to_labels = np.linalg.inv(grid.affine) @ like.affine
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in like.shape])).reshape(3, -1).T
    reached = corners @ to_labels[:3, :3].T + to_labels[:3, 3]
    apart = (reached.max(axis=0) <= -0.5) | (reached.min(axis=0) >= np.asarray(grid.shape) - 0.5)
    if apart.any():
        raise GeometryError(
            f"{name} lies outside the image: they do not overlap anywhere in the patient. Is it "
            "the mask of another image?"
        )
    present = _values(labels)
    source, values = labels_with(labels, outside), None
    if labels.dtype.itemsize > 4:  # float64, in which scipy counts, does not hold all of them
        values = np.unique([*present.tolist(), outside])
        source = np.searchsorted(values, labels).astype(np.min_scalar_type(len(values)))
    moved = affine_transform(
        source,
        to_labels[:3, :3],
        to_labels[:3, 3] + _TIE,
        like.shape,
        output=source.dtype,
        order=0,
        mode="grid-constant",
        cval=outside if values is None else int(np.searchsorted(values, outside)),
        prefilter=False,
    )
    if values is not None:
        moved = values.astype(labels_with(labels[:0], outside).dtype)[moved]
    lost = np.setdiff1d(present, [*_values(moved).tolist(), 0, outside]).tolist()
    if lost:
        shown = ", ".join(map(str, lost[:10])) + (" ..." if len(lost) > 10 else "")
        warnings.warn(
            f"{name}: of label {shown} nothing is left on the image's voxels: it lies outside "
            "the image, or is smaller than a voxel.",
            stacklevel=2,
        )
    kept: NDArray[Any] = moved
    return kept


def resample_volume(
    volume: Volume,
    like: Grid,
    *,
    outside: float | None = None,
    name: str = "The second image",
    like_name: str = "the first",
) -> Volume:
    """Return an image on another grid, linearly interpolated.

    Parameters
    ----------
    volume : Volume
    like : Grid
        Where it should lie.
    outside : float, optional
        The intensity of voxels that the image does not reach: those farther than half a voxel
        from its outermost centers. By default they have no value, NaN, and so have those that
        are interpolated from NaN; otherwise NaN in the image counts as background, see
        :meth:`~napari_medgs.Volume.fill_nan`.
    name, like_name : str
        What to call the image and the owner of ``like`` in messages.

    Returns
    -------
    Volume
        On ``like``, of single precision (double, where the image is); ``volume`` itself where
        the grids match.

    Raises
    ------
    GeometryError
        When one of the grids does not state where it lies, or the two do not overlap.
    ImageError
        When the image is complex, or nothing in it is finite.

    Warns
    -----
    UserWarning
        When voxels are not reached.

    Notes
    -----
    The same intensities as SimpleITK's ``Resample`` with ``sitkLinear``. Nothing is smoothed
    before: of an image that is much finer than ``like`` most voxels have no say.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs import Grid, Volume
    >>> from napari_medgs.data.resampling import resample_volume
    >>> coarse = Volume.from_array(np.array([[[0, 4], [8, 8]]]))
    >>> fine = coarse.grid.with_spacing((1.0, 0.5, 0.5))
    >>> resample_volume(coarse, fine).data[0, 0, 0].tolist()
    [0.0, 1.0, 3.0, 4.0]
    """
    moved, texts = resampled_volume(volume, like, outside=outside, name=name, like_name=like_name)
    for text in texts:
        warnings.warn(text, stacklevel=2)
    return moved


def resampled_volume(
    volume: Volume,
    like: Grid,
    *,
    outside: float | None = None,
    name: str = "The second image",
    like_name: str = "the first",
    should_stop: StopCallback = never_stop,
) -> tuple[Volume, list[str]]:
    """Return an image on another grid, and what the user should know of it.

    Parameters
    ----------
    volume, like, outside, name, like_name
        See :func:`resample_volume`, which warns of what this returns.
    should_stop : callable, optional
        Asked every few slices whether to stop.

    Returns
    -------
    volume : Volume
    texts : list of str
        What became of values that are not finite, and how much the image does not reach.

    Raises
    ------
    GeometryError, ImageError
        See :func:`resample_volume`.
    Cancelled
        When ``should_stop`` returned True.
    """
    from scipy.ndimage import affine_transform

    if volume.grid.matches(like):
        return volume, []
    _check_placed(
        (volume.grid, name),
        (like, like_name[0].upper() + like_name[1:]),
        "bring them onto one grid first.",
    )
    if volume.data.dtype.kind == "c":
        volume.check_image()
    to_volume = np.linalg.inv(volume.grid.affine) @ like.affine
    reached = _reached(to_volume, like.shape, volume.shape)
    missing = reached.size - int(np.count_nonzero(reached))
    if missing == reached.size:
        raise GeometryError(
            f"{name} lies outside {like_name}: they do not overlap anywhere in the patient. Is it "
            "of another patient, or moved?"
        )
    lacking = None
    if outside is None:
        volume, lacking = _without_nan(volume)
    volume, texts = finite_volume(volume)
    wide = volume.data.dtype.kind == "f" and volume.data.dtype.itemsize > 4
    data = np.empty((volume.channels, *like.shape), np.float64 if wide else np.float32)
    step = max(1, _PIECE // (like.shape[1] * like.shape[2]))

    def interpolate(source: NDArray[Any], first: int, out: NDArray[Any]) -> None:
        affine_transform(
            source,
            to_volume[:3, :3],
            to_volume[:3, 3] + first * to_volume[:3, 0],
            out.shape,
            output=out,
            order=1,
            mode="nearest",
            prefilter=False,
        )

    for c, (mine, channel) in enumerate(zip(data, volume.data, strict=True)):
        for first in range(0, like.shape[0], step):
            if should_stop():
                raise Cancelled("Canceled; nothing was resampled.")
            part = mine[first : first + step]
            interpolate(channel, first, part)
            if lacking is not None and lacking[c].any():
                share = np.empty(part.shape, np.float32)
                interpolate(lacking[c].astype(np.float32), first, share)
                part[share > _TIE] = np.nan
        mine[~reached] = np.nan if outside is None else outside
    if missing:
        taken = (
            "it has no value (NaN)" if outside is None else f"it is taken as {outside:.6g} (given)"
        )
        texts.append(
            f"{name} does not reach {missing:,} voxels ({100 * missing / reached.size:.2g} %) of "
            f"{like_name}; there {taken}."
        )
    return Volume(data, like, volume.channel_names, volume.units), texts


def _without_nan(volume: Volume) -> tuple[Volume, NDArray[np.bool_] | None]:
    """Return an image with numbers in place of NaN, and where that or what is missing was."""
    lacking = volume.missing
    if volume.data.dtype.kind == "f":
        nan = np.isnan(volume.data)
        if nan.all(axis=(1, 2, 3)).any():
            return volume, None  # refused for having no value at all
        if nan.any():
            zero = volume.data.dtype.type(0)
            volume = replace(volume, data=np.where(nan, zero, volume.data))
            lacking = nan if lacking is None else lacking | nan
    return volume, lacking


def _reached(
    to_source: NDArray[np.float64], shape: tuple[int, int, int], source: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """Tell which voxels of a grid have their center in a voxel of another one.

    The matrix maps the grid's voxels (z, y, x, 1) to the other one's.
    """
    z, y, x = (np.arange(n, dtype=np.float64) for n in shape)
    inside = np.ones(shape, np.bool_)
    for axis, count in enumerate(source):
        a, b, c, start = to_source[axis]
        plane = (b * y)[:, None] + c * x
        # Slice by slice: all of them at once would take eight times more memory.
        for k, part in enumerate(inside):
            place = plane + (a * z[k] + start)
            part &= (place >= -0.5 - _TIE) & (place <= count - 0.5 + _TIE)
    return inside


def _check_placed(one: tuple[Grid, str], other: tuple[Grid, str], advice: str) -> None:
    """Refuse grids that do not state how they lie.

    Raises
    ------
    GeometryError
        With the name of the first such grid, and the advice.
    """
    for grid, name in (one, other):
        if not is_orientation_known(grid):
            raise GeometryError(
                f"{name} does not state how it lies in the patient, so that nothing can be "
                f"resampled: {advice}"
            )


def _values(labels: NDArray[Any]) -> NDArray[Any]:
    """Return the values of labels, sorted."""
    if labels.dtype in (np.uint8, np.uint16):  # a tenth of the time that sorting takes
        return np.flatnonzero(np.bincount(labels.reshape(-1)))
    return np.unique(labels)


def labels_with(labels: NDArray[Any], value: int) -> NDArray[Any]:
    """Return labels in their type, or in one that holds another value, too."""
    limits = np.iinfo(labels.dtype)
    if limits.min <= value <= limits.max:
        return labels
    if labels.dtype == np.uint64:  # shares no integer type with negative values
        labels = labels.astype(np.int64)
    return labels.astype(np.promote_types(labels.dtype, np.min_scalar_type(value)))
