"""Cases at one voxel size on disk, and the sizes of patches and networks that fit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import ParameterError
from napari_medgs.io._limits import human_bytes
from napari_medgs.learning.card import ChannelScale, SegmenterCard, scale_channel
from napari_medgs.learning.data.checks import (
    LARGEST_VALUE,
    CaseFacts,
    CheckedCases,
    read_case,
)
from napari_medgs.learning.networks.slots import MOST_LEVELS
from napari_medgs.learning.resampling import resample_classes, resample_image

PATCH_VOXELS = {2: {"cpu": 160**2, "cuda": 320**2}, 3: {"cpu": 46**3, "cuda": 96**3}}
LEVELS = {"cpu": 3, "cuda": 4}
MOST_POINTS = 10_000
"""Places of each class and case that patches are centered at."""
ANISOTROPIC = 2.0
"""Ratio of voxel sizes from which on an axis is neither convolved nor halved."""
OBJECT_PATCHES = 1.5
"""How many patches an object may be long before the voxels are made larger."""
FIXED_LOW = -200.0
"""Images that all reach below this, and name no unit, have the Hounsfield units of CT."""


@dataclass(frozen=True)
class Sizes:
    """Voxel size, patch, and the strides and kernels of the levels that fit them.

    Attributes
    ----------
    spacing : (z, y, x)
    patch : (z, y, x)
    strides, kernels : tuple of tuple of int
        One row a level, fine to coarse, without z in 2D.
    """

    spacing: tuple[float, float, float]
    patch: tuple[int, int, int]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]


def median_spacing(facts: Sequence[CaseFacts]) -> tuple[float, float, float]:
    """Return the median voxel size (z, y, x) of cases, in mm."""
    z, y, x = np.median([one.spacing for one in facts], axis=0)
    return float(z), float(y), float(x)


def plan_sizes(
    facts: Sequence[CaseFacts],
    device: str,
    *,
    spacing: tuple[float, float, float] | None = None,
    levels: int | None = None,
    voxels: int | None = None,
) -> Sizes:
    """Choose voxel size, patch and network for cases.

    Parameters
    ----------
    facts : sequence of CaseFacts
    device : {"cpu", "cuda"}
    spacing : (z, y, x), optional
        In mm; by default the median of the cases, larger where even the smallest class is much
        longer than a patch.
    levels : int, optional
        Levels of the network.
    voxels : int, optional
        Voxels of a patch.

    Returns
    -------
    Sizes
    """
    flat = all(one.shape[0] == 1 for one in facts)
    ndim = 2 if flat else 3
    budget = voxels or PATCH_VOXELS[ndim][device]
    wanted = np.array(spacing or median_spacing(facts))
    sizes = np.median([np.multiply(one.shape, one.spacing) for one in facts], axis=0)
    extent = _smallest_extent(facts)
    extent = sizes if extent is None else extent
    levels = levels or LEVELS[device]
    for _ in range(40):
        patch, strides, kernels = _fitting(sizes / wanted, wanted, budget, levels, flat)
        longest = (extent / wanted / (OBJECT_PATCHES * np.array(patch)))[ndim == 2 :]
        if spacing is not None or longest.max() <= 1:
            break
        # The finest axes first, until the voxels are as long along all of them.
        finest = wanted[1:].min() if flat else wanted.min()
        grow = wanted <= 1.05 * finest
        if flat:
            grow[0] = False
        wanted = np.where(grow, wanted * 1.1, wanted)
    rows = slice(3 - ndim, None)
    return Sizes(
        (float(wanted[0]), float(wanted[1]), float(wanted[2])),
        (patch[0], patch[1], patch[2]),
        tuple(tuple(row[rows]) for row in strides),
        tuple(tuple(row[rows]) for row in kernels),
    )


def check_working_spacing(facts: Sequence[CaseFacts], spacing: tuple[float, float, float]) -> None:
    """Refuse a voxel size at which images lose an axis, or become too large to be prepared.

    Parameters
    ----------
    facts : sequence of CaseFacts
    spacing : (z, y, x)
        In mm, as the user wants it.

    Raises
    ------
    ParameterError
        Naming an image that it does not suit, and the voxel size of the images.
    """
    import psutil

    usual = " x ".join(f"{s:.3g}" for s in median_spacing(facts))
    wanted = " x ".join(f"{s:.3g}" for s in spacing)
    free = psutil.virtual_memory().available
    for one in facts:
        shape = np.multiply(one.shape, one.spacing) / spacing
        if ((np.array(one.shape) > 1) & (np.round(shape) < 2)).any():
            raise ParameterError(
                f"spacing {wanted} mm is too large: {one.case.name} would have one voxel along an "
                f"axis. The images have {usual} mm."
            )
        needed = (4 * len(one.channels) + 1) * float(np.prod(np.maximum(shape, 1)))
        if needed > 0.9 * free:
            raise ParameterError(
                f"spacing {wanted} mm is too small: {one.case.name} would take "
                f"{human_bytes(needed)} and {human_bytes(free)} of memory are free. The images "
                f"have {usual} mm."
            )


def _smallest_extent(facts: Sequence[CaseFacts]) -> NDArray[Any] | None:
    """Return the usual size in mm (z, y, x) of the class that is the smallest."""
    found = []
    for value in sorted({value for one in facts for value in one.extents}):
        sizes = [one.extents[value] for one in facts if value in one.extents]
        found.append(np.percentile(sizes, 75, axis=0))
    return min(found, key=max) if found else None


def _fitting(
    shape: NDArray[Any], spacing: NDArray[Any], budget: int, levels: int, flat: bool
) -> tuple[list[int], list[list[int]], list[list[int]]]:
    """Return the patch and the levels: whole images if they fit, else a piece of their shape."""
    wanted = np.maximum(shape, 1.0)
    if wanted.prod() > budget:
        # As long in mm along every axis, and never longer than the image.
        low, high = 1e-3, 1e5
        for _ in range(60):
            middle = np.sqrt(low * high)
            if np.minimum(wanted, middle / spacing).prod() > budget:
                high = middle
            else:
                low = middle
        wanted = np.maximum(np.minimum(wanted, low / spacing), 1.0)
    strides, kernels = [], []
    now, size = spacing.astype(float), wanted.copy()
    if flat:
        now[0] = np.inf
    for level in range(min(levels, MOST_LEVELS)):
        finest = now.min()
        fine = (now < ANISOTROPIC * finest) & (np.ceil(size) > 1)
        step = fine & (size >= 8 if level else size >= 4)
        if level and not step.any():
            break
        strides.append([2 if s else 1 for s in step])
        # Convolutions of a level see its own voxels.
        now, size = np.where(step, 2 * now, now), np.where(step, size / 2, size)
        near = (now < ANISOTROPIC * now.min()) & (np.ceil(size) > 1)
        kernels.append([3 if n else 1 for n in near])
    multiple = np.prod(strides, axis=0)
    # Up where the image fits whole, else to the nearest.
    whole = wanted >= shape
    steps = np.where(whole, np.ceil(wanted / multiple - 1e-6), np.round(wanted / multiple))
    patch = [max(1, int(k)) * int(m) for k, m in zip(steps, multiple, strict=True)]
    return patch, strides, kernels


def channel_scales(facts: Sequence[CaseFacts]) -> tuple[ChannelScale, ...]:
    """Return how the contrasts are scaled: CT by all cases together, others image by image."""
    fixed = all(one.units == "HU" for one in facts) or (
        all(one.low <= FIXED_LOW and not one.units for one in facts)
        and len(facts[0].channels) == 1
    )
    scales = []
    for c in range(len(facts[0].channels)):
        if not fixed:
            scales.append(ChannelScale())
            continue
        values = np.concatenate([one.samples[c] for one in facts])
        low, high = np.percentile(values, (0.5, 99.5))
        cut = np.clip(values, low, high)
        scales.append(
            ChannelScale(
                "fixed",
                float(low),
                float(high),
                float(cut.mean()),
                max(float(cut.std()), 1e-3),
            )
        )
    return tuple(scales)


@dataclass(frozen=True)
class PreparedCase:
    """A case as the network sees it, in files that are read piece by piece.

    Attributes
    ----------
    name : str
    image_file, labels_file : str
        Arrays of numpy: (C, Z, Y, X) float32 and (Z, Y, X) uint8 with indices of classes.
    points : dict of int to (N, 3) ndarray of int32
        Some voxels of every class that the case has, by index.
    """

    name: str
    image_file: str
    labels_file: str
    points: dict[int, NDArray[np.int32]]

    @property
    def image(self) -> NDArray[np.float32]:
        """The image, mapped into memory."""
        return np.asarray(np.load(self.image_file, mmap_mode="r"))

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The labels, mapped into memory."""
        return np.asarray(np.load(self.labels_file, mmap_mode="r"))


def prepare_case(
    facts: CaseFacts, card: SegmenterCard, folder: Path, number: int, seed: int = 0
) -> PreparedCase:
    """Bring a case to the model's voxel size and write it to a folder.

    Parameters
    ----------
    facts : CaseFacts
    card : SegmenterCard
        With classes, scales and spacing.
    folder : Path
    number : int
        Of the case: names its files.
    seed : int
        Of the choice of points.

    Returns
    -------
    PreparedCase
    """
    volume, labels = read_case(facts.case)
    shape = card.working_shape(volume.grid)
    index = np.zeros(LARGEST_VALUE + 1, np.uint8)
    index[list(card.class_values)] = np.arange(1, len(card.class_values) + 1)
    classes = resample_classes(index[labels], shape)
    image = np.stack(
        [
            resample_image(scale_channel(volume.channel(c), scale), shape)
            for c, scale in enumerate(card.scales)
        ]
    )
    files = [folder / f"{number:05d}_{kind}.npy" for kind in ("image", "labels")]
    np.save(files[0], image)
    np.save(files[1], classes)
    random = np.random.default_rng([seed, number])
    points = {}
    for k in range(1, len(card.class_values) + 1):
        flat = np.flatnonzero(classes == k)
        if len(flat):
            if len(flat) > MOST_POINTS:
                flat = random.choice(flat, MOST_POINTS, replace=False)
            where = np.unravel_index(np.sort(flat), classes.shape)
            points[k] = np.stack(where, 1).astype(np.int32)
    return PreparedCase(facts.case.name, str(files[0]), str(files[1]), points)


def needed_bytes(checked: CheckedCases, sizes: Sizes) -> int:
    """Return how much disk the prepared cases take."""
    total = 0.0
    for one in checked.facts:
        shape = np.multiply(one.shape, one.spacing) / sizes.spacing
        total += (4 * len(one.channels) + 1) * float(np.prod(np.maximum(shape, 1)))
    return int(total)
