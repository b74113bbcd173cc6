"""What files of one field, or of many, hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_medgs.cli.describe.grid import describe_grid


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
