"""Arrays of any order of axes, brought to (C, Z, Y, X)."""

from __future__ import annotations

from typing import Any


def spatial_shape(axes: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return the lengths of z, y and x; 1 for an axis that is not there."""
    z, y, x = (int(shape[axes.index(a)]) if a in axes else 1 for a in "zyx")
    return (z, y, x)


def arrange(array: Any, axes: str, timed: bool) -> Any:
    """Return (C, Z, Y, X) values of any order of axes, or (C, T, Z, Y, X) with time."""
    if "t" in axes and not timed:
        array = array[tuple(0 if a == "t" else slice(None) for a in axes)]
        axes = axes.replace("t", "")
    order = "ctzyx" if timed else "czyx"
    array = array.transpose([axes.index(a) for a in order if a in axes])
    for k, axis in enumerate(order):
        if axis not in axes:
            array = array[(slice(None),) * k + (None,)]
    return array
