"""Inputs as words or as ``-i FILE``: both spellings of every command that reads files."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.models import ArgumentInfo

INPUT, OUTPUT = "input_files", "output_file"
"""Names of the added parameters; the command itself never sees them."""


def takes_inputs(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that has options beside its arguments.

    An argument named ``output`` can be given with ``-o``, all others with ``-i``. Both options
    come first on the help page. A command without arguments is returned as it is.

    Parameters
    ----------
    command : callable
        With Typer's annotations.

    Returns
    -------
    callable
        Which drops the options: :func:`as_arguments` has moved their values to the arguments.
    """
    signature = inspect.signature(command, eval_str=True)
    metavars = {
        name: _metavar(name, parameter.annotation)
        for name, parameter in signature.parameters.items()
        if _is_argument(parameter.annotation)
    }
    if not metavars:
        return command
    added = []
    inputs = " ".join(text for name, text in metavars.items() if name != "output")
    if inputs:
        added.append(_option(INPUT, list[str] | None, "-i", "--input", inputs))
    if "output" in metavars:
        added.append(_option(OUTPUT, str | None, "-o", "--output", metavars["output"]))

    @functools.wraps(command)
    def run(**values: Any) -> None:
        for parameter in added:
            values.pop(parameter.name)
        command(**values)

    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in signature.parameters.values()
    ]
    parameters = [*(p for p in own if p.name in metavars), *added]
    parameters += [p for p in own if p.name not in metavars]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def _is_argument(annotation: Any) -> bool:
    """Tell whether a parameter is an argument of the command line."""
    return get_origin(annotation) is Annotated and any(
        isinstance(entry, ArgumentInfo) for entry in get_args(annotation)[1:]
    )


def _metavar(name: str, annotation: Any) -> str:
    found = next(e for e in get_args(annotation)[1:] if isinstance(e, ArgumentInfo))
    return str(found.metavar or name.upper())


def _option(name: str, kind: Any, short: str, long: str, metavar: str) -> inspect.Parameter:
    several = "..." in metavar or " " in metavar
    text = f"In place of {metavar.replace(' ', ' and ')}{', once for each file' * several}."
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            kind, typer.Option(long, short, metavar="FILE", help=text, show_default=False)
        ],
    )


def as_arguments(
    arguments: Sequence[tuple[str, int]], values: Mapping[str, Any], left_over: Sequence[str]
) -> dict[str, Any]:
    """Return values of arguments, those given as options moved to their places.

    Parameters
    ----------
    arguments : sequence of (str, int)
        Names of the command's arguments in order, with the number of words of each; -1 for any.
    values : mapping
        What the parser found, by name: a word, a tuple of words or None for every argument, and
        the values of ``-i`` and ``-o``.
    left_over : sequence of str
        Words that fit no argument.

    Returns
    -------
    dict
        A value per argument, without those that nothing is left for. Empty when neither option
        was given: then the parser is right.

    Raises
    ------
    typer.BadParameter
        When inputs or the output are given in both ways, or too often.

    Examples
    --------
    >>> places = [("source", 1), ("output", 1)]
    >>> as_arguments(places, {"input_files": ["a.nrrd"], "source": "b.nii.gz"}, [])
    {'source': 'a.nrrd', 'output': 'b.nii.gz'}
    """
    inputs, output = list(values.get(INPUT) or ()), values.get(OUTPUT)
    if not inputs and output is None:
        return {}
    words: list[str] = []
    for name, _ in arguments:
        found = values.get(name)
        if isinstance(found, str):
            words.append(found)
        elif isinstance(found, (list, tuple)):  # else the parser's sign of nothing
            words += found
    words += left_over
    result: dict[str, Any] = {}
    unread = list(inputs)
    for name, count in arguments:
        if name == "output" and output is not None:
            result[name] = output
            continue
        source = unread if inputs and name != "output" else words
        taken = source[: len(source) if count < 0 else count]
        del source[: len(taken)]
        if taken:
            result[name] = taken[0] if count == 1 else tuple(taken)
    if unread:
        raise typer.BadParameter(
            f"-i was given {len(inputs)} times; this command has {len(inputs) - len(unread)} "
            f"input{'s' if len(inputs) - len(unread) > 1 else ''}."
        )
    if words and inputs:
        raise typer.BadParameter(
            f"{words[0]} is given as a word beside -i {inputs[0]}: give all inputs as words, or "
            "each with an -i of its own."
        )
    if words:
        raise typer.BadParameter(f"{words[0]}: one word too many beside -o {output}.")
    return result


class InputParser:
    """A parser that puts the values of ``-i`` and ``-o`` into the places of arguments.

    Parameters
    ----------
    parser : object
        The command's own parser.
    arguments : sequence of (str, int)
        See :func:`as_arguments`.
    """

    def __init__(self, parser: Any, arguments: Sequence[tuple[str, int]]) -> None:
        self._parser, self._arguments = parser, arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def parse_args(self, args: list[str]) -> Any:
        """Parse the words of a command line; see the parser's own method."""
        values, left_over, order = self._parser.parse_args(args=args)
        moved = as_arguments(self._arguments, values, left_over)
        if not moved:
            return values, left_over, order
        arguments = {name for name, _ in self._arguments}
        kept = {name: value for name, value in values.items() if name not in arguments}
        return {**kept, **moved}, [], order
