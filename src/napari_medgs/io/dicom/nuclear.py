"""Frames of nuclear medicine: which slice, time slot or energy window each of them is.

One file holds slices, angles or time points, by vectors with one number for each frame
(PS3.3 C.8.4.8, NM Multi-frame).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError, GeometryError
from napari_medgs.io.dicom.header import integer, items, number, numbers, text

_SLICE_VECTOR = "0054,0080"
_VOLUME_VECTORS = (
    ("EnergyWindowVector", "energy window"),
    ("DetectorVector", "detector"),
    ("PhaseVector", "phase"),
    ("RRIntervalVector", "R-R interval"),
    ("TimeSlotVector", "time slot"),
)
_PLANAR = ("STATIC", "DYNAMIC", "GATED", "WHOLE BODY", "TOMO", "GATED TOMO")


def nuclear_frames(
    path: str | Path, header: Any, count: int
) -> tuple[list[NDArray[np.float64]], list[dict[str, str]]] | None:
    """Return places of frames of nuclear medicine, and what tells their volumes apart.

    Parameters
    ----------
    path : str or Path
        For messages.
    header : pydicom.Dataset
    count : int
        Frames of the file.

    Returns
    -------
    origins : list of (3,) ndarray
        LPS millimeters.
    keys : list of dict
        Names and values such as ``{"time slot": "2"}``.
        None in place of both for files of another kind, or without place and step.

    Raises
    ------
    GeometryError
        When the frames are projections, planar images or time points, not slices.
    FileError
        When the vectors do not fit the frames.

    References
    ----------
    DICOM PS3.3, C.8.4.8 (NM Multi-frame) and C.8.4.11 (NM Detector).
    """
    detector = next(iter(items(header, "DetectorInformationSequence")), None)
    if detector is None or count == 1:
        return None
    kind = (text(header, "ImageType").strip("[]").replace("'", "").split(", ") + [""] * 3)[2]
    pointer = text(header, "FrameIncrementPointer")
    if kind.upper() in _PLANAR or (pointer and _SLICE_VECTOR not in pointer):
        raise GeometryError(
            f"{path}: {count} frames of nuclear medicine that are no slices of a volume"
            f"{f' ({kind})' if kind else ''}; give the reconstructed slices."
        )
    origin, step = numbers(detector, "ImagePositionPatient", 3), _step(header)
    axes = numbers(detector, "ImageOrientationPatient", 6)
    if origin is None:
        origin = numbers(header, "ImagePositionPatient", 3)
    if axes is None:
        axes = numbers(header, "ImageOrientationPatient", 6)
    if origin is None or axes is None or step is None:
        return None
    slices = numbers(header, "SliceVector", count)
    if slices is None:
        if integer(header, "NumberOfSlices", count) != count:
            raise FileError(
                f"{path}: damaged: it does not say which of {count} frames is which of "
                f"{integer(header, 'NumberOfSlices')} slices (SliceVector)."
            )
        slices = np.arange(1.0, count + 1)
    normal = np.cross(axes[:3], axes[3:])
    # The step is negative where slices follow each other against the normal.
    origins = [origin + (place - 1) * step * normal for place in slices]
    vectors = {name: numbers(header, keyword, count) for keyword, name in _VOLUME_VECTORS}
    keys = [
        {name: f"{vector[k]:g}" for name, vector in vectors.items() if vector is not None}
        for k in range(count)
    ]
    return origins, keys


def _step(header: Any) -> float | None:
    step = number(header, "SpacingBetweenSlices")
    return step if step else None
