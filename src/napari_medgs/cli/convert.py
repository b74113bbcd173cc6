"""``napari-medgs convert``: an image or mask in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medgs.cli.options import (
    DebugOption,
    DeshearOption,
    FillNanOption,
    IdentityOption,
    JsonOption,
    QuietOption,
    ResampleOption,
    SegmentsOption,
    SeriesOption,
    VolumeOption,
    VoxelSizeOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs.data.grid import Grid
    from napari_medgs.io.segmented import LabelTable

EXAMPLES = (
    "napari-medgs convert scan.mha scan.nii.gz",
    "napari-medgs convert -i mask.seg.nrrd -o mask.nii.gz --like scan.nii.gz",
)
"""Shown at the end of the help page."""


def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="IN", help="An image or mask of any format that fit reads."),
    ],
    output: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="A .nii.gz, .nii, .nrrd or .mha file; for masks also .seg.nrrd, .dcm (DICOM "
            "segmentation) or .rtstruct.dcm (contours), which need --like.",
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
    segment: SegmentsOption = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGE",
            help="The image that a mask belongs to: cropped segmentations are padded onto it, "
            "contours filled on it. For .dcm, its DICOM series (--series then chooses there).",
            show_default=False,
        ),
    ] = None,
    spacing: VoxelSizeOption = None,
    assume_identity: IdentityOption = False,
    deshear: DeshearOption = False,
    fill_nan: FillNanOption = None,
    resample: ResampleOption = False,
    series: SeriesOption = None,
    chosen_volume: VolumeOption = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write an image or mask in another format.

    Voxel values, their place and the names of labels are kept; nothing is resampled, unless
    --deshear or, for masks, --resample with --like asks for it.
    """
    del debug  # read by the command class
    from napari_medgs.data.resampling import resample_labels
    from napari_medgs.data.shear import deshear as straighten
    from napari_medgs.data.shear import deshear_labels
    from napari_medgs.io import read_volume, write_image, write_labels
    from napari_medgs.io.formats import MASK_SUFFIXES, image_stem, is_dicom_output
    from napari_medgs.io.itk.segments import is_segmentation
    from napari_medgs.io.labels import as_mask
    from napari_medgs.io.segmented import LabelTable, has_segments

    if resample and like is None:
        raise typer.BadParameter("--resample brings a mask onto an image: name it with --like.")
    if labels is False and (segment or like):
        raise typer.BadParameter("--segment and --like are for masks; leave out --as-image.")
    reporter = Reporter(quiet, json_file)
    check_output(output, MASK_SUFFIXES)
    check_distinct([source, like], {"OUT": output, "--json": json_file})
    as_dicom = is_dicom_output(output)
    if as_dicom and like is None:
        raise typer.BadParameter(f"{output.name} lies on a DICOM series: name it with --like.")
    if as_dicom and labels is False:
        raise typer.BadParameter("images are not written as DICOM; leave out --as-image.")
    if as_dicom and deshear:
        raise typer.BadParameter("a .dcm mask lies on its series; leave out --deshear.")
    reading: dict[str, Any] = {"spacing": spacing, "assume_identity": assume_identity}
    if labels is None and (is_segmentation(output) or as_dicom):
        labels = True
    with reporter.doing("converting"):
        if labels or segment or like or (labels is None and has_segments(source)):
            target = None
            if like is not None:
                read = {**reading, "volume": chosen_volume}
                target = read_grid(like, series, read, slices=as_dicom)
            # A DICOM mask is placed on its series when it is written.
            onto = target if has_segments(source) or not as_dicom else None
            onto = None if resample else onto
            mask, grid, table = _read_mask(
                source,
                onto,
                segment or [],
                {**reading, "series": None if like else series},
                None if like else chosen_volume,
            )
            if resample and target is not None:
                mask = resample_labels(mask, grid, target, name=f"{source}: the mask")
                grid = target
        else:
            volume = read_volume(
                source, series=series, volume=chosen_volume, fill_nan=fill_nan, **reading
            )
            found = None if labels is False else as_mask(volume, image_stem(source))
            if found is None:
                volume = straighten(volume) if deshear else volume
                write_image(output, volume.data, volume.grid)
                _say(reporter, output, "image", volume.grid, {}, len(volume.data))
                return
            mask, grid, table = found, volume.grid, LabelTable(_names_of(source))
        if deshear:
            mask, grid = deshear_labels(mask, grid)
        write_labels(
            output,
            mask,
            grid,
            table.names,
            colors=table.colors,
            codes=table.codes,
            source=like if as_dicom else None,
            series=series if as_dicom else None,
            volume=chosen_volume if as_dicom else None,
        )
    _say(reporter, output, "mask", grid, table.names, 1)


def read_grid(path: str, series: str | None, reading: dict[str, Any], *, slices: bool) -> Grid:
    """Return the grid of an image; ``slices`` asks for that of a DICOM series."""
    from napari_medgs.io import read_volume
    from napari_medgs.io.dicom.reference import open_source

    if slices:
        return open_source(path, series=series, volume=reading["volume"]).grid
    return read_volume(path, series=series, **reading).grid


def _read_mask(
    source: str,
    target: Grid | None,
    segments: list[str],
    reading: dict[str, Any],
    number: int | None,
) -> tuple[NDArray[Any], Grid, LabelTable]:
    """Read labels with the names, colors and codes that their file has."""
    from napari_medgs.io import as_labels, read_labels, read_volume
    from napari_medgs.io.segmented import LabelTable, has_segments, read_segmented

    series = reading.pop("series")
    if has_segments(source):
        return read_segmented(source, target, segments=segments, **reading)
    if series is not None:
        volume = read_volume(source, series=series, volume=number, **reading)
        return as_labels(volume.data[0], f"{source}: the mask"), volume.grid, LabelTable()
    mask, place = read_labels(source, target, segments=segments, volume=number, **reading)
    return mask, place, LabelTable(_names_of(source))


def _names_of(source: str) -> dict[int, str]:
    """Return the names that lie beside a mask."""
    from napari_medgs.io import read_label_names
    from napari_medgs.io.ome_zarr.opening import is_ome_zarr

    return read_label_names(source) if Path(source).is_file() or is_ome_zarr(source) else {}


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
