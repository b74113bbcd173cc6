"""Options that belong together as one dataclass, which a command takes as one parameter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from functools import partial
from typing import Any, get_type_hints

Command = Callable[..., None]


def replace_parameter(
    command: Command,
    name: str,
    options: Sequence[inspect.Parameter],
    make: Callable[[dict[str, Any]], Any],
) -> Command:
    """Return a command that takes several options in the place of one parameter.

    Parameters
    ----------
    command : callable
    name : str
        Of its parameter.
    options : sequence of inspect.Parameter
        What stands in its place in the help.
    make : callable
        Gets the options' values by name and returns what the parameter gets.

    Returns
    -------
    callable
    """
    own = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in own.parameters.values():
        if parameter.name == name:
            parameters += options
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def run(**values: Any) -> None:
        chosen = {option.name: values.pop(option.name) for option in options}
        command(**{name: make(chosen)}, **values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run


def takes_groups(**groups: type) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the options of dataclasses.

    Parameters
    ----------
    **groups : type
        By parameter of the command a dataclass; its fields, annotated as options, stand in the
        parameter's place in the help.

    Returns
    -------
    callable
    """

    def decorate(command: Command) -> Command:
        for name, cls in groups.items():
            hints = get_type_hints(cls, include_extras=True)
            options = [
                inspect.Parameter(
                    entry.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=inspect.Parameter.empty if entry.default is MISSING else entry.default,
                    annotation=hints[entry.name],
                )
                for entry in fields(cls)
            ]
            command = replace_parameter(command, name, options, partial(_build, cls))
        return command

    return decorate


def _build(cls: type, values: dict[str, Any]) -> Any:
    return cls(**values)
