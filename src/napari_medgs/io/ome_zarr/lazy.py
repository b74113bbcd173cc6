"""OME-Zarr images whose values are read when they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_medgs.data.grid import Grid
from napari_medgs.io.fourth_axis import FourthAxis
from napari_medgs.io.ome_zarr.axes import arrange
from napari_medgs.io.ome_zarr.metadata import ome
from napari_medgs.io.ome_zarr.opening import open_unclosed


@dataclass(frozen=True)
class LazyImage:
    """An image whose values are read when they are shown.

    Attributes
    ----------
    levels : list of dask arrays
        Per level, the finest first: (C, Z, Y, X), or (C, T, Z, Y, X) where there is time.
    grids : list of Grid
        Per level.
    channel_names : tuple of str
    axis : FourthAxis
        Of time.
    labels : tuple of str
        Names of the label images below it.
    is_mask : bool
        Whether it is a label image itself.
    """

    levels: list[Any]
    grids: list[Grid]
    channel_names: tuple[str, ...]
    axis: FourthAxis
    labels: tuple[str, ...]
    is_mask: bool


def open_lazily(
    path: str | Path, *, spacing: tuple[float, float, float] | None = None
) -> LazyImage:
    """Open all levels of an image without reading their values.

    Parameters
    ----------
    path, spacing
        See :func:`read_ome_zarr`. A zip file stays open as long as the arrays are used.

    Returns
    -------
    LazyImage

    Raises
    ------
    MedGSError
        As :func:`read_ome_zarr`.
    """
    from dask import array as da

    opened = open_unclosed(Path(path))
    timed = opened.count("t") > 1
    levels, grids = [], []
    chosen = range(len(opened.arrays)) if opened.fixed is None else [opened.fixed]
    for level in chosen:
        array = opened.arrays[level]
        lazy = da.from_array(array, chunks=array.chunks, name=False)
        levels.append(arrange(lazy, opened.image.axes, timed))
        grids.append(opened.grid(level, spacing))
    axis = opened.fourth if timed else FourthAxis(1)
    return LazyImage(
        levels,
        grids,
        opened.channel_names(levels[0].shape[0]),
        axis,
        opened.labels,
        "image-label" in ome(opened.attributes),
    )
