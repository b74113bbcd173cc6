"""``napari-medgs mesh``: surfaces of labels or of a field, in RAS millimeters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_medgs._util.naming import naming
from napari_medgs.cli.command import refuse_idle
from napari_medgs.cli.options import (
    Backend,
    BackendOption,
    DebugOption,
    FillNanOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    SegmentsOption,
    ThreadsOption,
    VolumeOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output, label_title, rounded

EXAMPLES = (
    "napari-medgs mesh mask.nii.gz -o organs.glb --labels 1 2",
    "napari-medgs mesh case.medgs.safetensors -o meshes/ --spacing 1 --smooth 1",
    "napari-medgs mesh scan.nii.gz -o bone.stl --level 300 --decimate 0.3",
)
"""Shown at the end of the help page."""


def mesh(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FIELD_OR_SEG", help="A field, a label image, or with --level an image."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT.ply|DIR",
            help="One file for all (.ply, .stl, .obj, .glb), or a folder with one file per label.",
        ),
    ],
    labels: Annotated[
        list[int] | None,
        typer.Option("--labels", metavar="1 2 ..", help="Labels to use.", show_default="all"),
    ] = None,
    spacing: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Voxel size in mm of the grid that the surface is extracted from.",
            show_default="that of the input",
        ),
    ] = None,
    smooth: Annotated[
        float | None,
        typer.Option(
            metavar="MM",
            min=0,
            help="Smoothing in mm; 0 for none.",
            show_default="masks: 0.7 voxels, fields: none",
        ),
    ] = None,
    decimate: Annotated[
        float | None,
        typer.Option(
            metavar="F", help="Fraction of the triangles to keep, or, above 1, their number."
        ),
    ] = None,
    largest: Annotated[
        bool,
        typer.Option("--largest", help="Keep the largest component of each label only."),
    ] = False,
    level: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Intensity at which an image becomes a surface; of a field with classes, the "
            "probability of the class.",
            show_default="0.5 for classes",
        ),
    ] = None,
    assume_identity: IdentityOption = False,
    segment: SegmentsOption = None,
    chosen_volume: VolumeOption = None,
    fill_nan: FillNanOption = "background",
    backend: BackendOption = Backend.auto,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Make closed surfaces of labels, or of a field's classes at any resolution."""
    del debug
    reporter = Reporter(quiet, json_file)
    check_output(output)
    check_distinct([source], {"-o": output, "--json": json_file})

    from napari_medgs.io.fields import is_field_file
    from napari_medgs.io.meshes import check_mesh_path, save_meshes
    from napari_medgs.meshing import MeshParams
    from napari_medgs.metrics.volumes import surface_areas_mm2

    check_mesh_path(output)
    if is_field_file(source):
        refuse_idle(("--segment", "--volume"), "on a field")
    elif level is not None:
        refuse_idle(("--labels", "--segment"), "with --level: the whole image is cut")
    else:
        refuse_idle(("--fill-nan",), "without --level")
    params = MeshParams(
        labels=tuple(labels) if labels else None,
        spacing=spacing,
        smooth_mm=smooth,
        decimate=decimate,
        largest_only=largest,
        level=level,
    )
    started = time.perf_counter()
    with reporter.doing("making surfaces"):
        if is_field_file(source):
            meshes, names = _of_field(source, params, backend.value, threads)
        else:
            meshes, names = _of_file(
                source,
                params,
                assume_identity=assume_identity,
                volume=chosen_volume,
                segments=segment or (),
                fill_nan=fill_nan,
            )
    save_meshes(output, meshes, names)
    areas = surface_areas_mm2(meshes)
    parts: dict[str, dict[str, Any]] = {
        str(value): {
            "name": names.get(value, f"label {value}"),
            "vertices": len(surface.vertices),
            "triangles": len(surface.faces),
            "area_mm2": areas[value],
            "volume_ml": float(surface.volume) / 1000,
            "closed": bool(surface.is_watertight),
        }
        for value, surface in meshes.items()
    }
    seconds = time.perf_counter() - started
    reporter.finish(
        {"labels": parts, "seconds": seconds, "threads": threads, "output": str(output)}
    )
    rows = [
        [
            label_title(value, names),
            f"{part['triangles']:,}",
            rounded(part["area_mm2"], 0),
            rounded(part["volume_ml"], 2),
        ]
        for value, part in parts.items()
    ]
    reporter.table(f"{output} ({seconds:.1f} s)", ("label", "triangles", "area mm²", "ml"), rows)


def _of_field(
    path: Path, params: Any, backend: str, threads: int | None
) -> tuple[dict[int, Any], dict[int, str]]:
    from napari_medgs.io.fields import load_field
    from napari_medgs.meshing.api import ISO_LABEL, mesh_from_field

    field = load_field(path)
    with naming(field=path):
        meshes = mesh_from_field(field, params, backend=backend, threads=threads)
    info = field.info
    if info.class_names:
        return meshes, dict(zip(info.label_values, info.class_names))
    return meshes, {ISO_LABEL: info.image_channels[params.channel]}


def _of_file(
    path: Path, params: Any, *, fill_nan: str | None, segments: Sequence[str], **reading: Any
) -> tuple[dict[int, Any], dict[int, str]]:
    from napari_medgs.errors import LabelError
    from napari_medgs.io import read_label_names, read_labels, read_volume
    from napari_medgs.io.labels import looks_like_image
    from napari_medgs.meshing.api import ISO_LABEL, mesh_from_image, mesh_from_labels

    if params.level is not None:
        volume = read_volume(path, fill_nan=fill_nan, **reading)
        with naming(image=path):
            meshes = mesh_from_image(volume.channel(0), volume.grid, params)
        return meshes, {ISO_LABEL: volume.channel_names[0]}
    try:
        labels, grid = read_labels(path, segments=segments, **reading)
    except LabelError as error:
        if "integers" in str(error):  # an image
            error.args = (f"{error} --level gives a surface at an intensity of an image.",)
        raise
    if params.labels is None and looks_like_image(labels):
        raise LabelError(
            f"{path}: looks like an image, not a mask: give --level for a surface at an "
            "intensity, or --labels for values that are labels."
        )
    with naming(mask=path):
        return mesh_from_labels(labels, grid, params), read_label_names(path)
