"""From stored values to those they stand for: Modality LUT and maps to real-world values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import FileError, ImageError
from napari_medgs.io.dicom.header import items, number, numbers, quiet_pydicom


def modality_table(path: str, header: Any) -> tuple[NDArray[Any] | None, int]:
    """Return the values of a Modality LUT (PS3.3 C.11.1), and the stored value of its first.

    Stored values before the first and after the last one stand for these two.

    Parameters
    ----------
    path : str
        For messages.
    header : pydicom.Dataset

    Returns
    -------
    table : ndarray or None
        None where the file has none.
    first : int

    Raises
    ------
    FileError
        When it is damaged.
    """
    found = items(header, "ModalityLUTSequence")
    if not found:
        return None, 0
    from pydicom.pixels import apply_modality_lut

    descriptor = numbers(found[0], "LUTDescriptor", 3)
    if descriptor is None:
        raise FileError(f"{path}: damaged: its Modality LUT has no descriptor.")
    count, first = int(descriptor[0]) or 2**16, int(descriptor[1])
    with quiet_pydicom():
        try:
            table = apply_modality_lut(np.arange(first, first + count), header)
        except Exception as error:  # Damaged tables raise many kinds.
            raise FileError(f"{path}: damaged: its Modality LUT cannot be read.") from error
    return np.asarray(table), first


def real_world_line(path: str, item: Any) -> tuple[float, float]:
    """Return slope and intercept of a map to real-world values (PS3.3 C.7.6.16.2.11).

    Parameters
    ----------
    path : str
        For messages.
    item : pydicom.Dataset
        Of a Real World Value Mapping Sequence.

    Raises
    ------
    ImageError
        When values are mapped by a table.
    """
    slope = number(item, "RealWorldValueSlope")
    intercept = number(item, "RealWorldValueIntercept")
    if slope is None or intercept is None:
        raise ImageError(
            f"{path}: maps its values to real-world ones by a table, not by slope and intercept; "
            "convert it with a tool that applies tables."
        )
    return slope, intercept
