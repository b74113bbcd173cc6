"""The Typer application: which commands there are."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from napari_medgs import __version__
from napari_medgs.cli.command import MedGSCommand, console_safe_streams, hide_flag_types
from napari_medgs.cli.inputs import takes_inputs

COMMANDS: dict[str, str] = {
    "info": "Describe an image, mask, field, mesh, trained model or session.",
    "fit": "Fit folded Gaussians to images and, if given, a mask.",
    "fit-many": "Fit a field to each of many images, several at a time.",
    "segment": "Segment images from scribbles, points and boxes.",
    "parts": "Divide an image into nested parts, or find the part at a place, without training.",
    "tissues": "Divide an image into classes of intensity, without training.",
    "serve": "Serve interactive segmentation to 3D Slicer, napari and other programs.",
    "render": "Render a field's image, labels or probabilities, on its own grid or any other.",
    "mesh": "Make closed surfaces of labels, or of a field's classes at any resolution.",
    "compress": "Make a field a tenth of its size: lossy, for research, no archive of the image.",
    "decompress": "Write a compressed field as an exact one, for programs that read only these.",
    "pack": "Write all fields of a folder into one file, with tables that they share.",
    "unpack": "Write the fields of a cohort, or some of them, into a folder.",
    "evaluate": "Score segmentations: Dice, IoU, NSD, HD95, ASSD and volumes, per label and mean.",
    "measure": "Measure labels: volume, intensities, surface, diameters and number of pieces.",
    "convert": "Write an image or mask in another format.",
    "classify": "Print class probabilities. Research software: they are no diagnosis.",
    "train-segmenter": "Train a segmenter on images with masks.",
    "train-tissues": "Train a network that gives tissue classes, on images without labels.",
    "train-codec": "Train a codec for fields that are alike: an autoencoder on their parameters.",
    "train": "Train a classifier and score it once on the test split.",
    "evaluate-classifier": "Score a classifier on a labeled set: AUC and accuracy with intervals.",
    "sample": "Write small sample files to try the other commands on.",
    "demo": "Fit a volume with its mask, render, mesh, measure and picture the result.",
}
"""Every command's name and summary, in the order of the help page.

The first line of a command's docstring is its summary; here it stands again so that the help page
and shell completion load no command's module.
"""


class LazyGroup(TyperGroup):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command's name and summary; enough for help pages and completion."""
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is called, its module imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load_command(str(name)), rest

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters; flags show no type."""
        return hide_flag_types(super().get_params(ctx))


def load_command(name: str) -> Any:
    """Import a command's module and return the command.

    Parameters
    ----------
    name : str
        A key of :data:`COMMANDS`.

    Returns
    -------
    MedGSCommand
    """
    module = name.replace("-", "_")
    imported = import_module(f"napari_medgs.cli.{module}")
    function = takes_inputs(getattr(imported, module))
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(name, cls=MedGSCommand, epilog=_examples(imported))(function)
    return typer.main.get_command(single)


def _examples(module: ModuleType) -> str | None:
    """Return the end of a help page: the command's examples, a line each."""
    from rich.markup import escape

    examples = getattr(module, "EXAMPLES", ())
    # An empty line stands between paragraphs: the help page would join lines otherwise.
    return "\n\n".join(("[bold]Examples[/bold]", *map(escape, examples))) if examples else None


app = typer.Typer(
    name="napari-medgs",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"napari-medgs {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Medical images and masks as fields of folded Gaussians.

    Exit status: 0 done, 1 a failure explained in one line, 2 wrong usage, 130 canceled.
    """


def main() -> None:
    """Run the command line; ends the process with the exit status."""
    console_safe_streams()
    app(prog_name="napari-medgs")
