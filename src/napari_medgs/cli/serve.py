"""``napari-medgs serve``: interactive segmentation for 3D Slicer, napari, MITK and scripts."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_medgs.cli.options import DebugOption, QuietOption
from napari_medgs.errors import MissingPackageError

KEY_VARIABLE = "MEDGS_API_KEY"
EXAMPLES = (
    "napari-medgs serve --port 8000 --threads 4",
    "napari-medgs serve --host 0.0.0.0 --max-sessions 8",
)
"""Shown at the end of the help page."""
LIMITS = "Limits"


def serve(
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on. Any but the own machine's needs a key.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 takes a free one.")
    ] = 1527,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help=f"Key that clients must send. Others can read it in the list of processes: set "
            f"the environment variable {KEY_VARIABLE} instead.",
            show_default=False,
        ),
    ] = None,
    max_sessions: Annotated[
        int,
        typer.Option(
            min=1, max=1000, metavar="N", help="Clients at once.", rich_help_panel=LIMITS
        ),
    ] = 4,
    idle_timeout: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="S",
            help="End a session after so many seconds without an action of its user.",
            rich_help_panel=LIMITS,
        ),
    ] = 600.0,
    max_body: Annotated[
        int,
        typer.Option(
            min=1, metavar="MB", help="Largest body of a request, packed.", rich_help_panel=LIMITS
        ),
    ] = 2000,
    max_voxels: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Most voxels of an image.", rich_help_panel=LIMITS),
    ] = 300_000_000,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="MODEL.safetensors",
            help="A trained segmenter: a first click on one of its classes takes what it found "
            "there. The clients' images must lie as those that it was trained on.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="CPU threads of one session.",
            show_default="all CPUs",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Serve interactive segmentation to 3D Slicer, napari and other programs.

    It speaks the nnInteractive protocol, without weights and on a CPU: type its address there.
    Research software, no medical device.
    """
    key = os.environ.get(KEY_VARIABLE, "") if api_key is None else api_key
    make, warm_up = _load()
    from napari_medgs.server.settings import ServerSettings

    settings = ServerSettings(
        host=host,
        port=port,
        api_key=key,
        max_sessions=max_sessions,
        idle_timeout=idle_timeout,
        max_body_mb=max_body,
        max_voxels=max_voxels,
        threads=threads,
    )
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it tells bytes of bodies
    if debug:
        logging.getLogger("napari_medgs").setLevel(logging.DEBUG)
    network = None
    if model is not None:
        from napari_medgs.learning import load_segmenter

        network = load_segmenter(model)
    server = make(settings, network)
    if not quiet:
        typer.echo("Compiling what a first prompt needs; at once where that was done before ...")
    warm_up(threads)
    address = server.listen()
    if not quiet:
        typer.echo(
            f"Listening on {address}, {'with' if key else 'without'} a key. Ctrl+C ends it."
        )
    try:
        server.run()
    except KeyboardInterrupt:  # the server has ended its sessions by then
        if not quiet:
            typer.echo("Ended.")


def _load() -> tuple[Any, Any]:
    """Return the server's class and what prepares it.

    Raises
    ------
    MissingPackageError
        With the pip command.
    """
    try:
        import blosc2  # noqa: F401
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'serve needs {error.name}, which is not installed: pip install "napari-medgs[serve]"'
        ) from None
    from napari_medgs.server.app import Server, warm_up

    return Server, warm_up
