"""The DICOM series on which a layer lies, from the layers that were read from one."""

from __future__ import annotations

from typing import Any

from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, MedGSError
from napari_medgs.plugin.layer_frame import frame_of


def series_options(layer: Any, grid: Grid) -> dict[str, Any]:
    """Return where the DICOM series of a mask is, as options of ``write_labels``.

    Parameters
    ----------
    layer : napari.layers.Labels
    grid : Grid
        Where its voxels lie.

    Returns
    -------
    dict
        source, series and volume of :func:`napari_medgs.io.write_labels`.

    Raises
    ------
    FileError
        When no layer of the viewer comes from a DICOM series of that place.
    """
    from napari import current_viewer

    from napari_medgs.io.segmented import has_segments

    viewer = current_viewer()
    found: list[tuple[bool, dict[str, Any]]] = []
    for other in (layer, *(viewer.layers if viewer is not None else ())):
        path = other.metadata.get("path")
        if type(other).__name__ not in ("Image", "Labels"):
            continue  # points and surfaces have no grid
        try:
            place = frame_of(other).grid
        except MedGSError:
            continue
        source = place.source
        if not path or source.get("kind") != "dicom" or has_segments(path):
            continue
        same = source.get("series") == grid.source.get("series")
        if same or place.matches(grid):
            options = {"source": path, "series": source["series"], "volume": source.get("volume")}
            found.append((same, options))
    if not found:
        raise FileError(
            f"{layer.name!r}: a DICOM mask refers to the slices of its image; open the DICOM "
            "series beside it, or save as .nii.gz, .nrrd or .seg.nrrd."
        )
    return max(found, key=lambda entry: entry[0])[1]
