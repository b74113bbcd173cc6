"""What prompts are made of; anything else is refused before work starts."""

from __future__ import annotations

import numbers
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import GeometryError, LabelError, ParameterError

T = TypeVar("T")
LABELS = np.iinfo(np.int32)  # what the images of strokes and labels hold


def check_kind(value: object, kind: type | tuple[type, ...], what: str, advice: str) -> None:
    """Refuse an argument of another type.

    Parameters
    ----------
    value : object
    kind : type or tuple of type
    what : str
        What it should be, with its verb: "The image is".
    advice : str
        What to give instead.

    Raises
    ------
    ParameterError
        "{what} a {type}; {advice}."

    Examples
    --------
    >>> check_kind(1, int, "The number is", "give an integer")
    """
    if not isinstance(value, kind):
        raise ParameterError(f"{what} {_named(value)}; {advice}.")


def check_entries(values: object, kind: type[T], name: str, example: str) -> None:
    """Refuse a collection of prompts with entries of another type, and what is no collection.

    Parameters
    ----------
    values : object
    kind : type
    name : str
        What the values are called, as in the arguments: "points".
    example : str
        One entry, as it is written.

    Raises
    ------
    ParameterError
        Naming the first wrong entry and the example.
    """
    advice = f"give a tuple of {kind.__name__}, as in {name}=({example},)"
    if not isinstance(values, Collection) or isinstance(values, (str, kind)):
        raise ParameterError(f"The {name} are {_named(values)}; {advice}.")
    for value in values:
        if not isinstance(value, kind):
            raise ParameterError(f"The {name} hold {_named(value)}, {_shown(value)}; {advice}.")


def as_place(place: object, what: str, *, whole: bool = False) -> NDArray[Any]:
    """Return a place as an array (3,), which need not lie in the image.

    Parameters
    ----------
    place : object
    what : str
        What to call its owner, such as "The point at (1, 2)".
    whole : bool
        Whether it is the index of a voxel.

    Raises
    ------
    GeometryError
        When it is not three numbers.
    """
    try:
        array = np.asarray(place)
    except ValueError:  # places of several lengths
        array = np.empty(0)
    if array.shape != (3,):
        raise GeometryError(f"{what} needs three places{' each' * whole}: z, y, x.")
    if array.dtype.kind not in ("iu" if whole else "iuf"):
        kind = "integers, the first voxel and one past the last" if whole else "numbers"
        raise GeometryError(f"{what} needs places that are {kind}.")
    return array


def check_label(label: object) -> int:
    """Return a label as int.

    Raises
    ------
    LabelError
        When it is no integer from 0 to 2,147,483,647.

    Examples
    --------
    >>> check_label(2)
    2
    """
    if not is_whole(label) or label < 0:  # type: ignore[operator]
        raise LabelError(f"A label is an integer from 0 (background), not {_shown(label)}.")
    if label > LABELS.max:  # type: ignore[operator]
        raise LabelError(f"A label is at most {LABELS.max:,}, not {label}.")
    return int(label)  # type: ignore[call-overload]


def check_slices(slices: object, shape: Sequence[int]) -> None:
    """Refuse fully labeled slices that are no pairs of an axis and an index, or do not exist.

    Raises
    ------
    ParameterError
        When they are no collection of pairs of integers.
    GeometryError
        When the image has no such slice.
    """
    advice = "give pairs of an axis and an index, as in fully_labeled=((0, 12),)"
    if not isinstance(slices, Collection) or isinstance(slices, str):
        raise ParameterError(f"The fully labeled slices are {_named(slices)}; {advice}.")
    for entry in slices:
        pair = tuple(entry) if isinstance(entry, Collection) else ()
        if len(pair) != 2 or isinstance(entry, str) or not isinstance(pair[1], numbers.Integral):
            raise ParameterError(f"The fully labeled slices hold {_shown(entry)}; {advice}.")
        axis, index = pair
        if axis not in (0, 1, 2) or not 0 <= index < shape[axis]:
            raise GeometryError(
                f"The fully labeled slice {index} of axis {_shown(axis)} does not exist."
            )


def check_locked(locked: object) -> None:
    """Refuse locked classes that are no collection of labels.

    Raises
    ------
    ParameterError, LabelError
    """
    if not isinstance(locked, Collection) or isinstance(locked, str):
        raise ParameterError(
            f"The locked classes are {_named(locked)}; give a set of labels, as in locked={{1}}."
        )
    for label in locked:
        check_label(label)


def is_whole(value: object) -> bool:
    """Tell whether a value is a whole number; texts and arrays are not.

    Examples
    --------
    >>> is_whole(3), is_whole(3.0), is_whole("3"), is_whole(2.5)
    (True, True, False, False)
    """
    if isinstance(value, numbers.Integral):
        return True
    return isinstance(value, numbers.Real) and float(value).is_integer()


def as_number(value: Any) -> Any:
    """Return a number as float, and anything else as it is, for the check of a setting."""
    return float(value) if isinstance(value, numbers.Real) else value


def _named(value: object) -> str:
    """Return the type of a value with its article."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' or name == 'ndarray' else 'a'} {name}"


def _shown(value: object) -> str:
    """Return a value as it is written in code, cut where that is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
