"""The colors that a mask's file gives its labels, as a colormap of napari."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_LABELS = 2000


def labels_colormap(colors: Mapping[int, Sequence[float]], labels: NDArray[Any]) -> Any:
    """Return a colormap with a file's colors; labels without one get colors told apart easily.

    Parameters
    ----------
    colors : mapping of int to (red, green, blue)
        From 0 to 1, by label value.
    labels : ndarray of integers
        The mask.

    Returns
    -------
    napari.utils.colormaps.DirectLabelColormap or None
        None where the file gives no colors: napari's own are used then.
    """
    if not colors:
        return None
    from napari.utils.colormaps import DirectLabelColormap

    from napari_medgs.io.meshes import label_color

    values = {int(v) for v in np.unique(labels)[:_MOST_LABELS]} | {int(v) for v in colors}
    table: dict[int | None, Any] = {None: (0.5, 0.5, 0.5, 1.0)}
    for value in values:
        red, green, blue = (float(c) for c in colors.get(value, label_color(value)))
        table[value] = (red, green, blue, 1.0)
    table[0] = (0.0, 0.0, 0.0, 0.0)
    return DirectLabelColormap(color_dict=table)
