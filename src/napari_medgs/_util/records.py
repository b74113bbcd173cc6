"""Records of files checked against declared types: what a file says is never taken on trust.

A type is declared once, as the annotations of a dataclass or a ``TypedDict``. :func:`checked`
compares a value that came from JSON with it, and says in one sentence which entry is wrong.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any

from napari_medgs.errors import ParameterError

MOST_LEVELS = 64  # of lists and objects within each other
LARGEST_INTEGER = 2**63 - 1
_SHOWN = 40  # characters of a wrong value


def parse_json(text: str | bytes) -> Any:
    """Parse JSON whose nesting and integers have sane sizes.

    Parameters
    ----------
    text : str or bytes

    Returns
    -------
    object
        Made of dict, list, str, int, float, bool and None.

    Raises
    ------
    ValueError
        When the text is no JSON, nested more than 64 deep, holds an integer of more than 64 bits,
        or characters that are half of a pair.

    Examples
    --------
    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> parse_json("[" * 100_000 + "]" * 100_000)
    Traceback (most recent call last):
    ValueError: its lists and objects are nested too deeply
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error}") from None
    except UnicodeDecodeError:
        raise ValueError("no text in UTF-8") from None
    except ValueError:  # Python refuses to convert so many digits
        raise ValueError("it holds an integer of too many digits") from None
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [entry for container in level for entry in _entries(container)]
        if not level:
            return value
    raise ValueError("its lists and objects are nested too deeply")


def _entries(value: Any) -> list[Any]:
    """Return the containers within a container; check everything else in it."""
    if isinstance(value, dict):
        inner = [*value, *value.values()]
    elif isinstance(value, list):
        inner = value
        if set(map(type, inner)) <= {int, float}:  # long lists of numbers, at the speed of C
            inner = [max(inner), min(inner)] if inner else []
    else:
        inner = [value]
    nested = []
    for entry in inner:
        if isinstance(entry, (dict, list)):
            nested.append(entry)
        elif isinstance(entry, int) and abs(entry) > LARGEST_INTEGER:
            raise ValueError("it holds an integer of too many digits")
        elif isinstance(entry, str) and not _is_text(entry):
            raise ValueError("it holds half of a pair of characters")
    return nested


def checked(hint: Any, value: Any, name: str) -> Any:
    """Return a value from JSON as the type that an annotation names.

    Parameters
    ----------
    hint : annotation
        int, float (finite), bool, str, a ``Literal``, an enum, an optional or other union, tuple,
        list, frozenset and dict of such, a dataclass, a ``TypedDict`` or ``Any``.
    value : object
        As :func:`parse_json` gives it; numpy numbers will do.
    name : str
        What the value is called in the message: "grid.shape".

    Returns
    -------
    object
        A tuple for a list where the annotation says so, a float for an integer, an instance for
        a dataclass, made by its ``from_dict`` if it has one. A ``TypedDict`` is checked and
        returned as it is; unknown keys are allowed.

    Raises
    ------
    ParameterError
        Naming the first entry of another type.

    Examples
    --------
    >>> checked(tuple[float, ...], [1, 2.5], "scale")
    (1.0, 2.5)
    >>> checked(int, 2.5, "degree")
    Traceback (most recent call last):
    napari_medgs.errors.ParameterError: degree must be a whole number, not 2.5.
    """
    if hint is Any:
        return value
    origin, entries = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _checked_union(entries, value, name)
    if origin is typing.Literal:
        if not isinstance(value, (str, int)) or value not in entries:
            raise _wrong(name, " or ".join(map(str, entries)), value)
        return value
    if origin in (tuple, list, frozenset):
        return _checked_list(origin, entries, value, name)
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise _wrong(name, "an object", value)
        if not entries:
            return dict(value)
        return {k: checked(entries[1], v, f"{name}.{_short(k)}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        made = getattr(hint, "from_dict", None)
        return checked_record(hint, value, name) if made is None else made(value)
    if typing.is_typeddict(hint):
        _check_typed_dict(hint, value, name)
        return value
    return _checked_scalar(hint, value, name)


def checked_record(cls: type, value: Any, name: str = "") -> Any:
    """Make a dataclass of a JSON object; unknown keys are ignored, absent ones have defaults.

    Parameters
    ----------
    cls : type
        A dataclass whose fields :func:`checked` can check.
    value : object
        As :func:`parse_json` gives it.
    name : str
        What to put before the names of its fields in messages.

    Raises
    ------
    ParameterError
        When it is no object, an entry is missing or of another type, or the class refuses it.

    Examples
    --------
    >>> from napari_medgs.segmentation import Box
    >>> checked_record(Box, {"start": [0, 0, 0], "stop": [2, 2, 2], "label": 1})
    Box(start=(0, 0, 0), stop=(2, 2, 2), label=1)
    """
    if not isinstance(value, Mapping):
        raise _wrong(name or "the record", "an object", value)
    before = f"{name}." if name else ""
    hints = _hints(cls)
    known = {}
    for field in dataclasses.fields(cls):
        if field.name in value:
            known[field.name] = checked(hints[field.name], value[field.name], before + field.name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ParameterError(f"{before}{field.name} is missing.")
    return cls(**known)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _checked_union(entries: tuple[Any, ...], value: Any, name: str) -> Any:
    """Return the value as the first type of several that fits."""
    if value is None and type(None) in entries:
        return None
    problem = _wrong(name, "set", value)
    for entry in (e for e in entries if e is not type(None)):
        try:
            return checked(entry, value, name)
        except ParameterError as error:
            problem = error
    raise problem


def _checked_list(origin: Any, entries: tuple[Any, ...], value: Any, name: str) -> Any:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise _wrong(name, "a list", value)
    if entries == (Any,):
        return origin(value)
    if origin is tuple and Ellipsis not in entries:
        if len(value) != len(entries):
            raise _wrong(name, f"a list of {len(entries)} entries", value)
        kinds = entries
    else:
        kinds = (entries[0],) * len(value)
    made = (checked(kind, entry, name) for kind, entry in zip(kinds, value, strict=True))
    return origin(made)


def _check_typed_dict(hint: Any, value: Any, name: str) -> None:
    """Check the entries of an object that are declared; others are allowed."""
    if not isinstance(value, Mapping):
        raise _wrong(name, "an object", value)
    for key, kind in _hints(hint).items():
        is_marked = typing.get_origin(kind) in (typing.Required, typing.NotRequired)
        required = typing.get_origin(kind) is typing.Required or (hint.__total__ and not is_marked)
        if key in value:
            kind = typing.get_args(kind)[0] if is_marked else kind
            checked(kind, value[key], f"{name}.{key}")
        elif required:
            raise ParameterError(f"{name}.{key} is missing.")


def _checked_scalar(hint: Any, value: Any, name: str) -> Any:
    is_bool = isinstance(value, bool) or type(value).__name__ == "bool"  # numpy's
    if hint is bool:
        if not is_bool:
            raise _wrong(name, "true or false", value)
        return bool(value)
    if hint is int:
        whole = isinstance(value, numbers.Integral) or (
            isinstance(value, float) and value.is_integer()
        )
        if is_bool or not whole or abs(value) > LARGEST_INTEGER:
            raise _wrong(name, "a whole number", value)
        return int(value)
    if hint is float:
        if is_bool or not isinstance(value, numbers.Real) or not _is_finite(value):
            raise _wrong(name, "a finite number", value)
        return float(value)
    if hint is str:
        if not isinstance(value, str) or not _is_text(value):
            raise _wrong(name, "a text", value)
        return value
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except (ValueError, TypeError):
            choices = " or ".join(str(member.value) for member in hint)
            raise _wrong(name, choices, value) from None
    raise TypeError(f"{hint} is no type that a record can have.")


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer above the largest float
        return False


def _is_text(value: str) -> bool:
    """Tell whether a text can be written as UTF-8: JSON allows halves of pairs."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _short(value: Any) -> str:
    """Return a value for a message: on one line, printable and not too long."""
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return "an integer of many digits"
    if isinstance(value, (dict, list, tuple)):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)} entries"
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _wrong(name: str, expected: str, value: Any) -> ParameterError:
    return ParameterError(f"{name} must be {expected}, not {_short(value)}.")
