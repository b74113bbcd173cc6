"""Volumes as layers: masks, one image per contrast, volumes in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.plugin.label_colors import labels_colormap
from napari_medgs.plugin.layer_frame import grid_kwargs
from napari_medgs.plugin.layer_metadata import COLORS_KEY, NAMES_KEY
from napari_medgs.plugin.time_layers import with_time

if TYPE_CHECKING:
    from napari_medgs.data.volume import Volume

LayerData = tuple[Any, ...]


def volume_layers(volume: Volume, path: Path | None = None) -> list[LayerData]:
    """Return a volume as layers: Labels where it is a mask, else one Image per channel.

    Parameters
    ----------
    volume : Volume
    path : Path, optional
        Where it was read from, for the layers' names and metadata.

    Returns
    -------
    list of layer data
    """
    place = grid_kwargs(volume.grid)
    metadata = place.pop("metadata")
    if path is not None:
        metadata["path"] = str(path)
    from napari_medgs.io.formats import image_stem
    from napari_medgs.io.fourth_axis import SOURCE_KEY
    from napari_medgs.io.labels import as_mask

    stem = "image" if path is None else path.name if path.is_dir() else image_stem(path)

    if SOURCE_KEY in volume.grid.source:
        return [_time_layer(volume, stem, metadata, place)]
    labels = as_mask(volume, stem)
    if labels is not None:
        from napari_medgs.io import read_label_names
        from napari_medgs.io.formats import read_label_colors

        is_file = path is not None and path.is_file()
        names = read_label_names(path) if path is not None and is_file else {}
        colors = read_label_colors(path) if path is not None and is_file else {}
        metadata |= {NAMES_KEY: names, COLORS_KEY: colors}
        options = {"name": stem, "metadata": metadata, **place, **colormap_option(colors, labels)}
        return [(labels, options, "labels")]
    layers: list[LayerData] = []
    for c, name in enumerate(volume.channel_names):
        data = volume.channel(c)
        options = {
            "name": name if volume.channels > 1 else stem,
            "colormap": "gray",
            "metadata": dict(metadata),
            "visible": c == 0,
            **place,
        }
        limits = display_limits(data)
        if limits is not None:
            options["contrast_limits"] = limits
        layers.append((data, options, "image"))
    return layers


def _time_layer(
    volume: Volume, name: str, metadata: dict[str, Any], place: dict[str, Any]
) -> LayerData:
    """Return volumes in time as one layer (T, Z, Y, X)."""
    from napari_medgs.io.fourth_axis import SOURCE_KEY

    step = volume.grid.source[SOURCE_KEY]["step_s"]
    options: dict[str, Any] = {
        "name": name,
        "colormap": "gray",
        "metadata": metadata,
        **with_time(place, step),
    }
    limits = display_limits(volume.data)
    if limits is not None:
        options["contrast_limits"] = limits
    return volume.data, options, "image"


def colormap_option(colors: Mapping[int, Sequence[float]], labels: NDArray[Any]) -> dict[str, Any]:
    """Return the colormap option of a Labels layer; empty where its file gives no colors."""
    found = labels_colormap(colors, labels)
    return {} if found is None else {"colormap": found}


def display_limits(data: NDArray[Any]) -> tuple[float, float] | None:
    """Return the 0.5 and 99.5 percentiles as contrast limits; None for a constant image.

    Parameters
    ----------
    data : ndarray
        Values that are not finite are passed over.

    Returns
    -------
    (float, float) or None

    Examples
    --------
    >>> import numpy as np
    >>> display_limits(np.arange(1001.0))
    (5.0, 995.0)
    >>> display_limits(np.ones(5)) is None
    True
    """
    sample = data.reshape(-1)[:: max(1, data.size // 200_000)].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return None
    low, high = np.percentile(sample, (0.5, 99.5))
    return (float(low), float(high)) if high > low else None
