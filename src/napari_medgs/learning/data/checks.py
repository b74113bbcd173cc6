"""What training cases are like, and whether they fit together: known before training starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._util.naming import naming
from napari_medgs.data.volume import Volume
from napari_medgs.errors import (
    Cancelled,
    FileError,
    GeometryError,
    ImageError,
    LabelError,
    MedGSError,
)
from napari_medgs.io.cases import contrast_names
from napari_medgs.learning.data.sources import TrainingCase, TrainingSource, names_of_masks
from napari_medgs.metrics.volumes import label_boxes

LARGEST_VALUE = 65_535
MOST_CLASSES = 249
SAMPLE = 20_000
"""Intensities of the foreground that a case contributes to what is known of a contrast."""


@dataclass(frozen=True)
class CaseFacts:
    """What is known of a training case before it is prepared.

    Attributes
    ----------
    case : TrainingCase
    shape, spacing : (z, y, x)
    channels : tuple of str
        Names of the contrasts.
    units : str
    voxels : dict of int to int
        Voxels by label value, without 0.
    extents : dict of int to (z, y, x)
        By label value, the size in mm of the box around all of it.
    samples : (C, N) ndarray of float32
        Intensities where the mask is not 0.
    low : float
        The lowest intensity.
    """

    case: TrainingCase
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    channels: tuple[str, ...]
    units: str
    voxels: dict[int, int]
    extents: dict[int, tuple[float, float, float]]
    samples: NDArray[np.float32]
    low: float


@dataclass(frozen=True)
class CheckedCases:
    """Cases that can be trained on together.

    Attributes
    ----------
    facts : tuple of CaseFacts
    classes : dict of int to str
        Names by label value, sorted by value.
    channels : tuple of str
    left_out : dict of str to str
        Why, by the name of the case.
    """

    facts: tuple[CaseFacts, ...]
    classes: dict[int, str]
    channels: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)


def read_case(case: TrainingCase) -> tuple[Volume, NDArray[Any]]:
    """Read the image and the mask of a case.

    Parameters
    ----------
    case : TrainingCase

    Returns
    -------
    volume : Volume
        With finite values.
    labels : (Z, Y, X) ndarray of integers

    Raises
    ------
    MedGSError
        When one of them cannot be read, or the mask has another grid.
    """
    from napari_medgs.io import read_labels, read_volumes

    with naming(image=case.images, mask=case.mask):
        volume = read_volumes(case.images, resample=case.resample).prepared()
        try:
            labels, _ = read_labels(case.mask, like=volume.grid, resample=case.resample)
        except GeometryError as error:
            if case.resample:  # they cannot be compared, or do not overlap
                raise
            raise GeometryError(
                f"{case.mask}: the mask lies on another grid than its image {case.images[0]}; "
                "resample one onto the other first. resample=True (--resample) does that."
            ) from error
    return volume, labels


def look_at(case: TrainingCase) -> CaseFacts:
    """Read a case and note what must be known of it.

    Raises
    ------
    MedGSError
        See :func:`read_case`; also for values that cannot be classes.
    """
    volume, labels = read_case(case)
    values, counts = np.unique(labels, return_counts=True)
    if values[0] < 0 or values[-1] > LARGEST_VALUE:
        raise LabelError(
            f"{case.mask}: the mask holds the value {values[0] if values[0] < 0 else values[-1]}; "
            f"classes are 1 to {LARGEST_VALUE:,}."
        )
    voxels = {int(v): int(n) for v, n in zip(values, counts, strict=True) if v}
    inside = labels != 0
    extents = {}
    for value, box in label_boxes(labels).items():
        z, y, x = (float((b.stop - b.start) * n) for b, n in zip(box, volume.spacing, strict=True))
        extents[int(value)] = (z, y, x)
    flat = np.flatnonzero(inside)
    flat = flat[:: max(1, len(flat) // SAMPLE)]
    samples = volume.data.reshape(volume.channels, -1)[:, flat].astype(np.float32)
    return CaseFacts(
        case,
        volume.shape,
        volume.spacing,
        contrast_names(case.images, volume.channel_names),
        volume.units,
        voxels,
        extents,
        samples,
        float(volume.data.min()),
    )


def check_cases(
    facts: Iterable[CaseFacts],
    source: TrainingSource,
    left_out: dict[str, str],
    values: Collection[int] = (),
) -> CheckedCases:
    """Refuse cases that cannot be trained on together.

    Parameters
    ----------
    facts : iterable of CaseFacts
    source : TrainingSource
    left_out : dict of str to str
        Cases that could not be read, with the reason.
    values : collection of int, optional
        The label values to learn; others count as background. By default all.

    Returns
    -------
    CheckedCases

    Raises
    ------
    FileError
        When fewer than two cases are left.
    LabelError
        When the classes differ between cases, or one of them is empty.
    ImageError
        When the contrasts differ in number or order.
    GeometryError
        When slices and volumes are mixed.
    """
    found = tuple(facts)
    unread = "".join(f" {name} was left out: {why}" for name, why in list(left_out.items())[:1])
    if not found:
        raise FileError(f"{source.place}: no case can be read.{unread}")
    if len(found) == 1:
        raise FileError(
            f"{source.place}: holds one case only ({found[0].case.name}); two are needed, "
            f"five or more advised.{unread}"
        )
    _check_channels(found, source.channel_names)
    flat = [one for one in found if one.shape[0] == 1]
    if flat and len(flat) < len(found):
        deep = next(one for one in found if one.shape[0] > 1)
        raise GeometryError(
            f"{flat[0].case.name} is a single slice and {deep.case.name} a volume of "
            f"{deep.shape[0]} slices; train on one kind of them."
        )
    channels = source.channel_names
    if len(channels) != len(found[0].channels):
        channels = found[0].channels
    return CheckedCases(found, _check_classes(found, source, values), channels, left_out)


def _check_channels(found: tuple[CaseFacts, ...], declared: tuple[str, ...]) -> None:
    first = found[0]
    for one in found[1:]:
        if len(one.channels) != len(first.channels):
            raise ImageError(
                f"{one.case.name} has {len(one.channels)} contrast(s), {first.case.name} "
                f"{len(first.channels)}; every case needs the same ones."
            )
        if one.channels != first.channels and set(one.channels) == set(first.channels):
            raise ImageError(
                f"{one.case.name} has its contrasts in another order ({', '.join(one.channels)}) "
                f"than {first.case.name} ({', '.join(first.channels)}); give them in one order."
            )
    if declared and len(declared) != len(first.channels):
        raise ImageError(
            f"{first.case.name} has {len(first.channels)} contrast(s), dataset.json names "
            f"{len(declared)}: {', '.join(declared)}."
        )


def _check_classes(
    found: tuple[CaseFacts, ...], source: TrainingSource, values: Collection[int]
) -> dict[int, str]:
    """Return the names of the classes by value."""
    names = names_of_masks(source.cases) | source.class_names
    cases = Counter(value for one in found for value in one.voxels)
    declared = set(values) or set(source.class_names)
    if source.class_names and not values:
        for one in found:
            if unknown := set(one.voxels) - declared:
                listed = ", ".join(map(str, sorted(declared)))
                raise LabelError(
                    f"{one.case.mask}: the mask holds the value {min(unknown)}, which is no class "
                    f"of dataset.json ({listed}); the classes must be the same in all cases."
                )
    elif not values:
        declared = set(cases)
        lonely = sorted(v for v, n in cases.items() if n == 1 and len(found) > 2)
        if lonely:
            where = next(one for one in found if lonely[0] in one.voxels)
            others = ", ".join(map(str, sorted(declared - set(lonely)))) or "others"
            raise LabelError(
                f"{where.case.mask}: the classes differ between cases: the value {lonely[0]} is "
                f"in this mask only, other masks have {others}. Correct it, or name the values to "
                "learn with --label."
            )
    if not declared:
        raise LabelError(f"{source.place}: all masks are empty: there is nothing to learn.")
    for value in sorted(declared):
        if not cases[value]:
            name = names.get(value)
            shown = f"{name!r} ({value})" if name else str(value)
            raise LabelError(
                f"{source.place}: the class {shown} is empty: no mask has a voxel of it. Leave it "
                "out, or add cases that have it."
            )
    if len(declared) > MOST_CLASSES:
        raise LabelError(
            f"{source.place}: the masks hold {len(declared)} values; at most {MOST_CLASSES} "
            "classes can be learned. Name some with --label."
        )
    return {value: names.get(value, f"class {value}") for value in sorted(declared)}


def reason_of(error: MedGSError) -> str:
    """Return why a case is left out; what concerns all cases is raised again.

    Raises
    ------
    MedGSError
        The error itself, unless it is about a file or an image that cannot be used.
    """
    if isinstance(error, Cancelled) or not isinstance(error, (FileError, ImageError)):
        raise error
    return str(error)
