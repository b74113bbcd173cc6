"""``napari-medgs info``: describe a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from napari_medgs.cli.describe_grid import describe_grid
from napari_medgs.cli.options import (
    DebugOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    SeriesOption,
    VolumeOption,
    VoxelSizeOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter
from napari_medgs.data.volume import Volume

HIDDEN = ("affine", "shape", "spacing_mm", "extent_mm")
"""Numbers of the canonical grid, for the JSON file: on the screen those of the file stand."""
MESHES = (".ply", ".stl", ".obj", ".glb")
TABLES = (
    "series",
    "labels",
    "segments",
    "channels",
    "splits",
    "levels",
    "parts",
    "fields",
    "bytes_of",
    "metrics",
)

EXAMPLES = (
    "napari-medgs info scan.nii.gz",
    "napari-medgs info dicom-study/",
    "napari-medgs info mask.nii.gz --json numbers.json",
    "napari-medgs info scan.medgs",
)
"""Shown at the end of the help page."""


def info(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="An image or mask (as for fit), a field, a mesh, a trained segmenter "
            "or codec, or a whole MedMNIST .npz.",
        ),
    ],
    spacing: VoxelSizeOption = None,
    assume_identity: IdentityOption = False,
    series: SeriesOption = None,
    chosen_volume: VolumeOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Describe an image, mask, field or mesh."""
    del debug
    from napari_medgs.cli.learned_codec import describe_codec
    from napari_medgs.compression.learned.files import is_codec_file
    from napari_medgs.io.fields import is_field_file
    from napari_medgs.io.meshes import find_meshes
    from napari_medgs.learning.files import is_segmenter_file

    reporter = Reporter(quiet, json_file)
    check_distinct([file], {"--json": json_file})
    lower = file.lower()
    if is_segmenter_file(file):
        numbers = describe_segmenter(Path(file))
    elif is_codec_file(file):
        numbers = describe_codec(Path(file))
    elif is_field_file(file):
        numbers = describe_field(Path(file))
    elif lower.endswith(".medgsz"):
        numbers = describe_cohort(Path(file))
    elif lower.endswith(MESHES) or find_meshes(file):
        numbers = describe_mesh(Path(file))
    elif lower.endswith(".npz"):
        numbers = describe_set(file)
    elif (
        series is None
        and chosen_volume is None
        and (listed := describe_dicom(Path(file))) is not None
    ):
        numbers = listed
    else:
        numbers = describe_volume(
            file,
            spacing=spacing,
            assume_identity=assume_identity,
            series=series,
            volume=chosen_volume,
        )
    reporter.finish(numbers)
    tables = [key for key in TABLES if numbers.get(key)]
    shown = {key: v for key, v in numbers.items() if key not in (*tables, *HIDDEN)}
    reporter.pairs(file, [(_title(key), text_of(v, key)) for key, v in shown.items() if v])
    for key in tables:
        _say_table(reporter, _title(key), numbers[key])


TITLES = {
    "stored_shape": "size (z, y, x)",
    "stored_spacing_mm": "spacing (z, y, x)",
    "stored_extent_mm": "extent (z, y, x)",
    "stored_axes": "axes run to",
    "file_orientation": "orientation",
    "world_mm": "reaches from",
}


def _title(key: str) -> str:
    if key in TITLES:
        return TITLES[key]
    return key.removesuffix("_mm").replace("_", " ")


def _say_table(reporter: Reporter, title: str, entries: dict[str, Any]) -> None:
    first = next(iter(entries.values()))
    if not isinstance(first, dict):
        reporter.pairs(title, [(_title(key), text_of(v, key)) for key, v in entries.items()])
        return
    columns = [
        key for key in first if any(entry[key] not in ("", None) for entry in entries.values())
    ]
    rows = [
        [name, *[text_of(entry[key], key) for key in columns]] for name, entry in entries.items()
    ]
    reporter.table(title, ("", *map(_title, columns)), rows)


def text_of(value: Any, key: str = "") -> str:
    """Format a value for display; the key tells its unit."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}{' mm' * key.endswith('_mm')}"
    if isinstance(value, int):
        return f"{value:,}"
    if key == "world_mm":
        return ", ".join(f"{axis} {a:.5g} to {b:.5g}" for axis, (a, b) in value.items()) + " mm"
    if isinstance(value, dict):
        return ", ".join(f"{name} {text_of(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        sizes = key.endswith(("shape", "spacing_mm", "extent_mm"))
        text = (" x " if sizes else ", ").join(text_of(entry) for entry in value)
        if key == "stored_shape":
            return f"{text} voxels"
        return f"{text} mm" if key.endswith("_mm") else text
    return str(value)


def describe_segmenter(path: Path) -> dict[str, Any]:
    """Return what a trained segmenter reads, finds and was measured at."""
    from napari_medgs.learning.components import describe_components
    from napari_medgs.learning.files import load_segmenter_card
    from napari_medgs.learning.polishing import describe_polishing

    card = load_segmenter_card(path)
    mean, features = card.dice.get("mean", {}), card.network.features
    return {
        "kind": "segmenter",
        "contrasts": list(card.channel_names),
        "classes": [f"{value} {name}" for value, name in card.names.items()],
        "reads": "slices" if card.network.ndim == 2 else "volumes",
        "model_spacing_mm": list(card.spacing),
        "training_cases": len(card.cases),
        "folds": card.folds,
        "features": features.place if features else None,
        "polishing": describe_polishing(card) or None,
        "largest_component_only": describe_components(card) or None,
        "dice": mean.get("mean"),
        "dice_interval": [mean["low"], mean["high"]] if mean else None,
        "parameters": card.parameters,
        "licence": card.licence,
        "bytes": path.stat().st_size,
        "note": card.note,
    }


def describe_field(path: Path) -> dict[str, Any]:
    """Return what a field file holds."""
    from napari_medgs.io.fields import is_compressed_field, load_field

    field = load_field(path)
    more: dict[str, Any] = {}
    if is_compressed_field(path):
        from napari_medgs.io.codec.files import bytes_by_part

        size = path.stat().st_size
        more["bytes_per_gaussian"] = size / max(len(field), 1)
        more["bytes_of"] = {
            part: {"bytes": count, "percent": round(100 * count / size, 1)}
            for part, count in bytes_by_part(path).items()
        }
    return {
        "kind": "field",
        "gaussians": len(field),
        "bytes": path.stat().st_size,
        **more,
        "blend": field.info.blend,
        "fold_degree": field.info.degree,
        "slice_axis": "zyx"[field.info.slice_axis],
        **describe_grid(field.info.grid),
        "image_channels": list(field.info.image_channels),
        "classes": list(field.info.class_names),
        "label_values": list(field.info.label_values),
        "metrics": field.info.metrics,
    }


def describe_cohort(path: Path) -> dict[str, Any]:
    """Return what a file of many fields holds."""
    from napari_medgs.io.codec.archive import FieldArchive

    archive = FieldArchive(path)
    sizes, counts = archive.sizes(), archive.gaussians()
    return {
        "kind": "cohort of fields",
        "bytes": path.stat().st_size,
        "shared_bytes": archive.header_bytes,
        "count": len(archive.names),
        "fields": {
            name: {"gaussians": counts[name], "bytes": sizes[name]} for name in archive.names
        },
    }


def describe_mesh(path: Path) -> dict[str, Any]:
    """Return the numbers of a mesh file, or a folder of such, taken to be in millimeters."""
    from napari_medgs.io.meshes import find_meshes, load_meshes

    meshes = load_meshes(path)
    return {
        "kind": "mesh",
        "bytes": sum(file.stat().st_size for file in find_meshes(path) or [path]),
        "parts": {
            name: {
                "vertices": len(mesh.vertices),
                "triangles": len(mesh.faces),
                "closed": bool(mesh.is_watertight),
                "area_mm2": float(mesh.area),
                "ml": float(mesh.volume) / 1000 if mesh.is_watertight else None,
                "lowest_mm": mesh.bounds[0].tolist(),
                "highest_mm": mesh.bounds[1].tolist(),
            }
            for name, mesh in meshes.items()
        },
    }


def describe_set(file: str) -> dict[str, Any]:
    """Return what a MedMNIST file holds."""
    from napari_medgs.io.medmnist.reader import load_set

    loaded = load_set(Path(file))
    return {
        "kind": "MedMNIST set",
        "name": loaded.name,
        "task": loaded.task,
        "classes": list(loaded.class_names),
        "splits": {
            split: {
                "images": len(images),
                "shape": list(images.shape[1:]),
                "type": str(images.dtype),
            }
            for split, images in loaded.images.items()
        },
    }


def describe_dicom(path: Path) -> dict[str, Any] | None:
    """Return the choices of a DICOM folder or file with several volumes, None for others.

    Parameters
    ----------
    path : Path
        A folder of slices, a study, a disc, a DICOMDIR, or any other path.

    Returns
    -------
    dict or None
        With an entry per series, or per volume of a series that has several.
    """
    from napari_medgs.io.dicom.series import has_dicom, list_series
    from napari_medgs.io.ome_zarr.opening import is_ome_zarr

    if is_ome_zarr(path) or not has_dicom(path):
        return None
    found = list_series(path)
    entries: dict[str, Any] = {}
    for n, one in enumerate(found, 1):
        for v, name in enumerate(one.volumes or ("",), 1):
            entries[f"{n}.{v}" if one.volumes else str(n)] = {
                "modality": one.modality,
                "description": one.description,
                "volume": name,
                "slices": one.slices,
                "spacing_mm": None if one.spacing is None else list(one.spacing),
                "uid": one.uid,
            }
    if len(entries) < 2:
        return None
    return {"kind": "DICOM series; choose one with --series", "series": entries}


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
