"""``napari-medgs convert``: an image or mask in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medgs.cli.options import (
    DebugOption,
    FillNanOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    SeriesOption,
    VoxelSizeOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs.data.grid import Grid


def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="IN", help="An image or mask of any format that fit reads."),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="A .nii.gz, .nii, .nrrd or .mha file; .seg.nrrd for masks."
        ),
    ],
    labels: Annotated[
        bool | None,
        typer.Option(
            "--as-labels/--as-image",
            help="Read the input as labels or as an image.",
            show_default="labels if it looks like a mask, as info tells",
        ),
    ] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(
            "--segment",
            metavar="NAME",
            help="Segments of a .seg.nrrd file to keep; may be given several times.",
            show_default="all",
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGE",
            help="The image that a mask belongs to: cropped segmentations are padded onto it.",
            show_default=False,
        ),
    ] = None,
    spacing: VoxelSizeOption = None,
    assume_identity: IdentityOption = False,
    fill_nan: FillNanOption = None,
    series: SeriesOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write an image or mask in another format.

    Voxel values, their place and the names of labels are kept; nothing is resampled.
    """
    del debug  # read by the command class
    from napari_medgs.io import read_volume, write_image, write_labels
    from napari_medgs.io.formats import WRITTEN_SUFFIXES, image_stem
    from napari_medgs.io.itk.segments import is_segmentation
    from napari_medgs.io.labels import as_mask

    if labels is False and (segment or like):
        raise typer.BadParameter("--segment and --like are for masks; leave out --as-image.")
    reporter = Reporter(quiet, json_file)
    check_output(output, WRITTEN_SUFFIXES)
    check_distinct([source, like], {"OUT": output, "--json": json_file})
    reading: dict[str, Any] = {"spacing": spacing, "assume_identity": assume_identity}
    if is_segmentation(output) and labels is None:
        labels = True
    with reporter.doing("converting"):
        if labels or segment or like or (labels is None and is_segmentation(source)):
            mask, grid, names, colors = _read_mask(source, like, segment or [], reading)
        else:
            volume = read_volume(source, series=series, fill_nan=fill_nan, **reading)
            found = None if labels is False else as_mask(volume, image_stem(source))
            if found is None:
                write_image(output, volume.data, volume.grid)
                _say(reporter, output, "image", volume.grid, {}, len(volume.data))
                return
            mask, grid = found, volume.grid
            names, colors = _names_of(source), {}
        write_labels(output, mask, grid, names, colors=colors)
    _say(reporter, output, "mask", grid, names, 1)


def _read_mask(
    source: str, like: str | None, segments: list[str], reading: dict[str, Any]
) -> tuple[NDArray[Any], Grid, dict[int, str], dict[int, tuple[float, float, float]]]:
    """Read labels with the names and colors that their file has."""
    from napari_medgs.io import read_labels, read_volume
    from napari_medgs.io.itk.segments import is_segmentation, read_segmentation

    grid = None if like is None else read_volume(like, **reading).grid
    if is_segmentation(source):
        mask, place, found = read_segmentation(source, grid, segments=segments, **reading)
        names = {segment.value: segment.name for segment in found}
        return mask, place, names, {segment.value: segment.color for segment in found}
    mask, place = read_labels(source, grid, segments=segments, **reading)
    return mask, place, _names_of(source), {}


def _names_of(source: str) -> dict[int, str]:
    """Return the names that lie beside a mask."""
    from napari_medgs.io import read_label_names

    return read_label_names(source) if Path(source).is_file() else {}


def _say(
    reporter: Reporter, output: Path, kind: str, grid: Grid, names: dict[int, str], channels: int
) -> None:
    """Report what was written."""
    reporter.finish(
        {
            "kind": kind,
            "output": str(output),
            "shape": list(grid.shape),
            "spacing": list(grid.spacing),
            "channels": channels,
            "label_names": {str(value): name for value, name in names.items()},
        },
        mask=output if kind == "mask" else None,
    )
    size = " x ".join(map(str, grid.shape))
    steps = " x ".join(f"{s:.3g}" for s in grid.spacing)
    reporter.note(f"{output}: {kind}, {size} voxels of {steps} mm")
