"""What an image or mask holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs.cli.describe.grid import describe_grid
from napari_medgs.data.volume import Volume


def describe_levels(path: Path, spacing: tuple[float, float, float] | None) -> dict[str, Any]:
    """Return the levels of an OME-Zarr image and the names of its label images; empty for others.

    Parameters
    ----------
    path : Path
    spacing : (z, y, x) in mm, optional
        Of the finest level.
    """
    from napari_medgs.io.ome_zarr.opening import is_ome_zarr, open_ome_zarr

    if not is_ome_zarr(path):
        return {}
    with open_ome_zarr(path) as opened:
        levels = {
            level.path: {
                "shape": list(opened.grid(k, spacing).shape),
                "spacing_mm": list(opened.grid(k, spacing).spacing),
            }
            for k, level in enumerate(opened.image.levels)
        }
        return {"label_images": list(opened.labels), "levels": levels}


def describe_volume(file: str, **options: Any) -> dict[str, Any]:
    """Return what an image or mask holds.

    Parameters
    ----------
    file : str
    **options
        Of :func:`napari_medgs.io.read_volume`.
    """
    from napari_medgs.io import read_label_names
    from napari_medgs.io.formats import image_stem
    from napari_medgs.io.fourth_axis import SOURCE_KEY
    from napari_medgs.io.itk.segments import is_segmentation, read_segments
    from napari_medgs.io.labels import as_mask
    from napari_medgs.io.reading import read_all_volumes

    volume = read_all_volumes(file, **options)
    path = Path(file)
    levels = describe_levels(path, options.get("spacing"))
    if SOURCE_KEY in volume.grid.source:
        return _describe_series(volume) | levels
    labels = as_mask(volume, image_stem(path) if path.is_file() else path.name)
    record: dict[str, Any] = {
        "kind": "image" if labels is None else "mask",
        "type": str(volume.data.dtype),
        "units": volume.units,
        **describe_grid(volume.grid),
        **levels,
    }
    if labels is None and is_segmentation(file):
        layers = volume.data  # several label images, whose segments may overlap
        record["kind"] = "segments in several layers"
        record["segments"] = {
            segment.name: {
                "value": segment.value,
                "layer": segment.layer,
                "voxels": int(np.count_nonzero(layers[segment.layer] == segment.value)),
            }
            for segment in read_segments(path)
            if 0 <= segment.layer < len(layers)
        }
        return record
    if labels is None:
        record["channels"] = {
            name: _statistics(channel)
            for name, channel in zip(volume.channel_names, volume.data, strict=True)
        }
        return record
    from napari_medgs.metrics.volumes import voxel_counts

    names = read_label_names(path) if path.is_file() else {}
    millilitres = volume.grid.voxel_volume / 1000
    record["labels"] = {
        str(value): {"name": names.get(value, ""), "voxels": count, "ml": count * millilitres}
        for value, count in voxel_counts(labels).items()
    }
    return record


def _describe_series(volume: Volume) -> dict[str, Any]:
    """Return what volumes in time hold."""
    from napari_medgs.io.fourth_axis import SOURCE_KEY

    axis = volume.grid.source[SOURCE_KEY]
    return {
        "kind": "volumes in time; choose one with --volume",
        "volumes": volume.channels,
        "seconds_between_volumes": axis["step_s"],
        "type": str(volume.data.dtype),
        "units": volume.units,
        **describe_grid(volume.grid),
        "channels": {"all volumes": _statistics(volume.data)},
    }


def _statistics(channel: Any) -> dict[str, float | int]:
    finite = channel[np.isfinite(channel)] if channel.dtype.kind in "fc" else channel
    if channel.dtype.kind == "c":
        finite = np.abs(finite)
    record: dict[str, float | int] = {"not_finite": int(channel.size - finite.size)}
    if finite.size:
        levels = np.percentile(finite, (0.5, 50, 99.5))
        record.update(
            lowest=float(finite.min()),
            **{name: float(v) for name, v in zip(("p0.5", "median", "p99.5"), levels)},
            highest=float(finite.max()),
            mean=float(finite.mean(dtype=np.float64)),
        )
    return record
