"""Segments of DICOM masks: names, colors and codes, chosen by name, overlaps refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import LabelError

Code = tuple[str, str, str]
"""A coded concept: value, coding scheme, meaning; ``("10200004", "SCT", "Liver")``."""

_MOST_LISTED = 60


@dataclass(frozen=True)
class DicomSegment:
    """One segment of a segmentation, or one structure of a structure set.

    Attributes
    ----------
    value : int
        Its label value.
    name : str
        Segment label or ROI name.
    color : (red, green, blue) or None
        From 0 to 1; None where the file recommends none.
    number : int
        Segment number or ROI number in the file.
    category, kind : (value, scheme, meaning) or None
        Codes of the segmented property's category and type, such as
        ``("10200004", "SCT", "Liver")``.
    """

    value: int
    name: str
    color: tuple[float, float, float] | None = None
    number: int = 0
    category: Code | None = None
    kind: Code | None = None


def chosen_segments(
    path: str | Path, known: Sequence[DicomSegment], names: Sequence[str]
) -> list[DicomSegment]:
    """Return the segments that names or numbers ask for, all of them without any.

    Raises
    ------
    LabelError
        When there is none of a name.
    """
    chosen: list[DicomSegment] = []
    for name in names:
        match = [s for s in known if s.name == name] or [s for s in known if str(s.value) == name]
        if not match:
            raise LabelError(f"{path}: has no segment '{name}'. There are: {_listed(known)}.")
        chosen += [s for s in match if s not in chosen]
    return chosen or list(known)


def refuse_overlap(
    path: str | Path, known: Sequence[DicomSegment], one: int, other: int
) -> NoReturn:
    """Raise the error of two segments, given by label value, that share a voxel.

    Raises
    ------
    LabelError
        Naming both, and all segments to choose from.
    """
    names = {s.value: s.name for s in known}
    raise LabelError(
        f"{path}: segments '{names.get(one, one)}' and '{names.get(other, other)}' overlap, and a "
        f"label image holds one label per voxel. Choose segments that do not overlap, of: "
        f"{_listed(known)}."
    )


def _listed(known: Sequence[DicomSegment]) -> str:
    shown = [f"'{s.name}'" for s in known[:_MOST_LISTED]]
    return ", ".join([*shown, ".."] if len(known) > _MOST_LISTED else shown) or "none"


def rgb_of_cielab(stored: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return a color stored as CIELab of 16 bits (PS3.3 C.10.7.1.1) as sRGB from 0 to 1."""
    lightness = stored[0] * 100 / 65535
    a, b = stored[1:] * 255 / 65535 - 128
    y = (lightness + 16) / 116
    xyz = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(xyz > 6 / 29, xyz**3, 3 * (6 / 29) ** 2 * (xyz - 4 / 29))
    xyz *= (0.9505, 1.0, 1.0890)  # White point D65.
    linear = (
        np.array(
            [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
        )
        @ xyz
    )
    linear = np.clip(linear, 0, 1)
    red, green, blue = np.where(
        linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear
    )
    return (float(red), float(green), float(blue))
