"""The choices of DICOM folders with several volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe_dicom(path: Path) -> dict[str, Any] | None:
    """Return the choices of a DICOM folder or file with several volumes, None for others.

    Parameters
    ----------
    path : Path
        A folder of slices, a study, a disc, a DICOMDIR, or any other path.

    Returns
    -------
    dict or None
        With an entry per series, or per volume of a series that has several.
    """
    from napari_medgs.io.dicom.series import has_dicom, list_series
    from napari_medgs.io.ome_zarr.opening import is_ome_zarr

    if is_ome_zarr(path) or not has_dicom(path):
        return None
    found = list_series(path)
    entries: dict[str, Any] = {}
    for n, one in enumerate(found, 1):
        for v, name in enumerate(one.volumes or ("",), 1):
            entries[f"{n}.{v}" if one.volumes else str(n)] = {
                "modality": one.modality,
                "description": one.description,
                "volume": name,
                "slices": one.slices,
                "spacing_mm": None if one.spacing is None else list(one.spacing),
                "uid": one.uid,
            }
    if len(entries) < 2:
        return None
    return {"kind": "DICOM series; choose one with --series", "series": entries}
