"""What scanners say of volumes in private elements, where the standard's are missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_medgs.io.dicom.header import quiet_pydicom

_SIEMENS, _PHILIPS, _GE = "SIEMENS MR HEADER", "Philips Imaging DD 001", "GEMS_PARM_01"
_GE_FLAG = 100_000
"""GE adds flags to b-values: whole multiples of this number."""
_GE_COMPONENTS = ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY")


def vendor_keys(header: Any) -> dict[str, str]:
    """Return b-value and complex component from private elements of Siemens, Philips and GE.

    Parameters
    ----------
    header : pydicom.Dataset

    Returns
    -------
    dict of str to str
        Of the names in :data:`napari_medgs.io.dicom.frames.VOLUME_KEYS`.
    """
    found: dict[str, str] = {}
    for group, creator, element in (
        (0x0019, _SIEMENS, 0x0C),
        (0x2001, _PHILIPS, 0x03),
        (0x0043, _GE, 0x39),
    ):
        value = _first(header, group, creator, element)
        if value is not None and value >= 0:
            found["b-value"] = f"{value % _GE_FLAG if creator == _GE else value:g}"
            break
    component = _first(header, 0x0043, _GE, 0x2F)
    if component is not None and component in range(len(_GE_COMPONENTS)):
        found["component"] = _GE_COMPONENTS[int(component)]
    return found


def _first(header: Any, group: int, creator: str, element: int) -> float | None:
    """Return the first number of a private element, None where there is none."""
    with quiet_pydicom():
        try:
            value = header.private_block(group, creator)[element].value
            if isinstance(value, bytes):
                return None
            number = float(np.atleast_1d(np.asarray(value, dtype=np.float64))[0])
        except Exception:  # Missing, or damaged in one of many ways.
            return None
    return number if np.isfinite(number) else None
