"""``napari-medgs parts``: an image in nested parts, or the part at a place."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medgs._util.naming import naming
from napari_medgs._util.settings import settings_of
from napari_medgs.cli.command import NOTHING, refuse_idle, stoppable
from napari_medgs.cli.field_inputs import is_field_alone, warn_of_mismatch
from napari_medgs.cli.option_groups import takes_groups
from napari_medgs.cli.options import (
    DebugOption,
    FieldOption,
    JsonOption,
    QuietOption,
    Reading,
    ResampleOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.places import WorldOption, place_point, read_numbers
from napari_medgs.cli.report import Reporter, check_output, rounded
from napari_medgs.cli.setting_options import takes_settings
from napari_medgs.hierarchy.params import PartParams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medgs.data.grid import Grid
    from napari_medgs.hierarchy import PartTree

EXAMPLES = (
    "napari-medgs parts scan.nii.gz -o parts.nii.gz --count 64",
    "napari-medgs parts scan.nii.gz -o spleen.nii.gz --at 40 60 80",
    "napari-medgs parts scan.nii.gz -o spleen.nii.gz --at 40 60 80 --level 5",
    "napari-medgs parts scan.medgs.safetensors -o spleen.nii.gz --at 40 60 80 --not-at 44 70 80",
)
"""Shown at the end of the help page."""
WHICH, FILES = "Which parts", "More files"
MOST_SHOWN = 20  # parts of a cut that are listed
PLACE = "Z Y X"


@takes_groups(reading=Reading)
@takes_settings(PartParams, tuple(settings_of(PartParams)))
def parts(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|FIELD...",
            help="As for fit; several are contrasts of one grid. Or one field, whose own image "
            "is divided.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PARTS.nii.gz",
            help="Label image of the cut, or mask of the part with value 1.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=2, metavar="K", help="Divide all of it into K parts.", rich_help_panel=WHICH
        ),
    ] = None,
    min_size: Annotated[
        float,
        typer.Option(
            min=0,
            max=0.5,
            metavar="F",
            help="Least size of a part of --count, as a fraction of the covered image.",
            rich_help_panel=WHICH,
        ),
    ] = 1e-3,
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar=PLACE,
            help="The part at a voxel, by its index in the stored file; the first voxel is 0. May "
            "be given several times: the part then holds all of them.",
            rich_help_panel=WHICH,
            show_default=False,
        ),
    ] = None,
    not_at: Annotated[
        list[str] | None,
        typer.Option(
            "--not-at",
            metavar=PLACE,
            help="A voxel that is not of the part of --at. May be given several times.",
            rich_help_panel=WHICH,
            show_default=False,
        ),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Which size of the part of --at, from 0, the smallest.",
            show_default="the part that stands out most",
            rich_help_panel=WHICH,
        ),
    ] = None,
    world: WorldOption = False,
    field: FieldOption = None,
    tree: Annotated[
        Path | None,
        typer.Option(
            metavar="TREE.json",
            help="Also write the tree: children, costs and sizes of all nodes.",
            rich_help_panel=FILES,
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.medgs.safetensors",
            help="Also write the field with its tree, which this command reads again at once.",
            rich_help_panel=FILES,
        ),
    ] = None,
    *,
    params: PartParams,
    reading: Reading,
    resample: ResampleOption = False,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Divide an image into nested parts, or find the part at a place, without training.

    Parts differ from their neighbors in the image; what they are is not known. Structures of low
    contrast or of few voxels are not found.
    """
    del debug  # read by the command class
    places = [("--at", text, read_numbers("--at", text, PLACE)) for text in at or ()]
    places += [("--not-at", text, read_numbers("--not-at", text, PLACE)) for text in not_at or ()]
    _check_options(output, count, places, level, world, tree, store)
    if count is None:
        refuse_idle(("--min-size",), "without --count")
    is_field_alone(images, field)
    reporter = Reporter(quiet, json_file)
    outputs = {"-o": output, "--tree": tree, "--store": store}
    check_distinct([*images, field], {**outputs, "--json": json_file}, masks=("-o",))
    from napari_medgs.io.dicom.reference import open_source
    from napari_medgs.io.formats import MASK_SUFFIXES, is_dicom_output

    suffixes = {"-o": MASK_SUFFIXES, "--tree": (".json",), "--store": (".safetensors",)}
    for option, path in outputs.items():
        if path is not None:
            check_output(path, suffixes[option])
    if output is not None and is_dicom_output(output):
        open_source(images[0], **reading.chosen)

    from napari_medgs.hierarchy import save_tree, write_tree_json
    from napari_medgs.io import write_labels
    from napari_medgs.io.fields import is_field_file

    started = time.perf_counter()

    def check_places(grid: Grid) -> None:
        """Refuse places outside of the image before any work is done."""
        for option, text, place in places:
            what = f"{option} {text}"
            place_point(grid, place, world=world, what=what, image=images[0])

    found = _make_tree(images, field, params, reading, resample, check_places, reporter)
    seconds = time.perf_counter() - started
    numbers: dict[str, Any] = {
        "seconds": seconds,
        "leaves": found.leaves,
        "n_gaussians": len(found.gaussian_leaf),
    }
    rows: list[tuple[str, Any]] = []
    labels = None
    if count is not None:
        labels = _cut(found, count, min_size, numbers, rows)
    elif places:
        labels = _part_at(found, places, level, world, images[0], numbers, rows)
    if output is not None and labels is not None:
        source = None if is_field_file(images[0]) else images[0]
        write_labels(output, labels, found.grid, source=source, **reading.chosen)
        numbers["output"] = str(output)
    if tree is not None:
        write_tree_json(tree, found)
        numbers["tree"] = str(tree)
    if store is not None:
        save_tree(store, found)
        numbers["store"] = str(store)
    reporter.finish(numbers, mask=output)
    rows.append(("time", f"{seconds:.1f} s for a tree of {found.leaves:,} cells"))
    reporter.pairs(str(output or tree or store), rows)


def _check_options(
    output: Path | None,
    count: int | None,
    places: list[tuple[str, str, list[float]]],
    level: int | None,
    world: bool,
    tree: Path | None,
    store: Path | None,
) -> None:
    """Refuse options that do not go together.

    Raises
    ------
    typer.BadParameter
        Saying what to leave out or to add.
    """
    if count is not None and places:
        raise typer.BadParameter("give either --count or --at.")
    if output is not None and count is None and not places:
        raise typer.BadParameter("-o needs --count K or --at Z Y X.")
    if output is None and (count is not None or places):
        raise typer.BadParameter("give -o, where the parts go.")
    if output is None and tree is None and store is None:
        raise typer.BadParameter("give -o with --count or --at, --tree, or --store.")
    if places and not any(option == "--at" for option, _, _ in places):
        raise typer.BadParameter("--not-at needs --at.")
    if level is not None and not places:
        raise typer.BadParameter("--level is for --at.")
    if world and not places:
        raise typer.BadParameter("--world is for --at and --not-at; give one.")


def _make_tree(
    images: list[str],
    field: Path | None,
    params: PartParams,
    reading: Reading,
    resample: bool,
    check: Callable[[Grid], None],
    reporter: Reporter,
) -> PartTree:
    """Read a tree from a field file that has one, or make it."""
    from napari_medgs.hierarchy import has_tree, load_tree, part_tree
    from napari_medgs.io import read_volumes
    from napari_medgs.io.fields import load_field

    plain = params == PartParams(threads=params.threads)
    if is_field_alone(images, field):
        own = load_field(images[0])
        check(own.info.grid)
        if plain and has_tree(images[0]):
            return load_tree(images[0], own)
        with naming(field=Path(images[0])), reporter.progress() as progress:
            return part_tree(own, params=params, progress=progress)
    known = None if field is None else load_field(field)
    with reporter.doing("reading"), naming(image=images):
        volume = read_volumes(images, **reading.options, resample=resample)
    check(volume.grid)
    if known is not None and field is not None:
        warn_of_mismatch(volume, images[0], known, field)
    with (
        naming(image=images, field=field),
        stoppable(NOTHING) as should_stop,
        reporter.progress() as progress,
    ):
        return part_tree(
            volume, field=known, params=params, progress=progress, should_stop=should_stop
        )


def _cut(
    tree: PartTree,
    count: int,
    min_size: float,
    numbers: dict[str, Any],
    rows: list[tuple[str, Any]],
) -> NDArray[Any]:
    """Return the label image of a cut; add its numbers and the rows to print."""
    cut = tree.cut(count, min_size)
    labels = cut.labels()
    sizes = _volumes(labels, tree.grid, len(cut))
    numbers["asked"] = count
    numbers["parts"] = [
        {"label": k + 1, "node": node, "volume_ml": sizes[k]} for k, node in enumerate(cut.nodes)
    ]
    rows += [(f"part {k + 1}", f"{rounded(size)} ml") for k, size in enumerate(sizes[:MOST_SHOWN])]
    if len(cut) > MOST_SHOWN:
        rows.append(("", f"and {len(cut) - MOST_SHOWN} more"))
    if len(cut) < count:
        rows.append(("note", f"--min-size {min_size:g} allows {len(cut)} parts"))
    return labels


def _part_at(
    tree: PartTree,
    places: list[tuple[str, str, list[float]]],
    level: int | None,
    world: bool,
    image: str,
    numbers: dict[str, Any],
    rows: list[tuple[str, Any]],
) -> NDArray[Any]:
    """Return the mask of the part at places; add its numbers and the rows to print."""
    voxels: dict[str, list[tuple[float, float, float]]] = {"--at": [], "--not-at": []}
    for option, text, place in places:
        what = f"{option} {text}"
        voxels[option].append(place_point(tree.grid, place, world=world, what=what, image=image))
    part = tree.at(*voxels["--at"], negative=voxels["--not-at"])
    if level is not None:
        if level >= len(part.levels):
            raise typer.BadParameter(
                f"--level {level}: the place has sizes 0 to {len(part.levels) - 1}."
            )
        part = part.at_level(level)
    mask = tree.mask(part.nodes)
    sizes = [sum(tree.milliliters(n) for n in nodes) for nodes in part.levels]
    volume, count = float(mask.sum() * tree.grid.voxel_volume / 1000), int(mask.sum())
    numbers.update(
        nodes=list(part.nodes),
        level=part.level,
        levels_ml=sizes,
        confidence=part.confidence,
        is_determined=part.is_determined,
        voxels=count,
        volume_ml=volume,
    )
    rows += [
        ("volume", f"{rounded(volume)} ml, {count:,} voxels"),
        ("size", f"level {part.level} of 0 to {len(part.levels) - 1}"),
        ("sizes", f"about {', '.join(_rounded(size) for size in sizes)} ml"),
        ("confidence", f"{part.confidence:.2f}, a weak hint"),
    ]
    return mask.astype("uint8")


def _rounded(milliliters: float) -> str:
    """Return three digits of a volume, as a person writes them."""
    return f"{milliliters:,.0f}" if milliliters >= 1000 else f"{milliliters:.3g}"


def _volumes(labels: Any, grid: Grid, count: int) -> list[float]:
    """Return the milliliters of labels 1 to ``count``."""
    import numpy as np

    voxels = np.bincount(labels.reshape(-1), minlength=count + 1)[1:]
    return [float(v) for v in voxels * grid.voxel_volume / 1000]
