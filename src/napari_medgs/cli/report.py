"""Output of commands: progress, notes, tables and a JSON file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from napari_medgs._text import printable
from napari_medgs._util.progress import ProgressCallback, ProgressEvent
from napari_medgs.cli.command import check_interrupted
from napari_medgs.errors import FileError

LINE_SECONDS = 10.0  # between lines of progress where there is no terminal
COUNTED = ("images", "cases", "fields")  # stages of which the bar says how many are done


def check_output(path: Path, suffixes: Sequence[str] = ()) -> None:
    """Refuse an output that cannot be written, before any work is done.

    Parameters
    ----------
    path : Path
    suffixes : sequence of str
        Suffixes that are allowed; any when empty.

    Raises
    ------
    FileError
        When it cannot be written; the message says why.
    """
    if path == Path("-"):
        raise FileError("-: results are not written to the standard output; name a file.")
    if suffixes and not str(path).lower().endswith(tuple(suffixes)):
        *others, last = suffixes
        endings = f"{', '.join(others)} or {last}" if others else last
        raise FileError(f"{path}: the name of this output must end in {endings}.")
    from napari_medgs.io.folders import check_folder_of, is_stream, link_target

    if is_stream(path):
        if not os.access(path, os.W_OK):
            raise FileError(f"{path}: cannot be written to.")
        return
    check_folder_of(link_target(path))
    if suffixes and path.is_dir():
        raise FileError(f"{path}: is a folder; choose another name for the file.")


class Reporter:
    """Prints what a command does and writes its metrics.

    Parameters
    ----------
    quiet : bool
        Print nothing.
    json_file : Path, optional
        Where :meth:`finish` writes the numbers. Checked at once. With ``-`` they are all that is
        printed.
    """

    def __init__(self, quiet: bool = False, json_file: Path | None = None) -> None:
        self.printed = json_file == Path("-")
        self.quiet, self.json_file = quiet or self.printed, json_file
        if json_file is not None and not self.printed:
            check_output(json_file)
            if json_file.is_dir():
                raise FileError(f"{json_file}: is a folder; --json needs a file.")

    def note(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            typer.echo(printable(text, lines=True))

    def pairs(self, title: str, rows: Iterable[tuple[str, Any]]) -> None:
        """Print names with values."""
        title = printable(title)
        shown = [(printable(name), printable(value)) for name, value in rows if value is not None]
        if self.quiet:
            return
        if not sys.stdout.isatty():
            typer.echo(title)
            width = max((len(name) for name, _ in shown), default=0)
            for name, value in shown:
                typer.echo(f"  {name:<{width}}  {value}")
            return
        self.table(title, ("", ""), shown, header=False)

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        header: bool = True,
    ) -> None:
        """Print a table; columns after the first are set flush right when they have a header."""
        if self.quiet:
            return
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=box.SIMPLE_HEAD if header else box.SIMPLE,
            show_header=header,
            header_style="dim",
        )
        for k, column in enumerate(columns):
            right = k > 0 and header
            table.add_column(
                Text(printable(column)),
                justify="right" if right else "left",
                style="cyan" if k == 0 else "",
                no_wrap=right or (not header and k == 0),
            )
        for row in rows:
            table.add_row(*[Text(printable(cell)) for cell in row])
        # Files and pipes have no width to fit into.
        console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
        console.print(Text(printable(title), style="bold"))
        console.print(table)

    @contextmanager
    def progress(self) -> Iterator[ProgressCallback]:
        """Yield a callback that shows progress: a bar on a terminal, a few lines elsewhere."""
        if self.quiet:
            yield lambda event: None
        elif sys.stderr.isatty():
            with _bar() as show:
                yield show
        else:
            yield _Lines()

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show that something without progress of its own is under way."""
        if self.quiet or not sys.stderr.isatty():
            yield
        else:
            from rich.console import Console

            with Console(stderr=True).status(what):
                yield
        check_interrupted()

    def finish(self, numbers: Mapping[str, Any], mask: Path | None = None) -> None:
        """Write the numbers to the JSON file, if one was asked for.

        Parameters
        ----------
        numbers : mapping
        mask : Path, optional
            A mask just written: if the file for the numbers is also the one that has its label
            names, they stay in it.
        """
        if self.json_file is None:
            return
        from napari_medgs.io import read_label_names
        from napari_medgs.io.json_files import json_text, write_json
        from napari_medgs.io.label_names import sidecar_path

        if self.printed:
            typer.echo(json_text(numbers), nl=False)
            return

        if mask is not None and os.path.realpath(sidecar_path(mask)) == os.path.realpath(
            self.json_file
        ):
            numbers = {"labels": read_label_names(mask), **numbers}
        write_json(self.json_file, numbers)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 field", "2,000 fields"."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names in one line, of many the first.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def label_title(value: int | str, names: Mapping[int, str]) -> str:
    """Return a label's value with its name, if it has one of its own."""
    name = names.get(int(value))
    return str(value) if name in (None, f"label {value}") else f"{value} {name}"


def rounded(value: float, decimals: int = 3) -> str:
    """Return a number with fixed decimals, or three digits where these would leave fewer than two.

    Cells under a microscope have their volume in milliliters, too.

    Examples
    --------
    >>> rounded(29.3054), rounded(0.0123), rounded(4.1462e-4), rounded(2.1458e-14), rounded(0.0)
    ('29.305', '0.012', '0.000415', '2.15e-14', '0.000')
    >>> rounded(4886.2, 0), rounded(1.234, 0)
    ('4,886', '1.23')
    """
    fixed = f"{value:,.{decimals}f}"
    return f"{value:.3g}" if 0 < abs(value) < 10.0 ** (1 - decimals) else fixed


def details(event: ProgressEvent) -> str:
    """Return the numbers of a running fit or training as text."""
    parts = []
    if event.psnr is not None:
        parts.append(f"{event.psnr:.2f} dB")
    if event.gaussians is not None:
        parts.append(f"{event.gaussians:,} Gaussians")
    if event.loss is not None:
        parts.append(f"loss {event.loss:.3f}")
    if event.dice is not None:
        parts.append(f"Dice {event.dice:.3f}")
    return "  ".join(parts)


class _Lines:
    """Progress as plain lines: at a new stage, at its end, and now and then between."""

    def __init__(self) -> None:
        self.stage, self.last = "", -LINE_SECONDS

    def __call__(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        due = event.stage != self.stage or event.done == event.total
        if not due and now - self.last < LINE_SECONDS:
            return
        self.stage, self.last = event.stage, now
        count = f" {event.done} of {event.total}" if event.total > 1 else ""
        unknown = event.remaining is None or event.done == event.total
        left = "" if unknown else f", {event.remaining:.0f} s left"
        words = [f"{event.stage}{count}", f"{event.seconds:.1f} s{left}", details(event)]
        typer.echo(printable("  ".join(word for word in words if word)))


@contextmanager
def _bar() -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.fields[detail]}", style="cyan"),
        TextColumn("{task.fields[clock]}", style="dim"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None, detail="", clock="")

        def show(event: ProgressEvent) -> None:
            clock = f"{event.seconds:.0f} s"
            # Steps of a fit are many and mean little; how many images are left does.
            count = f" {event.done} of {event.total}" if event.stage in COUNTED else ""
            if event.remaining is not None:
                clock += f", {event.remaining:.0f} s left"
            progress.update(
                task,
                description=printable(event.stage) + count,
                completed=event.done,
                total=event.total if event.total > 1 else None,
                detail=details(event),
                clock=clock,
            )

        yield show
