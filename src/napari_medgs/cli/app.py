"""The Typer application: which commands there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from napari_medgs import __version__
from napari_medgs.cli import (
    classify,
    demo,
    evaluate,
    evaluate_classifier,
    fit,
    fit_many,
    info,
    mesh,
    render,
    segment,
    train,
)
from napari_medgs.cli.command import MedGSCommand

COMMANDS: dict[str, Callable[..., Any]] = {
    "info": info.info,
    "fit": fit.fit,
    "fit-many": fit_many.fit_many,
    "segment": segment.segment,
    "render": render.render,
    "mesh": mesh.mesh,
    "evaluate": evaluate.evaluate,
    "classify": classify.classify,
    "train": train.train,
    "evaluate-classifier": evaluate_classifier.evaluate_classifier,
    "demo": demo.demo,
}
"""Every command's name and function, in the order of the help page."""

app = typer.Typer(
    name="napari-medgs",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _function in COMMANDS.items():
    app.command(_name, cls=MedGSCommand)(_function)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"napari-medgs {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """Medical images and masks as fields of folded Gaussians.

    Exit status: 0 done, 1 a failure explained in one line, 2 wrong usage, 130 cancelled.
    """


def main() -> None:
    """Run the command line; ends the process with the exit status."""
    app(prog_name="napari-medgs")
