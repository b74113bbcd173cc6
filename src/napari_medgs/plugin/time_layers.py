"""Volumes in time as one layer of four axes."""

from __future__ import annotations

from typing import Any


def with_time(place: dict[str, Any], step: float | None) -> dict[str, Any]:
    """Return what places (T, Z, Y, X) data, of what places one volume of them.

    Parameters
    ----------
    place : dict
        Scale, translation, units and axis labels of (Z, Y, X) data.
    step : float or None
        Seconds between volumes, where they are known.

    Returns
    -------
    dict

    Examples
    --------
    >>> from napari_medgs.plugin.time_layers import with_time
    >>> place = {"scale": (3, 1, 1), "translate": (0, 0, 9), "units": ("mm",) * 3}
    >>> with_time(place | {"axis_labels": ("z", "y", "x")}, 2.0)["scale"]
    (2.0, 3, 1, 1)
    """
    return {
        **place,
        "scale": (step or 1.0, *place["scale"]),
        "translate": (0.0, *place["translate"]),
        "units": ("pixel" if step is None else "s", *place["units"]),
        "axis_labels": ("t", *place["axis_labels"]),
    }
