"""OME-Zarr as layers that read what is shown: all levels of an image, and its label images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs.plugin.layer_frame import grid_kwargs
from napari_medgs.plugin.layer_metadata import COLORS_KEY, NAMES_KEY
from napari_medgs.plugin.time_layers import with_time
from napari_medgs.plugin.volume_layers import colormap_option, display_limits, volume_layers

LayerData = tuple[Any, ...]
_SAMPLE = 2_000_000  # voxels of the coarsest level that contrast limits are taken from


def read_zarr_layers(path: Path, **options: Any) -> list[LayerData]:
    """Read an OME-Zarr image lazily, one Image layer per channel, with its label images.

    Parameters
    ----------
    path : Path
        A folder, a zip file, a label image or one level.
    **options
        spacing, and volume: the only time point to open, in memory.

    Returns
    -------
    list of layer data
        Label images are read into memory, as they are edited.

    Raises
    ------
    MedGSError
        When the image cannot be used.
    """
    from napari_medgs.io.ome_zarr.lazy import open_lazily
    from napari_medgs.io.reading import read_volume

    spacing = options.get("spacing")
    if options.get("volume") is not None:
        return volume_layers(read_volume(path, **options), path)
    image = open_lazily(path, spacing=spacing)
    if image.is_mask:
        return [_labels_layer(path, spacing)]
    layers: list[LayerData] = []
    place = grid_kwargs(image.grids[0])
    metadata = {**place.pop("metadata"), "path": str(path)}
    for c, name in enumerate(image.channel_names):
        levels = [level[c] for level in image.levels]
        several = len(levels) > 1
        shown = {
            "name": name,
            "colormap": "gray",
            "metadata": dict(metadata),
            "visible": c == 0,
            "multiscale": several,
            **(with_time(place, image.axis.step) if image.axis.volumes else place),
        }
        limits = _limits(levels[-1])
        if limits is not None:
            shown["contrast_limits"] = limits
        layers.append((levels if several else levels[0], shown, "image"))
    for name in image.labels:
        layers.append(_labels_layer(path / "labels" / name, spacing))
    return layers


def _labels_layer(path: Path, spacing: Any) -> LayerData:
    from napari_medgs.io.ome_zarr.reader import read_ome_zarr_labels, read_ome_zarr_table

    labels, grid = read_ome_zarr_labels(path, spacing=spacing)
    names, colors = read_ome_zarr_table(path)
    place = grid_kwargs(grid)
    metadata = {
        **place.pop("metadata"),
        "path": str(path),
        NAMES_KEY: names,
        COLORS_KEY: colors,
    }
    options: dict[str, Any] = {"name": path.name, "metadata": metadata, **place}
    options |= colormap_option(colors, labels)
    return labels, options, "labels"


def _limits(level: Any) -> tuple[float, float] | None:
    """Return contrast limits from part of the coarsest level."""
    middle = level[level.shape[0] // 2] if level.ndim > 3 else level
    step = max(1, int(np.ceil((middle.size / _SAMPLE) ** (1 / 3))))
    return display_limits(np.asarray(middle[::step, ::step, ::step]))
