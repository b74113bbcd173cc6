"""What all commands share: options, failures in one line, exit status, canceling."""

from __future__ import annotations

import io
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from typer.core import TyperCommand

from napari_medgs._optional import pip_name
from napari_medgs._text import printable
from napari_medgs._util.threads import limit_threads
from napari_medgs.cli.inputs import InputParser
from napari_medgs.cli.places import join_places
from napari_medgs.cli.words import (
    present_name,
    refuse_empty_words,
    refuse_model_as_network,
    spread_lists,
)
from napari_medgs.errors import Cancelled, MedGSError

FAILED, CANCELLED = 1, 130
COMMON, READING = "Common options", "Reading images"


def hide_flag_types(params: Any) -> Any:
    """Let flags show no ``<bool>`` on help pages."""
    for param in params:
        if getattr(param, "is_flag", False) and param.metavar is None:
            param.metavar = ""
    return params


def console_safe_streams() -> None:
    """Let output never fail on a console that lacks a character, or where there is none.

    Characters are replaced. A program that was started with closed streams has none.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.StringIO())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class MedGSCommand(TyperCommand):
    """A command whose failures are one line on stderr and an exit status."""

    def get_params(self, ctx: Any) -> Any:
        """Return the parameters, those that all commands share last; flags show no type."""
        params = hide_flag_types(super().get_params(ctx))
        for param in params:
            if param.name == "help":
                param.rich_help_panel = COMMON
        return sorted(params, key=lambda p: getattr(p, "rich_help_panel", None) == COMMON)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line: ``[OPTIONS] IMAGE...``."""
        arguments = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        names = [p.metavar or p.name.upper() for p in arguments]
        return [self.options_metavar or "", *names]

    def make_parser(self, ctx: Any) -> Any:
        """Return the parser of the words; inputs may be given as options, too."""
        arguments = [
            (str(p.name), int(p.nargs)) for p in self.params if p.param_type_name == "argument"
        ]
        parser = super().make_parser(ctx)
        return parser if ctx.resilient_parsing else InputParser(parser, arguments)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, lists written the short way and earlier names included."""
        options = {name for param in self.params for name in param.opts}
        refuse_empty_words(args)
        refuse_model_as_network(args, options)
        words = [present_name(word, options) for word in args]
        words = join_places(spread_lists(words), options)
        rest: list[str] = super().parse_args(ctx, words)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        debug = bool(ctx.params.get("debug", False))
        _given.set(_given_options(ctx))
        from napari_medgs.io._atomic import noting_writes

        with (
            noting_writes() as written,
            _explained(debug, _options_of(self.params), written),
            _plain_warnings(debug),
            _interrupts(),
            limit_threads(ctx.params.get("threads")),
        ):
            return super().invoke(ctx)


def refuse_idle(options: Iterable[str], where: str) -> None:
    """Refuse options that were given and have no effect beside the others.

    Parameters
    ----------
    options : iterable of str
        Such as ``"--positions-every"``.
    where : str
        When they have none: "without --positions".

    Raises
    ------
    typer.BadParameter
        Naming those that were given.
    """
    idle = [option for option in options if option in _given.get()]
    if idle:
        words = ("has", "it") if len(idle) == 1 else ("have", "them")
        raise typer.BadParameter(
            f"{' and '.join(idle)} {words[0]} no effect {where}: leave {words[1]} out."
        )


def _given_options(ctx: Any) -> frozenset[str]:
    """Return the options of a command line by all of their names."""
    return frozenset(
        name
        for param in ctx.command.params
        if param.param_type_name == "option"
        and getattr(ctx.get_parameter_source(param.name), "name", "") == "COMMANDLINE"
        for name in param.opts
    )


def print_error(text: str) -> None:
    """Print one line on stderr, whatever line breaks the text has.

    What a reader advises is said with the options of the command that runs.
    """
    text = _with_options(" ".join(text.split()), _reading.get())
    typer.echo(f"napari-medgs: {printable(text)}", err=True)


def missing_package(error: Exception) -> str | None:
    """Return the name to install, if an error is about a package that cannot be imported.

    Parameters
    ----------
    error : Exception

    Returns
    -------
    str or None
        None for other errors, and for modules of this package or of Python itself.
    """
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    module = error.name.partition(".")[0]
    if module == "napari_medgs" or module in sys.stdlib_module_names:
        return None
    return pip_name(module)


_ADVICE = {
    "give the spacing (z, y, x) in mm": "give the spacing in mm by --spacing Z Y X",
    "Give the spacing in mm, or allow an assumed identity orientation.": (
        "Give the spacing in mm by --spacing Z Y X, or allow an assumed identity orientation by "
        "--assume-identity."
    ),
}
"""What readers advise, and the options by which a command takes the advice."""
_CONVERT = {
    "give the spacing (z, y, x) in mm": (
        "give it one first, by napari-medgs convert IN OUT --spacing Z Y X"
    ),
    "Give the spacing in mm, or allow an assumed identity orientation.": (
        "Give it one first, by napari-medgs convert IN OUT --spacing Z Y X, or allow an assumed "
        "identity orientation by --assume-identity."
    ),
}
"""How to take the advice where ``--spacing`` of a command means something else."""
_RESAMPLE = re.compile(r" (For a mask, )?resample=True \(--resample\) does that\.")
_reading: ContextVar[Collection[str]] = ContextVar("_reading", default=())
"""Options of the command that runs which say where an image lies."""
_MOST = 4  # outputs that a message names
NOTHING = "nothing"
"""What a command keeps that writes its outputs in the end."""
_interrupted = threading.Event()
_given: ContextVar[frozenset[str]] = ContextVar("_given", default=frozenset())
"""Options that stand on the command line of the command that runs."""


def _options_of(params: Collection[Any]) -> set[str]:
    """Return the options of a command that say where an image lies."""
    return {str(p.opts[0]) for p in params if getattr(p, "rich_help_panel", None) == READING}


def _with_options(text: str, options: Collection[str]) -> str:
    """Name in the advice of a reader the options that take it, of this command or another."""
    if "--assume-identity" in options:
        for advice, named in (_ADVICE if "--spacing" in options else _CONVERT).items():
            text = text.replace(advice, named)
    return _RESAMPLE.sub(r" \1--resample does that." if "--resample" in options else "", text)


def _canceled(written: Sequence[Path]) -> str:
    """Return what to say of an interrupted command, whose outputs are complete or absent."""
    if not written:
        return "canceled; nothing was written."
    more = f" and {len(written) - _MOST} more" if len(written) > _MOST else ""
    return f"canceled; written before: {', '.join(map(str, written[:_MOST]))}{more}."


@contextmanager
def _explained(
    debug: bool, options: Collection[str], written: Callable[[], Sequence[Path]]
) -> Iterator[None]:
    """Turn exceptions into one line on stderr and an exit status; show them all in debug."""
    before = _reading.set(options)
    try:
        yield
    except (KeyboardInterrupt, Cancelled) as error:
        if debug:
            raise
        print_error(str(error) or _canceled(written()))
        raise typer.Exit(CANCELLED) from None
    except MedGSError as error:
        if debug:
            raise
        print_error(str(error))
        raise typer.Exit(FAILED) from None
    except MemoryError:
        if debug:
            raise
        print_error("out of memory. Crop or downsample the image, or close other programs.")
        raise typer.Exit(FAILED) from None
    except OSError as error:
        if debug or isinstance(error, BrokenPipeError):
            raise
        print_error(f"{error.filename or 'file system'}: {error.strerror or error}.")
        raise typer.Exit(FAILED) from None
    except Exception as error:
        # Exit, Abort and usage errors belong to the parser.
        if debug or type(error).__module__.startswith(("click", "typer")):
            raise
        missing = missing_package(error)
        if missing is not None:
            print_error(f"this needs {missing}, which is not installed: pip install {missing}")
            raise typer.Exit(FAILED) from None
        print_error(
            f"unexpected {type(error).__name__}: {error}. This is a bug: run it again with "
            "--debug and report what that prints."
        )
        raise typer.Exit(FAILED) from None
    finally:
        _reading.reset(before)


@contextmanager
def _plain_warnings(debug: bool) -> Iterator[None]:
    """Show warnings meant for users as one line each, others in debug only."""

    def show(
        message: Any, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
    ) -> None:
        if debug:
            text = warnings.formatwarning(message, category, filename, lineno)
            typer.echo(printable(text, lines=True), err=True)
        elif category is UserWarning:
            print_error(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


@contextmanager
def _handling(number: int, handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Handle a signal within the block; only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def _interrupts() -> Iterator[None]:
    """Let a job scheduler's SIGTERM clean up as Ctrl-C does, and remember both.

    A library that is being imported may swallow the exception, as trimesh does.
    """
    _interrupted.clear()

    def interrupt(number: int, frame: FrameType | None) -> None:
        _interrupted.set()
        raise KeyboardInterrupt

    with _handling(signal.SIGINT, interrupt), _handling(signal.SIGTERM, interrupt):
        yield


def check_interrupted() -> None:
    """End a command that was interrupted before, when nothing came of it.

    Raises
    ------
    KeyboardInterrupt
    """
    if _interrupted.is_set():
        raise KeyboardInterrupt


@contextmanager
def stoppable(what: str) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C (or SIGTERM) in the block ask for an early end, the second abort it.

    Parameters
    ----------
    what : str
        What is kept after the first one, for the message.

    Yields
    ------
    callable
        Returns True once the user has asked to stop.

    Raises
    ------
    KeyboardInterrupt
        At the second signal; at the end of the block where the first came too late for the work
        to stop, but nothing is to be kept.
    """
    check_interrupted()
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        # Not print(): the signal may have come in the middle of one.
        sys.stderr.flush()
        print_error(f"stopping; {what} is kept. Once more to abort.")

    with _handling(signal.SIGINT, ask), _handling(signal.SIGTERM, ask):
        yield asked.is_set
    if asked.is_set() and what == NOTHING:
        raise KeyboardInterrupt
