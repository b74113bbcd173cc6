"""The words of a command line before they are parsed: lists, earlier names, what is refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import typer

from napari_medgs.errors import MedGSError

LIST_OPTIONS = ("--labels",)
FILL_OPTION = "--fill-nan"  # whose value may be left out


def spread_lists(args: list[str]) -> list[str]:
    """Write ``--labels 1 2,5`` as ``--labels 1 --labels 2 --labels 5``.

    The list ends at the first word that is no integer, so a file may follow it.
    """
    spread: list[str] = []
    words = iter(args)
    pending = next(words, None)
    while pending is not None:
        word, pending = pending, next(words, None)
        name, equals, inline = word.partition("=")
        if name not in LIST_OPTIONS:
            spread.append(word)
            if word == FILL_OPTION and (pending is None or not _is_fill(pending)):
                spread.append("background")
            continue
        numbers = inline.split(",") if equals else []
        while not equals and pending is not None and all(map(_is_integer, pending.split(","))):
            numbers += pending.split(",")
            pending = next(words, None)
        if numbers:
            spread += [piece for number in numbers for piece in (name, number)]
        else:  # the parser says what is missing
            spread.append(word)
    return spread


EARLIER_NAMES = {
    "--again": "--overwrite",
    "--batch": "--batch-size",
    "--empty-slices-unlabelled": "--empty-slices-unlabeled",
    "--licence": "--license",
    "--notch": "--level",
    "--rate": "--learning-rate",
    "--reach": "--max-path-ratio",
    "--unlabelled": "--unlabeled",
}
"""Earlier spellings of options, still understood and not listed on help pages."""


def present_name(word: str, options: Collection[str]) -> str:
    """Return a word of the command line, an earlier option name replaced by the present one.

    Parameters
    ----------
    word : str
    options : collection of str
        The command's options; a word is replaced only by one of them, and never if the command
        has an option of that very name.
    """
    name, equals, value = word.partition("=")
    present = EARLIER_NAMES.get(name)
    if present in options and name not in options:
        return f"{present}{equals}{value}"
    return word


def refuse_model_as_network(args: Sequence[str], options: Collection[str]) -> None:
    """Refuse ``--model`` where a kind of network is chosen, as early versions had it.

    Parameters
    ----------
    args : sequence of str
        The words of the command line.
    options : collection of str
        The command's options.

    Raises
    ------
    typer.BadParameter
        Naming the option to use.
    """
    if "--network" in options and "--model" not in options:
        for k, word in enumerate(args):
            name, equals, value = word.partition("=")
            if name == "--model":
                kind = value if equals else "".join(args[k + 1 : k + 2])
                raise typer.BadParameter(
                    "--model names a file in every command; choose the kind of network with "
                    f"--network {kind or 'KIND'}."
                )


def refuse_empty_words(args: Sequence[str]) -> None:
    """Refuse an empty word: as a path it would mean the current folder.

    Parameters
    ----------
    args : sequence of str
        The words of the command line.

    Raises
    ------
    typer.BadParameter
        Naming the option whose value is empty.
    """
    for k, word in enumerate(args):
        name, equals, value = word.partition("=")
        if not word or (equals and not value and name.startswith("--")):
            before = name or "".join(args[k - 1 : k] if k else ())
            whose = f" of {before}" if before.startswith("-") else ""
            raise typer.BadParameter(f"The value{whose} is empty; is a shell variable not set?")


def _is_fill(word: str) -> bool:
    from napari_medgs.data.intensities import parse_fill

    try:
        parse_fill(word)
    except MedGSError:
        return is_number(word)  # such as nan: a wrong value rather than a file
    return True


def is_number(word: str) -> bool:
    """Tell whether a word of a command line is a number; nan and inf are.

    Parameters
    ----------
    word : str

    Examples
    --------
    >>> is_number("-1e3"), is_number("liver")
    (True, False)
    """
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_integer(word: str) -> bool:
    return word.removeprefix("-").isdecimal()
