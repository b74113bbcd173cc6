"""Settings that are declared once: the dataclass check, the command line and the forms agree.

A frozen dataclass declares its fields with :func:`setting`. From that one declaration
:func:`check` refuses values out of range, ``napari_medgs.cli.setting_options`` makes command-line
options, and :meth:`Setting.widget_arguments` describes a form's widget.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any

from napari_medgs.errors import ParameterError

_KEY = "setting"
LARGEST_SEED = 2**31 - 1
"""What all libraries that are seeded take, and fields of forms, too."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a settings dataclass, as :func:`setting` declares it.

    Attributes
    ----------
    name : str
        The field's name.
    kind : type
        int, float, bool, str or tuple; of an optional field the type without None.
    size : int
        Number of values of a tuple of fixed length; 0 for other kinds.
    optional : bool
        None is a value, too.
    default : object
    low, high : float, optional
        Smallest and largest value.
    above, below : float, optional
        Bounds that are themselves not allowed.
    choices : tuple of str
        The values of a text, if they are limited.
    help : str
        One or two sentences, for option and tooltip.
    unit : str
        Such as "mm", "dB", "s".
    label : str
        Short name in a form.
    none : str
        What None means: "all CPUs".
    step : float, optional
        Step of a form's spin box.
    group : str
        Heading of the options or the section of a form.
    metavar : str
        Placeholder of the option's value.
    aliases : tuple of str
        Earlier field names, still read from files and as options.
    """

    name: str
    kind: type
    size: int
    optional: bool
    default: Any
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""
    unit: str = ""
    label: str = ""
    none: str = ""
    step: float | None = None
    group: str = ""
    metavar: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def option(self) -> str:
        """The option's name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def range_text(self) -> str:
        """The allowed values in words, such as "from 5 to 100 dB"."""
        low, high, above, below = (
            None if bound is None else f"{bound:,}"
            for bound in (self.low, self.high, self.above, self.below)
        )
        lower = low if low is not None else above and f"above {above}"
        if self.choices:
            *most, last = self.choices
            return f"{', '.join(most)} or {last}" if most else last
        if low is not None and high is not None:
            text = f"from {low} to {high}"
        elif low is not None and below is not None:
            text = f"from {low} to below {below}"
        elif low is not None:
            text = f"{low} or more"
        elif lower is not None and high is not None:
            text = f"{lower} and at most {high}"
        elif lower is not None:
            text = lower
        else:
            text = {int: "a whole number", float: "a number"}.get(self.kind, "set")
        return f"{text} {self.unit}".strip()

    def accepts(self, value: Any) -> bool:
        """Tell whether a value is allowed."""
        if value is None:
            return self.optional
        if self.choices:
            return value in self.choices
        if self.kind is tuple:
            entries = tuple(value)
            right_size = not self.size or len(entries) == self.size
            return right_size and all(self._in_range(entry) for entry in entries)
        if self.kind is int:
            return isinstance(value, numbers.Integral) and self._in_range(value)
        if self.kind is float:
            return isinstance(value, numbers.Real) and self._in_range(value)
        return True

    def _in_range(self, value: Any) -> bool:
        # Written so that NaN, which compares as False, is refused by every bound.
        return (
            -math.inf < value < math.inf
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def widget_arguments(self) -> dict[str, Any]:
        """Return keyword arguments of :func:`magicgui.widgets.create_widget`.

        A field that may be None gets the annotation of its plain type; a form shows it beside a
        check box, or as a special lowest value with the text :attr:`none`.
        """
        options: dict[str, Any] = {"tooltip": self.help}
        if self.choices:
            options["choices"] = list(self.choices)
        elif self.kind in (int, float):
            least = self.low if self.low is not None else self.above
            most = self.high if self.high is not None else self.below
            if least is not None:
                options["min"] = least
            if most is not None:
                options["max"] = most
            if self.step is not None:
                options["step"] = self.step
        arguments: dict[str, Any] = {
            "name": self.name,
            "label": self.label or self.name.replace("_", " ").capitalize(),
            "annotation": self.kind,
            "options": options,
        }
        if self.default is not None:
            arguments["value"] = self.default
        return arguments


def setting(default: Any, **declared: Any) -> Any:
    """Declare a field of a settings dataclass.

    Parameters
    ----------
    default : object
        The field's default; immutable.
    **declared
        ``low``, ``high``, ``above``, ``below``, ``choices``, ``help``, ``unit``, ``label``,
        ``none``, ``step``, ``group``, ``metavar`` and ``aliases`` of :class:`Setting`. The
        choices of a ``Literal`` field need not be repeated.

    Returns
    -------
    dataclasses.Field
        To be assigned in the class body.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Params:
    ...     smooth: float = setting(1.0, low=0, high=5, unit="voxels", help="Smoothing width.")
    ...
    ...     def __post_init__(self) -> None:
    ...         check(self)
    >>> Params(smooth=9)
    Traceback (most recent call last):
    napari_medgs.errors.ParameterError: smooth must be from 0 to 5 voxels, not 9.
    """
    known = {field.name for field in dataclasses.fields(Setting)}
    unknown = set(declared) - known
    if unknown:
        raise TypeError(f"setting() has no argument {min(unknown)!r}.")
    return dataclasses.field(default=default, metadata={_KEY: declared})


@functools.cache
def settings_of(cls: type) -> dict[str, Setting]:
    """Return the declared settings of a dataclass in their order.

    Parameters
    ----------
    cls : type
        A dataclass; fields without :func:`setting` are passed over.

    Returns
    -------
    dict of str to Setting
    """
    hints = typing.get_type_hints(cls)
    return {
        field.name: _resolve(field, hints[field.name])
        for field in dataclasses.fields(cls)
        if _KEY in field.metadata
    }


def _resolve(field: dataclasses.Field[Any], hint: Any) -> Setting:
    """Combine a field's declaration with its annotation."""
    declared = dict(field.metadata[_KEY])
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [h for h in typing.get_args(hint) if h is not type(None)]
        optional = len(inner) < len(typing.get_args(hint))
        hint = inner[0]
    origin, entries = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        declared.setdefault("choices", entries)
        hint = str
    elif isinstance(hint, type) and hasattr(hint, "__members__"):  # an enum of texts
        declared.setdefault("choices", tuple(str(member.value) for member in hint))  # type: ignore[attr-defined]
        hint = str
    fixed = origin is tuple and Ellipsis not in entries
    declared["choices"] = tuple(declared.get("choices", ()))
    declared["aliases"] = tuple(declared.get("aliases", ()))
    return Setting(
        name=field.name,
        kind=origin if isinstance(origin, type) else hint,
        size=len(entries) if fixed else 0,
        optional=optional,
        default=field.default,
        **declared,
    )


def check(params: Any) -> None:
    """Check the settings of a dataclass instance against their declarations.

    Parameters
    ----------
    params : dataclass instance
        Call this from its ``__post_init__``.

    Raises
    ------
    ParameterError
        Naming the first setting that is out of its range, the range and the value.
    """
    for name, declared in settings_of(params.__class__).items():
        value = getattr(params, name)
        try:
            good = declared.accepts(value)
        except TypeError:
            good = False
        if not good:
            raise ParameterError(f"{name} must be {declared.range_text}, not {value!r}.")


def rename_aliases(cls: type, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with earlier names of settings replaced by the present ones.

    Parameters
    ----------
    cls : type
        The dataclass that the record is meant for.
    record : mapping
        As read from a file; keys that are no aliases are kept.

    Returns
    -------
    dict
    """
    present = {
        alias: name for name, declared in settings_of(cls).items() for alias in declared.aliases
    }
    return {present.get(key, key): value for key, value in record.items()}
