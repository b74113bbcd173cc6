"""Options that several commands share, with one name, meaning and help text each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_medgs._util.settings import LARGEST_SEED
from napari_medgs.cli.command import COMMON, READING

OF_IMAGES = ("--spacing", "--series", "--volume", "--segment")
"""Options that say how an image is read, and say nothing to a command without one."""


class Backend(StrEnum):
    """Rendering engines."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    gsplat = "gsplat"
    reference = "reference"


JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Write the numbers of the result to a JSON file; - prints them instead of text.",
        rich_help_panel=COMMON,
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print failures and warnings only.", rich_help_panel=COMMON
    ),
]
DebugOption = Annotated[
    bool,
    typer.Option("--debug", help="Show tracebacks and all warnings.", rich_help_panel=COMMON),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        max=LARGEST_SEED,
        help="Seed of all random choices.",
        rich_help_panel=COMMON,
    ),
]
BackendOption = Annotated[
    Backend,
    typer.Option(
        "--backend",
        "--device",
        help="Rendering engine; auto: a CUDA GPU if there is one, else the CPU.",
        rich_help_panel=COMMON,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        help="CPU threads to use.",
        show_default="all CPUs",
        rich_help_panel=COMMON,
    ),
]
VoxelSizeOption = Annotated[
    tuple[float, float, float] | None,
    typer.Option(
        "--spacing",
        metavar="Z Y X",
        help="Voxel size in mm, for frames and files without one.",
        rich_help_panel=READING,
    ),
]
IdentityOption = Annotated[
    bool,
    typer.Option(
        "--assume-identity",
        help="Accept a file without a usable affine; its axes are taken in file order.",
        rich_help_panel=READING,
    ),
]
FieldOption = Annotated[
    Path | None,
    typer.Option(
        "--field",
        metavar="FIELD",
        help="The field of the images, if there is one; fitted otherwise.",
        show_default=False,
    ),
]
FillNanOption = Annotated[
    str | None,
    typer.Option(
        "--fill-nan",
        metavar="VALUE",
        help="What stands for NaN: a number, or background (0, or the lowest value of an image "
        "with negative ones).",
        rich_help_panel=READING,
    ),
]
DeshearOption = Annotated[
    bool,
    typer.Option(
        "--deshear",
        help="Resample the slices of a tilted gantry onto perpendicular axes, so that ITK "
        "programs (3D Slicer, ITK-SNAP) open the result; labels by the nearest voxel.",
        rich_help_panel=READING,
    ),
]
ResampleOption = Annotated[
    bool,
    typer.Option(
        "--resample",
        help="Bring masks and prompts of another grid onto the image's voxels, by the nearest "
        "label, and further contrasts and probabilities linearly; they are refused otherwise.",
        rich_help_panel=READING,
    ),
]
VolumeOption = Annotated[
    int | None,
    typer.Option(
        "--volume",
        metavar="N",
        min=1,
        help="Which volume of a file with several (time points, directions), from 1. A fourth "
        "axis of up to six entries is read as contrasts unless the file says time.",
        show_default=False,
        rich_help_panel=READING,
    ),
]
SegmentsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--segment",
        metavar="NAME",
        help="Segments to read of a .seg.nrrd file or DICOM mask; may be given several times.",
        show_default="all",
        rich_help_panel=READING,
    ),
]
SeriesOption = Annotated[
    str | None,
    typer.Option(
        "--series",
        metavar="UID|NUMBER",
        help="Which DICOM series of several; 2.1 is the first volume (time point, echo) of the "
        "second series. The command info lists them.",
        rich_help_panel=READING,
    ),
]


@dataclass(frozen=True)
class Reading:
    """How images are read: the options of :func:`~napari_medgs.io.read_volumes`."""

    spacing: VoxelSizeOption = None
    assume_identity: IdentityOption = False
    fill_nan: FillNanOption = "background"
    series: SeriesOption = None
    volume: VolumeOption = None

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of :func:`~napari_medgs.io.read_volumes`."""
        return dict(vars(self))

    @property
    def chosen(self) -> dict[str, Any]:
        """Which series and volume was read, as writers of DICOM masks take them."""
        return {"series": self.series, "volume": self.volume}
