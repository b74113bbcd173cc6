"""``napari-medgs train-tissues``: a network for tissue classes, from images without labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_medgs._util.naming import naming
from napari_medgs._util.settings import settings_of
from napari_medgs.cli.command import NOTHING, stoppable
from napari_medgs.cli.options import DebugOption, JsonOption, QuietOption
from napari_medgs.cli.outputs import check_distinct, files_of
from napari_medgs.cli.report import Reporter, check_output
from napari_medgs.cli.setting_options import takes_settings
from napari_medgs.tissue.deep.card import SUFFIX
from napari_medgs.tissue.deep.params import TissueTrainParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_medgs.data.volume import Volume

EXAMPLES = (
    "napari-medgs train-tissues t1-images/ -o brain-tissues.safetensors --classes 3",
    "napari-medgs train-tissues cases.csv -o heart.safetensors --classes 4 --architecture unet",
)
"""Shown at the end of the help page."""


@takes_settings(TissueTrainParams, tuple(settings_of(TissueTrainParams)))
def train_tissues(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|LIST",
            help="Images, as for fit-many: a folder, or a list whose column image has several "
            "contrasts joined by ';'. A column mask bounds where the network learns.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="MODEL", help="The network to write.")
    ],
    *,
    params: TissueTrainParams,
    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="GLOB", help="Which files of a folder.", show_default="all images in it"
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="A mask of every image, relative to it, such as '../masks/{file}': the network "
            "learns only where it is not 0.",
            show_default=False,
        ),
    ] = None,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train a network that gives tissue classes, on images without labels.

    The network learns the likelihood of a mixture. It brings speed, and classes with the same
    numbers in all images like those it was trained on; no better masks than the command tissues
    without it.
    """
    del debug
    check_output(output, (SUFFIX,))
    check_distinct([folder], {"-o": output, "--json": json_file})
    reporter = Reporter(quiet, json_file)

    from napari_medgs._optional import require
    from napari_medgs.io import read_labels, read_volumes
    from napari_medgs.io.cases import contrast_names, find_cases
    from napari_medgs.tissue import save_tissue_network
    from napari_medgs.tissue import train_tissues as run

    require("torch", "torch_geometric", "lightning", feature="train-tissues")
    cases = find_cases(folder, pattern=pattern, mask=mask)
    check_distinct(files_of(cases), {"--json": json_file})
    images: list[Volume] = []
    regions: list[NDArray[np.bool_] | None] = []
    for case in cases:
        with naming(image=list(case.images)):
            volume = read_volumes(list(case.images))
        known = contrast_names(case.images, volume.channel_names)
        images.append(replace(volume, channel_names=known))
        if case.mask is None:
            regions.append(None)
        else:
            regions.append(read_labels(case.mask, like=images[-1].grid)[0] != 0)
    names = [case.name for case in cases]
    with stoppable(NOTHING) as should_stop, reporter.progress() as progress:
        trained = run(
            images, params, names=names, regions=regions,
            progress=progress, should_stop=should_stop,
        )  # fmt: skip
    save_tissue_network(output, trained)
    card = trained.card
    reporter.finish({**card.to_dict(), "output": str(output)})
    rows = [
        ("network", f"{card.architecture}, {card.loss} mixture, {card.classes} classes"),
        ("images", f"{len(cases)}, {card.contrasts} contrast{'s' * (card.contrasts > 1)}"),
        ("loss", f"{card.loss_value:.4f} per voxel"),
        ("time", f"{card.seconds:.1f} s for {card.steps} steps"),
    ]
    reporter.pairs(str(output), rows)
