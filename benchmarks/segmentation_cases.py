"""Interactive-segmentation cases: real volumes, their masks, and prompts drawn from the masks.

Cases of the split "tune" were looked at while the solver's settings were chosen; the numbers that
are quoted come from the split "report".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume

UNLABELLED, BACKGROUND = 0, 1  # values in the simulated scribble images; class k is k + 1


@dataclass(frozen=True)
class Case:
    """One volume with the classes to be found in it.

    ``groups`` lists, for every class, the label values of the mask that make it up.
    """

    name: str
    split: str
    images: tuple[str, ...]
    mask: str
    groups: tuple[tuple[int, ...], ...]

    @property
    def is_hippocampus(self) -> bool:
        """Whether it is one of the many small ones, which count as one case."""
        return self.name.startswith("hippocampus")

    def load(self, folder: Path) -> tuple[Volume, NDArray[np.uint8]]:
        """Return the volume and the truth: 0 background, 1 .. K the classes."""
        from napari_medgs.io import read_labels, read_volumes

        volume = read_volumes([folder / image for image in self.images])
        labels, _ = read_labels(folder / self.mask, like=volume.grid)
        truth = np.zeros(volume.shape, np.uint8)
        for k, values in enumerate(self.groups):
            truth[np.isin(labels, values)] = k + 1
        return volume, truth


TUNE_HIPPOCAMPI = ("003", "019", "049", "091", "130", "163")
REPORT_HIPPOCAMPI = (
    "008", "017", "025", "035", "044", "053", "064", "070", "088", "098", "106", "125", "142",
    "155", "184", "205", "223", "243", "265", "301",
)  # fmt: skip


def all_cases() -> list[Case]:
    """Every case, in a fixed order."""
    ct, brats, fs = "ct_totalseg_example/", "mr_brats4_glioma/", "mr_brain_freesurfer/"
    aorta, ms = "ct_aorta_totalseg/", "mr_ms_lesions_patient07/"
    spine = "ct_vertebra_tptbox/"
    cases = [
        Case("spleen", "tune", ("ct_spleen_msd_crop/ct.nii.gz",), "ct_spleen_msd_crop/seg.nii.gz",
             ((1,),)),
        Case("aorta", "tune", (aorta + "ct.nii.gz",), aorta + "seg_aorta.nii.gz", ((1,),)),
        Case("pelvis", "tune", (ct + "ct.nii.gz",), ct + "seg_ml.nii.gz",
             ((88,), (89,), (90,), (91,), (104,))),
        Case("cord_t1", "tune", ("mr_spinalcord_t1/t1w.nii.gz",), "mr_spinalcord_t1/seg.nii.gz",
             ((1,),)),
        # Kinds that fail in the same way: alike neighbors, small classes beside a large one.
        Case("vessels", "tune", (ct + "ct.nii.gz",), ct + "seg_ml.nii.gz", ((7,), (8,))),
        Case("muscles", "tune", (ct + "ct.nii.gz",), ct + "seg_ml.nii.gz",
             ((94,), (96,), (98,))),
        Case("temporal", "tune", (fs + "norm.nii.gz",), fs + "aparc_aseg.nii.gz",
             ((17, 53), (18, 54), (2, 41))),
        Case("lumen", "report", (aorta + "ct.nii.gz",), aorta + "seg_true_false_lumen.nii.gz",
             ((1,), (2,))),
        Case("t12", "report", (aorta + "ct.nii.gz",), aorta + "seg_vertebra_T12.nii.gz",
             ((1,),)),
        Case("abdomen", "report", (ct + "ct.nii.gz",), ct + "seg_ml.nii.gz",
             ((1,), (2,), (3,), (5,), (6,))),
        Case("lumbar", "report", (ct + "ct.nii.gz",), ct + "seg_ml.nii.gz",
             ((18,), (19,), (20,), (21,), (22,))),
        Case("vertebrae", "report", (spine + "ct.nii.gz",), spine + "seg_vert.nii.gz",
             ((21,), (22,), (23,))),
        Case("cord_t2", "report", ("mr_spinalcord_t2/t2.nii.gz",), "mr_spinalcord_t2/seg.nii.gz",
             ((1,),)),
        Case("cord_gm", "report", ("mr_spinalcord_t2s_gm/t2s.nii.gz",),
             "mr_spinalcord_t2s_gm/gm_seg.nii.gz", ((1,),)),
        Case("tumour", "report", (brats + "t2f.nii.gz", brats + "t1c.nii.gz"),
             brats + "seg_brats23.nii.gz", ((1, 2, 3),)),
        Case("tumour_parts", "report",
             tuple(brats + f"{c}.nii.gz" for c in ("t1c", "t1n", "t2f", "t2w")),
             brats + "seg_brats23.nii.gz", ((1,), (2,), (3,))),
        Case("lesions", "report", (ms + "FLAIR.nii.gz", ms + "T1.nii.gz"),
             ms + "lesions_gold.nii.gz", ((1,),)),
        Case("deep_brain", "report", (fs + "norm.nii.gz",), fs + "aparc_aseg.nii.gz",
             ((4, 43), (10, 49), (11, 50), (12, 51), (16,))),
    ]  # fmt: skip
    for split, numbers in (("tune", TUNE_HIPPOCAMPI), ("report", REPORT_HIPPOCAMPI)):
        for number in numbers:
            name = f"hippocampus_{number}.nii.gz"
            cases.append(
                Case(f"hippocampus_{number}", split, (f"hippocampus_msd/images/{name}",),
                     f"hippocampus_msd/labels/{name}", ((1,), (2,)))
            )  # fmt: skip
    return cases


def choose_slices(truth: NDArray[np.uint8], axis: int, count: int) -> list[int]:
    """Return slices a user would annotate: spread over the structures, every class seen."""
    classes = int(truth.max())
    other = tuple(a for a in range(3) if a != axis)
    area = np.array([(truth == k + 1).sum(axis=other) for k in range(classes)], float)
    share = area / np.maximum(area.sum(axis=1, keepdims=True), 1)
    total = np.sqrt(area / np.maximum(area.max(axis=1, keepdims=True), 1)).sum(axis=0)
    edges = np.cumsum(share.mean(axis=0))
    chosen: list[int] = []
    for part in range(count):
        inside = (edges > part / count) & (edges - share.mean(axis=0) < (part + 1) / count)
        inside &= total > 0
        middle = np.searchsorted(edges, (part + 0.5) / count)
        if count == 1:
            chosen.append(int(total.argmax()))
        elif inside.any():
            where = np.flatnonzero(inside)
            chosen.append(int(where[np.abs(where - middle).argmin()]))
    for k in range(classes):
        if area[k].any() and not area[k, chosen].any():
            chosen.append(int(area[k].argmax()))
    return sorted(set(chosen))


def _wavy(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw one wavy line across a part of a slice."""
    canvas = np.zeros(shape, bool)
    length = 0.35 * min(shape)
    start = rng.uniform(0.15, 0.85, 2) * shape
    angle = rng.uniform(0, 2 * np.pi)
    t = np.linspace(0, 1, int(4 * length) + 2)
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([along[1], -along[0]])
    wave = 0.12 * length * np.sin(2 * np.pi * rng.uniform(0.5, 1.5) * t + rng.uniform(0, 6))
    points = start + np.outer(t * length, along) + np.outer(wave, across)
    rows, columns = np.round(points).astype(int).T
    good = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    canvas[rows[good], columns[good]] = True
    return canvas


def _axis_line(part: NDArray[np.bool_], depth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the straight line along a piece's longer side through its deepest place."""
    points = np.argwhere(part)
    center = np.unravel_index(depth.argmax(), depth.shape)
    spread = np.cov((points - points.mean(axis=0)).T) if len(points) > 2 else np.eye(2)
    direction = np.linalg.eigh(spread)[1][:, -1]
    t = np.arange(-max(part.shape), max(part.shape), 0.5)
    line = np.round(np.asarray(center) + np.outer(t, direction)).astype(int)
    good = ((line >= 0) & (line < part.shape)).all(axis=1)
    out = np.zeros_like(part)
    out[tuple(line[good].T)] = True
    return out & (depth >= min(2.0, 0.5 * depth.max()))


def _middle(mask: NDArray[np.bool_], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a connected stroke through the middle of each piece of a mask.

    A part of the skeleton, or, where the piece is so round that its skeleton is but a dot, of the
    line along its longer side.
    """
    from scipy.ndimage import distance_transform_edt
    from skimage.measure import label
    from skimage.morphology import skeletonize

    out = np.zeros_like(mask)
    pieces = label(mask)
    for piece in range(1, pieces.max() + 1):
        part = pieces == piece
        if part.sum() < 4 and mask.sum() >= 8:
            continue
        depth = distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
        line = skeletonize(part) & (depth >= min(1.5, depth.max()))
        if line.sum() < depth.max():
            line = _axis_line(part, depth)
        if not line.any():
            line = depth == depth.max()
        points = np.argwhere(line)
        wanted = max(1, round(share * len(points)))
        start = points[rng.integers(len(points))]
        # The nearest points of the line to a random one: one stretch of it.
        near = np.argsort(((points - start) ** 2).sum(axis=1), kind="stable")[:wanted]
        out[tuple(points[near].T)] = True
    return out


def scribble_slice(truth: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw strokes on one slice: 70 % of each skeleton, an arc around, three wavy lines."""
    from scipy.ndimage import distance_transform_edt

    out = np.zeros(truth.shape, np.uint8)
    foreground = truth > 0
    outside = distance_transform_edt(~foreground)
    for _ in range(3):
        out[_wavy(truth.shape, rng) & (outside > 2)] = BACKGROUND
    if foreground.any():
        gap = max(3.0, 0.25 * np.sqrt(foreground.sum() / np.pi))
        ring = (outside > gap - 0.7) & (outside <= gap + 0.7)
        center = np.argwhere(foreground).mean(axis=0)
        where = np.argwhere(ring) - center
        angle = (np.arctan2(where[:, 0], where[:, 1]) - rng.uniform(0, 2 * np.pi)) % (2 * np.pi)
        arc = np.argwhere(ring)[angle < rng.uniform(0.4, 0.6) * 2 * np.pi]
        out[tuple(arc.T)] = BACKGROUND
    for k in range(int(truth.max())):
        mask = truth == k + 1
        if mask.any():
            out[_middle(mask, 0.7, rng)] = k + 2
    return out


def simulate_scribbles(
    truth: NDArray[np.uint8], axis: int, slices: int, seed: int
) -> NDArray[np.uint8]:
    """Return a scribble image: 0 unlabeled, 1 background, k + 1 for class k."""
    rng = np.random.default_rng([seed, slices])
    scribbles = np.zeros(truth.shape, np.uint8)
    for z in choose_slices(truth, axis, slices):
        index = tuple(z if a == axis else slice(None) for a in range(3))
        scribbles[index] = scribble_slice(truth[index], rng)
    return scribbles


def cases_of(split: str, names: tuple[str, ...] = ()) -> Iterator[Case]:
    """Iterate over the cases of one split ("all" for both), or of the given names."""
    for case in all_cases():
        if (split in ("all", case.split) and not names) or case.name in names:
            yield case
