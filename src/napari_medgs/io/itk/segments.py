"""Segments of ``.seg.nrrd`` files: names, colors, layers, and their place on an image's grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, LabelError
from napari_medgs.io._axes import place_on_grid
from napari_medgs.io.itk.headers import brief, read_nrrd_header
from napari_medgs.io.itk.reader import read_itk
from napari_medgs.io.labels import as_labels, compact_labels

SEG_SUFFIX = ".seg.nrrd"
_MOST_SEGMENTS = 65535
# Colors of 3D Slicer's generic anatomy table that are told apart easily.
_PALETTE = (
    (0.502, 0.682, 0.502), (0.945, 0.839, 0.569), (0.694, 0.478, 0.396), (0.435, 0.722, 0.824),
    (0.847, 0.396, 0.310), (0.867, 0.510, 0.396), (0.565, 0.933, 0.565), (0.753, 0.408, 0.345),
    (0.863, 0.961, 0.078), (0.306, 0.247, 0.000), (1.000, 0.980, 0.863), (0.902, 0.863, 0.275),
)  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """One segment of a ``.seg.nrrd`` file.

    Attributes
    ----------
    value : int
        Label value in its layer.
    layer : int
        Index of the label image that holds it; segments of several layers may overlap.
    name : str
    color : (red, green, blue)
        From 0 to 1.
    """

    value: int
    layer: int
    name: str
    color: tuple[float, float, float]


def is_segmentation(path: str | Path) -> bool:
    """Tell whether a path is named as a segmentation of 3D Slicer."""
    return str(path).lower().endswith(SEG_SUFFIX)


def read_segments(path: str | Path) -> list[Segment]:
    """Read what an NRRD file says of its segments; empty where it says nothing.

    Parameters
    ----------
    path : str or Path
        ``.seg.nrrd``, or any NRRD file.

    Returns
    -------
    list of Segment
        In the file's order.

    Raises
    ------
    FileError
        When the file is missing or no NRRD file.

    References
    ----------
    https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html
    """
    header = read_nrrd_header(path)
    fields = header.metadata
    # Before Slicer 4.11 every segment had a layer of its own, whose value is 1.
    layered = len(header.fields.get("sizes", "").split()) > 3 and not any(
        key.startswith("Segment") and key.endswith(("_LabelValue", "_Layer")) for key in fields
    )
    segments: list[Segment] = []
    for k in range(_MOST_SEGMENTS):
        if not any(f"Segment{k}_{name}" in fields for name in ("ID", "Name", "LabelValue")):
            break
        name = fields.get(f"Segment{k}_Name", fields.get(f"Segment{k}_ID", f"Segment_{k + 1}"))
        segments.append(
            Segment(
                1 if layered else _integer(path, fields, f"Segment{k}_LabelValue", k + 1),
                k if layered else _integer(path, fields, f"Segment{k}_Layer", 0),
                "".join(c for c in name if c.isprintable()),
                _color(fields.get(f"Segment{k}_Color"), k),
            )
        )
    return segments


def segment_labels(segments: Sequence[Segment]) -> list[int]:
    """Return the label values that segments have in one label image.

    Their own, unless two of different layers share one: then 1, 2, ... in their order.
    """
    values = [s.value for s in segments]
    return values if len(set(values)) == len(values) else list(range(1, len(values) + 1))


def read_segmentation(
    path: str | Path,
    like: Grid | None = None,
    *,
    segments: Sequence[str] = (),
    spacing: tuple[float, float, float] | None = None,
    assume_identity: bool = False,
) -> tuple[NDArray[Any], Grid, list[Segment]]:
    """Read a ``.seg.nrrd`` file as one label image.

    Parameters
    ----------
    path : str or Path
    like : Grid, optional
        The image's grid. A segmentation that was cropped to its segments, or reaches beyond the
        image, is padded or cropped onto it; nothing is resampled.
    segments : sequence of str
        Names (or label values) of the segments to read; all by default.
    spacing, assume_identity
        See :func:`~napari_medgs.io.itk.reader.read_itk`.

    Returns
    -------
    labels : (Z, Y, X) ndarray of integers
    grid : Grid
        ``like`` where that was given.
    found : list of Segment
        The segments read, with their values in ``labels``.

    Raises
    ------
    LabelError
        When segments overlap, or one that was asked for is not there.
    GeometryError
        When the segmentation does not lie on voxels of ``like``.
    FileError, ImageError, MemoryEstimateError
        As :func:`~napari_medgs.io.itk.reader.read_itk`.
    """
    segments = tuple(segments)
    volume = read_itk(path, spacing=spacing, assume_identity=assume_identity, every=True)
    layers = as_labels(volume.data, f"{path}: the segmentation")
    known = read_segments(path)
    wanted = _chosen(path, known, segments)
    if wanted and (len(layers) > 1 or segments or _doubtful(wanted)):
        labels, wanted = _join(path, layers, wanted)
    elif len(layers) > 1:
        raise LabelError(
            f"{path}: holds {len(layers)} label images and does not name its segments; save them "
            "as one."
        )
    else:
        labels = layers[0]
    if like is None:
        return labels, volume.grid, wanted
    return place_on_grid(labels, volume.grid, like, str(path)), like, wanted


def segment_metadata(
    array: NDArray[Any],
    names: Mapping[int, str],
    colors: Mapping[int, Sequence[float]],
) -> dict[str, str]:
    """Return the header fields of a ``.seg.nrrd`` file of one layer.

    Parameters
    ----------
    array : (I, J, K) ndarray
        Labels in the order in which they are stored.
    names : mapping of int to str
        By label value; ``Segment_<value>`` where there is none. Named values without a voxel
        are kept as empty segments.
    colors : mapping of int to (red, green, blue)
        By label value, from 0 to 1; others take a color of a fixed table.

    Returns
    -------
    dict of str to str
    """
    whole = " ".join(f"0 {n - 1}" for n in array.shape)
    fields = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    present = {int(v) for v in np.unique(array)} | {int(v) for v in names}
    values = sorted(present - {0})
    extents = _extents(array, values)
    for k, value in enumerate(values):
        extent = extents.get(value, whole)
        color = colors.get(value, _PALETTE[k % len(_PALETTE)])
        name = names.get(value, f"Segment_{value}")
        fields |= {
            f"Segment{k}_ID": f"Segment_{value}",
            f"Segment{k}_Name": " ".join(str(name).split()),
            f"Segment{k}_NameAutoGenerated": "0",
            f"Segment{k}_Color": " ".join(f"{float(c):.6g}" for c in color[:3]),
            f"Segment{k}_ColorAutoGenerated": "0",
            f"Segment{k}_LabelValue": str(value),
            f"Segment{k}_Layer": "0",
            f"Segment{k}_Extent": extent,
            f"Segment{k}_Tags": "|",
        }
    return fields


def _extents(array: NDArray[Any], values: list[int]) -> dict[int, str]:
    """Return the first and last index along each axis of every value that is there."""
    from scipy.ndimage import find_objects

    # Dense numbers: the search takes memory by the largest value.
    dense = np.searchsorted([0, *values], array).astype(np.int32)
    found = find_objects(dense, max_label=len(values))
    return {
        value: " ".join(f"{s.start} {s.stop - 1}" for s in box)
        for value, box in zip(values, found, strict=True)
        if box is not None
    }


def _chosen(path: str | Path, known: list[Segment], names: Iterable[str]) -> list[Segment]:
    """Return the segments that names or values ask for, all of them without any."""
    names = list(names)
    if not names:
        return known
    chosen: list[Segment] = []
    for name in names:
        match = [s for s in known if s.name == name] or [s for s in known if str(s.value) == name]
        if not match:
            listed = ", ".join(f"'{s.name}'" for s in known) or "none"
            raise LabelError(f"{path}: has no segment '{name}'. There are: {listed}.")
        chosen += [s for s in match if s not in chosen]
    return chosen


def _doubtful(segments: list[Segment]) -> bool:
    """Tell whether segments share a label value, or name a layer that one image does not have."""
    shared = len({s.value for s in segments}) < len(segments)
    return shared or any(s.layer > 0 for s in segments)


def _join(
    path: str | Path, layers: NDArray[Any], wanted: list[Segment]
) -> tuple[NDArray[Any], list[Segment]]:
    """Put segments into one label image; values that two segments share are numbered anew."""
    joined = np.zeros(layers.shape[1:], np.int64)
    owner: dict[int, str] = {}
    placed: list[Segment] = []
    for value, segment in zip(segment_labels(wanted), wanted, strict=True):
        if not 0 <= segment.layer < len(layers):
            raise LabelError(f"{path}: segment '{segment.name}' is in no layer of the file.")
        inside = layers[segment.layer] == segment.value
        taken = joined[inside]
        if taken.any():
            other = owner[int(taken[taken != 0][0])]
            listed = ", ".join(f"'{s.name}'" for s in wanted)
            raise LabelError(
                f"{path}: segments '{other}' and '{segment.name}' overlap in "
                f"{int(np.count_nonzero(taken)):,} voxels, and a label image holds one label per "
                f"voxel. Choose segments that do not overlap, of: {listed}."
            )
        joined[inside] = value
        owner[value] = segment.name
        placed.append(Segment(value, 0, segment.name, segment.color))
    return compact_labels(joined), placed


def _integer(path: str | Path, fields: Mapping[str, str], name: str, default: int) -> int:
    """Return a whole number of a header, which is damaged if it is none or below the default."""
    text = fields.get(name)
    if text is None:
        return default
    try:
        found = int(text[:20])
    except ValueError:
        found = -1
    if found < min(default, 1):
        raise FileError(f"{path}: damaged header: its {name} is '{brief(text)}'.")
    return found


def _color(text: str | None, number: int) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(word) for word in str(text).split())
    except ValueError:
        return _PALETTE[number % len(_PALETTE)]
    found = np.clip(np.nan_to_num([red, green, blue]), 0, 1)
    return (float(found[0]), float(found[1]), float(found[2]))
