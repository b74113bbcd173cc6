"""What DICOM has no element for: label values that are not 1, 2, ..., and the whole stack.

A block of private elements keeps both, so that a mask comes back as it was written. Other
programs pass over them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.io.dicom.header import quiet_pydicom

_GROUP, _CREATOR = 0x0071, "NAPARI_MEDGS"
_VALUE, _STACK = 0x01, 0x02


def set_label_value(item: Any, value: int) -> None:
    """Keep a segment's label value in its description."""
    item.private_block(_GROUP, _CREATOR, create=True).add_new(_VALUE, "SL", value)


def label_value(item: Any) -> int | None:
    """Return the label value kept in a segment's description."""
    found = _numbers(item, _VALUE, 1)
    return None if found is None else int(found[0])


def set_stack(data: Any, origin: NDArray[np.float64], step: NDArray[np.float64], n: int) -> None:
    """Keep where ``n`` slices lie: the origin of the first, and the step, LPS millimeters."""
    block = data.private_block(_GROUP, _CREATOR, create=True)
    block.add_new(_STACK, "FD", [float(n), *origin.tolist(), *step.tolist()])


def kept_stack(data: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], int] | None:
    """Return what :func:`set_stack` has kept."""
    found = _numbers(data, _STACK, 7)
    if found is None or not 1 <= found[0] < 2**31:
        return None
    return found[1:4], found[4:], int(found[0])


def _numbers(data: Any, element: int, count: int) -> NDArray[np.float64] | None:
    with quiet_pydicom():
        try:
            value = data.private_block(_GROUP, _CREATOR)[element].value
            found = np.atleast_1d(np.asarray(value, dtype=np.float64))
        except Exception:  # Missing, or damaged in one of many ways.
            return None
    return found if found.shape == (count,) and bool(np.isfinite(found).all()) else None
