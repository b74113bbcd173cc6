"""``napari-medgs render``: a field on a grid, as one file or as numbered frames."""

from __future__ import annotations

import itertools
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from napari_medgs._util.naming import naming
from napari_medgs.cli.command import refuse_idle
from napari_medgs.cli.options import (
    Backend,
    BackendOption,
    DebugOption,
    DeshearOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    ThreadsOption,
    VolumeOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output
from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, MemoryEstimateError, ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs.data.field import GaussianField


FRAME_CHANNELS = (1, 3)


class View(StrEnum):
    """Heads of a field."""

    image = "image"
    seg = "seg"
    probability = "probability"


def finer_grid(grid: Grid, axis: int, factor: int) -> Grid:
    """Return a grid with ``factor - 1`` new slices between every two along an axis.

    The existing slices keep their places; the in-plane grid is unchanged.

    Raises
    ------
    ParameterError
        When there is one slice only: nothing lies between.
    """
    if grid.shape[axis] < 2:
        raise ParameterError("The field has one slice: there is nothing between slices to render.")
    shape = list(grid.shape)
    shape[axis] = (shape[axis] - 1) * factor + 1
    affine = grid.affine.copy()
    affine[:3, axis] /= factor
    return Grid((shape[0], shape[1], shape[2]), affine)


def check_render_memory(grid: Grid, channels: int) -> None:
    """Refuse a rendering that would not fit into the free memory.

    Raises
    ------
    MemoryEstimateError
        Saying how much is needed and what would fit.
    """
    import psutil

    voxels = float(np.prod([float(n) for n in grid.shape]))
    needed = 4.0 * voxels * (2 * channels + 2)
    free = float(psutil.virtual_memory().available)
    if needed > 0.9 * free:
        shrink = (needed / (0.8 * free)) ** (1 / 3)
        spacing = " ".join(f"{s * shrink:.2g}" for s in grid.spacing)
        raise MemoryEstimateError(
            f"Rendering {' x '.join(map(str, grid.shape))} voxels needs about "
            f"{needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free. "
            f"With --spacing {spacing} it fits."
        )


EXAMPLES = (
    "napari-medgs render scan.medgs.safetensors -o scan.nii.gz",
    "napari-medgs render scan.medgs.safetensors --head seg --like t1.nii.gz -o mask.nii.gz",
    "napari-medgs render scan.medgs.safetensors --interp 4 -o frames/",
)
"""Shown at the end of the help page."""


def render(
    field: Annotated[
        Path, typer.Argument(metavar="FIELD", help="A .medgs.safetensors or .medgs file.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT.nii.gz|DIR",
            help="A NIfTI, NRRD or MHA file, or a new folder for one frame per slice.",
        ),
    ],
    head: Annotated[
        View,
        typer.Option(
            help="The image in its own units, the labels of the most probable class, or one "
            "probability per class."
        ),
    ] = View.image,
    like: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Render on the grid of an image.", show_default=False),
    ] = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(metavar="Z Y X", help="Render at these voxel sizes in mm."),
    ] = None,
    interp: Annotated[
        int | None,
        typer.Option(metavar="K", min=2, help="Render K - 1 new slices between every two."),
    ] = None,
    assume_identity: IdentityOption = False,
    deshear: DeshearOption = False,
    chosen_volume: VolumeOption = None,
    backend: BackendOption = Backend.auto,
    threads: ThreadsOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Render a field's image, labels or probabilities, on its own grid or any other."""
    del debug
    if sum(choice is not None for choice in (like, spacing, interp)) > 1:
        raise typer.BadParameter("choose one of --like, --spacing and --interp.")
    if like is None:
        refuse_idle(("--volume", "--assume-identity"), "without --like")
    reporter = Reporter(quiet, json_file)
    from napari_medgs.io.formats import WRITTEN_SUFFIXES, is_written
    from napari_medgs.io.image_stack import check_frames_folder
    from napari_medgs.io.itk.segments import is_segmentation

    one_file = is_written(output)
    check_output(output, WRITTEN_SUFFIXES if one_file else ())
    if not one_file:
        check_frames_folder(output)
    elif head != "seg" and is_segmentation(output):
        raise FileError(f"{output}: .seg.nrrd holds masks; write images as .nrrd.")
    is_mask = one_file and head == "seg"
    check_distinct(
        [field, like], {"-o": output, "--json": json_file}, masks=["-o"] if is_mask else []
    )
    from napari_medgs.data.shear import orthogonal_grid
    from napari_medgs.io import read_volume
    from napari_medgs.io.fields import load_info
    from napari_medgs.rendering import render as run
    from napari_medgs.rendering import render_labels

    info = load_info(field)
    grid = info.grid
    if like is not None:
        grid = read_volume(like, assume_identity=assume_identity, volume=chosen_volume).grid
    elif spacing is not None:
        grid = info.grid.with_spacing(spacing)
    elif interp is not None:
        grid = finer_grid(info.grid, info.slice_axis, interp)
    if deshear:
        grid = orthogonal_grid(grid)
    with naming(field=field):
        channels = len(info.image_channels if head == "image" else info.class_names)
        if not one_file and head != "seg" and channels not in FRAME_CHANNELS:
            raise ParameterError(
                f"The field has {channels} {'contrasts' if head == 'image' else 'classes'}, and "
                "frames hold 1 or 3; write a NIfTI file instead."
            )
        check_render_memory(grid, channels)
    source = _load_for(field, grid)
    started = time.perf_counter()
    with reporter.doing("rendering"), naming(field=field):
        if head == "seg":
            data: NDArray[Any] = render_labels(
                source, grid=grid, backend=backend.value, threads=threads
            )
        else:
            data = run(source, head.value, grid=grid, backend=backend.value, threads=threads)
    seconds = time.perf_counter() - started
    _write(output, data, grid, source, head, one_file=one_file)
    numbers = {
        "head": head.value,
        "shape": list(data.shape),
        "spacing": list(grid.spacing),
        "seconds": seconds,
        "backend": backend.value,
        "threads": threads,
        "output": str(output),
    }
    reporter.finish(numbers, mask=output if is_mask else None)
    size = " x ".join(map(str, data.shape[-3:]))
    steps = " x ".join(f"{s:.3g}" for s in grid.spacing)
    reporter.note(f"{output}: {head.value}, {size} voxels of {steps} mm, {seconds:.2f} s")


def _load_for(path: Path, grid: Grid) -> GaussianField:
    """Read a field, or of a compressed one the parts that reach into a grid."""
    from napari_medgs.io.fields import is_compressed_field, load_field, load_info

    if not is_compressed_field(path):
        return load_field(path)
    last = np.asarray(grid.shape) - 1
    corners = np.array(list(itertools.product(*((0, n) for n in last))), np.float64)
    voxels = load_info(path).grid.to_voxel(grid.to_world(corners))
    start, stop = voxels.min(axis=0) - 1, voxels.max(axis=0) + 2
    z, y, x = (float(n) for n in start)
    z1, y1, x1 = (float(n) for n in stop)
    return load_field(path, box=((z, y, x), (z1, y1, x1)))


def _write(
    output: Path,
    data: NDArray[Any],
    grid: Grid,
    field: GaussianField,
    head: View,
    *,
    one_file: bool,
) -> None:
    from napari_medgs.io import compact_labels, write_frames, write_image, write_labels

    info = field.info
    names = dict(zip(info.label_values, info.class_names))
    if head == "seg":
        if one_file:
            write_labels(output, data, grid, names)
        else:
            write_frames(output, compact_labels(data), grid)
    elif one_file:
        write_image(output, data, grid)
    else:
        write_frames(output, _as_frames(data, field) if head == "image" else data, grid)


def _as_frames(data: NDArray[Any], field: GaussianField) -> NDArray[Any]:
    """Return an image in the integer type of the frames that the field was fitted to, if any."""
    source = field.info.grid.source
    if source.get("kind") != "frames" or source.get("dtype") not in ("uint8", "uint16"):
        return data
    limits = np.iinfo(source["dtype"])
    return np.clip(np.rint(data), limits.min, limits.max).astype(limits.dtype)
