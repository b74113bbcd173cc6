"""Command-line options made from the declared settings of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, get_args, get_origin

import typer

from napari_medgs._util.settings import Setting, settings_of
from napari_medgs.cli.option_groups import Command, replace_parameter
from napari_medgs.errors import ParameterError

SYNONYMS = {"--backend": ("--device",)}
"""Further names of options, shown on help pages: what other programs call them."""


def option_for(declared: Setting, name: str = "") -> Any:
    """Return the Typer annotation of one setting: name, type, range, choices and help.

    Parameters
    ----------
    declared : Setting
    name : str
        The option's name where it differs from the setting's: "--network".

    Returns
    -------
    Annotated type
        For a parameter of a command.
    """
    kind: Any = declared.kind
    option = name or declared.option
    names = [option, *SYNONYMS.get(option, ())]
    text: dict[str, Any] = {
        "help": _help(declared),
        "rich_help_panel": declared.group or None,
        "metavar": declared.metavar or None,
    }
    if declared.default is None:
        text["show_default"] = declared.none or False
    if declared.choices:
        make: Any = Enum  # called with names that are known at run time only
        kind = make(_class_name(declared.name), {c: c for c in declared.choices}, type=str)
    elif kind is tuple:
        kind = tuple[(float,) * declared.size]  # type: ignore[misc]
    elif kind is bool:
        off = declared.optional or declared.default is True
        names = [f"{option}/--no{option[1:]}" if off else option]
    elif kind is str:
        text["metavar"] = declared.metavar or "NAME"
    elif kind in (int, float):
        text["metavar"] = declared.metavar or ("N" if kind is int else "X")
        # Open bounds are left to the check of the dataclass: the parser knows closed ones only.
        text["min"], text["max"] = declared.low, declared.high
    if declared.optional:
        kind = kind | None
    return Annotated[kind, typer.Option(*names, **text)]


def _help(declared: Setting) -> str:
    unit = declared.unit
    if not unit or unit in declared.help:
        return declared.help
    return f"{declared.help.removesuffix('.')}, in {unit}."


def _class_name(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _first_name(annotation: Any) -> str:
    """Return the first name of an annotated option: "--padding" of "--padding/--no-padding"."""
    option = get_args(annotation)[1]
    return str([option.default, *option.param_decls][0]).partition("/")[0]


def default_for(declared: Setting, annotation: Any) -> Any:
    """Return a setting's default as the parser wants it: a member of the choices' enum."""
    kind = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if isinstance(kind, type) and issubclass(kind, Enum) and declared.default is not None:
        return kind(declared.default)
    return declared.default


def takes_settings(
    cls: type, names: Sequence[str], overrides: Mapping[str, Any] | None = None
) -> Callable[[Command], Command]:
    """Return a decorator that gives a command the options of a settings dataclass.

    Parameters
    ----------
    cls : type
        A dataclass whose fields are declared with :func:`~napari_medgs._util.settings.setting`.
    names : sequence of str
        The settings that become options, in the order of the help page.
    overrides : mapping of str to annotation, optional
        Annotations of options that are spelled in a special way.

    Returns
    -------
    callable
        Decorates a command with a parameter ``params``, which gets the options as one ``cls``;
        they stand in its place in the help.
    """
    declared = settings_of(cls)
    overrides = overrides or {}

    def decorate(command: Command) -> Command:
        options = []
        for name in names:
            annotation = overrides.get(name) or option_for(declared[name])
            options.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=default_for(declared[name], annotation),
                    annotation=annotation,
                )
            )

        def make(chosen: dict[str, Any]) -> Any:
            values = {n: v.value if isinstance(v, Enum) else v for n, v in chosen.items()}
            try:
                return cls(**values)
            except ParameterError as error:
                setting, _, rest = str(error).partition(" ")
                if setting not in names or not rest.startswith("must be"):
                    raise
                option = _first_name(overrides.get(setting) or option_for(declared[setting]))
                raise typer.BadParameter(f"{option} {rest}") from None

        return replace_parameter(command, "params", options, make)

    return decorate
