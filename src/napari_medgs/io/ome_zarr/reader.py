"""OME-Zarr images and masks (0.4 and 0.5), read at the finest resolution that fits into memory."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import GeometryError, ImageError, LabelError, MemoryEstimateError
from napari_medgs.io._limits import human_bytes
from napari_medgs.io.fourth_axis import chosen_entries, entry_names
from napari_medgs.io.labels import as_labels
from napari_medgs.io.ome_zarr.axes import arrange, spatial_shape
from napari_medgs.io.ome_zarr.metadata import label_colors, label_names
from napari_medgs.io.ome_zarr.opening import OmeZarr, open_ome_zarr


def read_ome_zarr(
    path: str | Path,
    *,
    spacing: tuple[float, float, float] | None = None,
    volume: int | None = None,
    every: bool = False,
) -> Volume:
    """Read an OME-Zarr image at the finest resolution that fits into memory.

    Parameters
    ----------
    path : str or Path
        A folder, a ``.zarr.zip`` or ``.ozx`` file, or the folder of one level, which is then
        read whatever its size.
    spacing : (z, y, x) in mm, optional
        Of the finest level; needed where the file has no units.
    volume : int, optional
        Which time point to read, from 1, or which channel of an image without time.
    every : bool
        Read all time points as channels.

    Returns
    -------
    Volume
        Axes run to superior, posterior and left, as for TIFF: OME-Zarr has no patient orientation.

    Raises
    ------
    FileError
        When it is damaged, no OME-Zarr image, or stored with a codec that is not read.
    ImageError
        When several time points are there and none is chosen, or it has other axes.
    GeometryError
        When its voxel size is not known.
    MemoryEstimateError
        When not even the coarsest level fits into memory.
    MissingPackageError
        When zarr is not installed.

    References
    ----------
    https://ngff.openmicroscopy.org/0.5/
    """
    with open_ome_zarr(path) as opened:
        taken = chosen_entries(path, opened.fourth, volume, every)
        level = _fitting_level(opened, taken)
        return _volume(opened, level, taken, opened.grid(level, spacing), every)


def read_ome_zarr_labels(
    path: str | Path,
    like: Grid | None = None,
    *,
    spacing: tuple[float, float, float] | None = None,
    volume: int | None = None,
) -> tuple[NDArray[Any], Grid]:
    """Read a label image: of an image with one label image below it, that.

    Parameters
    ----------
    path : str or Path
        A label image, an image with one below it, or any image of integers.
    like : Grid, optional
        The level of its shape is read where there is one.
    spacing, volume
        See :func:`read_ome_zarr`.

    Returns
    -------
    labels : (Z, Y, X) ndarray of integers
    grid : Grid

    Raises
    ------
    LabelError
        When values are not integers, or there are several label images or channels.
    MedGSError
        As :func:`read_ome_zarr`.
    """
    with open_ome_zarr(label_path(path)) as opened:
        taken = chosen_entries(path, opened.fourth, volume)
        level = _fitting_level(opened, taken, None if like is None else like.shape)
        shape = spatial_shape(opened.image.axes, opened.arrays[level].shape)
        alike = like is not None and like.shape == shape
        try:
            grid = opened.grid(level, spacing)
        except GeometryError:
            if like is None or not alike:
                raise
            grid = like  # without sizes of its own it lies where its image does
        if like is not None and alike and like.source.get("kind") != "ome-zarr":
            grid = like
        found = _volume(opened, level, taken, grid)
    if found.channels > 1:
        raise LabelError(
            f"{path}: the mask has {found.channels} channels; choose one by --volume."
        )
    return as_labels(found.data[0], f"{path}: the mask"), grid


def label_path(path: str | Path) -> Path:
    """Return the label image of a path: the only one below an image, else the path itself.

    Raises
    ------
    LabelError
        When there are several.
    """
    place = Path(path)
    with open_ome_zarr(place) as opened:
        names = opened.labels
    if len(names) > 1:
        listed = ", ".join(str(place / "labels" / name) for name in names[:8])
        raise LabelError(f"{path}: holds {len(names)} label images; choose one of: {listed}.")
    return place / "labels" / names[0] if names else place


def read_ome_zarr_table(
    path: str | Path,
) -> tuple[dict[int, str], dict[int, tuple[float, float, float]]]:
    """Read the names and colors of a label image; empty where there are none.

    Raises
    ------
    MedGSError
        As :func:`read_ome_zarr_labels`.
    """
    with open_ome_zarr(label_path(path)) as opened:
        return label_names(opened.attributes), label_colors(opened.attributes)


def _fitting_level(opened: OmeZarr, taken: slice, shape: tuple[int, ...] | None = None) -> int:
    """Return the level to read: of a wanted shape, else the finest that fits into memory.

    Raises
    ------
    MemoryEstimateError
        When none fits.
    """
    import psutil

    free = int(psutil.virtual_memory().available)
    fraction = (taken.stop - taken.start) / opened.fourth.count
    needed = [
        2 * math.prod(a.shape) * a.dtype.itemsize * fraction
        + 2 * math.prod(a.shards or a.chunks) * a.dtype.itemsize
        for a in opened.arrays
    ]
    wanted = [opened.fixed] if opened.fixed is not None else range(len(needed))
    if shape is not None and opened.fixed is None:
        same = [
            k
            for k in wanted
            if spatial_shape(opened.image.axes, opened.arrays[k].shape) == tuple(shape)
        ]
        wanted = same or wanted
    fitting = next((k for k in wanted if needed[k] <= 0.9 * free), None)
    if fitting is None:
        raise MemoryEstimateError(
            f"{opened.path}: reading it needs about {human_bytes(min(needed[k] for k in wanted))} "
            f"and {human_bytes(free)} of memory are free. Close other programs, or give a coarser "
            "image."
        )
    if fitting != wanted[0]:
        sizes = " x ".join(
            map(str, spatial_shape(opened.image.axes, opened.arrays[fitting].shape))
        )
        warnings.warn(
            f"{opened.path}: the full resolution needs about {human_bytes(needed[wanted[0]])} and "
            f"{human_bytes(free)} of memory are free; level {fitting} of {sizes} voxels is read.",
            stacklevel=4,
        )
    return fitting


def _volume(
    opened: OmeZarr,
    level: int,
    taken: slice,
    grid: Grid,
    every: bool = False,
) -> Volume:
    """Read a level."""
    axes, array, axis = opened.image.axes, opened.arrays[level], opened.fourth
    if axis.volumes and taken.stop - taken.start > 1 and opened.count("c") > 1:
        raise ImageError(
            f"{opened.path}: has {axis.count} volumes of {opened.count('c')} channels; choose one "
            "volume."
        )
    cut = "t" if axis.volumes else "c"
    index = tuple(taken if a == cut else slice(None) for a in axes)
    values = np.asarray(array[index])
    if axis.volumes and values.shape[axes.index("t")] > 1:
        data = arrange(values, axes, timed=True)[0]
    else:
        data = arrange(values, axes, timed=False)
    if data.dtype == np.bool_:
        data = data.astype(np.uint8)
    listed = opened.image.channel_names
    if axis.volumes and opened.count("c") > 1:
        names = opened.channel_names(len(data))
    elif not axis.volumes and len(listed) == axis.count:
        names = listed[taken]
    else:
        names = entry_names(opened.stem, axis, taken)
    source: dict[str, Any] = {"kind": "ome-zarr", "dtype": data.dtype.name}
    if every:
        source |= axis.to_source()
    data = np.ascontiguousarray(data.astype(data.dtype.newbyteorder("="), copy=False))
    return Volume.from_axes(data, grid.affine, channel_names=names, source=source)
