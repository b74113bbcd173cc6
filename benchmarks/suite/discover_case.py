"""The case "discover": parts from one click, against other cells, costs and hierarchies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.hierarchy import PartTree, part_tree
from suite.discover_baselines import Baseline, baselines_of
from suite.registry import Context
from suite.results import CaseResult, median

MASK = 0.85  # Dice for which nodes are counted
CLICKS = 5  # the deepest voxel, and others at half its depth or more


@dataclass(frozen=True)
class Case:
    """One image, and what is to be found in it.

    ``split`` is "tune" where settings were chosen on it, else "report"; ``kind`` says where its
    masks come from.
    """

    name: str
    split: str
    kind: str
    images: tuple[str, ...]
    mask: str
    targets: dict[str, tuple[int, ...]]

    def load(self, context: Context) -> tuple[Volume, dict[str, NDArray[np.bool_]]]:
        """Return the image and the masks of its targets."""
        from napari_medgs.io import read_labels, read_volumes

        volume = read_volumes([context.file(image) for image in self.images])
        labels, _ = read_labels(context.file(self.mask), like=volume.grid)
        return volume, {n: np.isin(labels, values) for n, values in self.targets.items()}


def cases(quick: bool) -> list[Case]:
    """Return all cases; two small ones where it is to be quick."""
    ct, aorta = "ct_totalseg_example/", "ct_aorta_totalseg/"
    brats, fs, ms = "mr_brats4_glioma/", "mr_brain_freesurfer/", "mr_ms_lesions_patient07/"
    organs = {
        "spleen": (1,), "kidney right": (2,), "kidney left": (3,), "liver": (5,),
        "bladder": (104,), "stomach": (6,), "aorta": (7,), "hip left": (90,), "femur left": (88,),
        "L3": (20,), "pancreas": (10,),
    }  # fmt: skip
    brain = {
        "white matter": (2, 41), "ventricle left": (4,), "ventricle right": (43,),
        "thalamus": (10,), "caudate": (11,), "putamen": (12,), "hippocampus": (17,),
        "cerebellum": (8,), "brain stem": (16,),
    }  # fmt: skip
    glioma = {"whole tumor": (1, 2, 3), "core": (1, 3), "enhancing": (3,), "edema": (2,),
              "necrosis": (1,)}  # fmt: skip
    found = [
        Case("abdominal CT", "tune", "model", (ct + "ct.nii.gz",), ct + "seg_ml.nii.gz", organs),
        Case("glioma MR, 4 contrasts", "tune", "model",
             tuple(brats + f"{c}.nii.gz" for c in ("t1c", "t1n", "t2f", "t2w")),
             brats + "seg_brats23.nii.gz", glioma),
        Case("brain T1", "tune", "model", (fs + "norm.nii.gz",), fs + "aparc_aseg.nii.gz", brain),
        Case("vertebrae CT", "tune", "unknown", ("ct_vertebra_tptbox/ct.nii.gz",),
             "ct_vertebra_tptbox/seg_vert.nii.gz", {"L2": (21,), "L3": (22,), "L4": (23,)}),
        Case("spinal cord T1", "tune", "manual", ("mr_spinalcord_t1/t1w.nii.gz",),
             "mr_spinalcord_t1/seg.nii.gz", {"cord": (1,)}),
        Case("spleen CT", "report", "manual", ("ct_spleen_msd_crop/ct.nii.gz",),
             "ct_spleen_msd_crop/seg.nii.gz", {"spleen": (1,)}),
        Case("dissected aorta CT", "report", "model", (aorta + "ct.nii.gz",),
             aorta + "seg_true_false_lumen.nii.gz", {"true lumen": (1,), "false lumen": (2,)}),
        Case("spinal cord T2", "report", "unknown", ("mr_spinalcord_t2/t2.nii.gz",),
             "mr_spinalcord_t2/seg.nii.gz", {"cord": (1,)}),
        Case("spinal cord T2*, 7.5 mm slices", "report", "manual",
             ("mr_spinalcord_t2s_gm/t2s.nii.gz",), "mr_spinalcord_t2s_gm/gm_seg.nii.gz",
             {"gray matter": (1,)}),
        Case("MS MR, 2 contrasts", "report", "manual", (ms + "FLAIR.nii.gz", ms + "T1.nii.gz"),
             ms + "lesions_gold.nii.gz", {"lesions": (1,)}),
    ]  # fmt: skip
    from segmentation_cases import REPORT_HIPPOCAMPI, TUNE_HIPPOCAMPI

    for split, numbers in (("tune", TUNE_HIPPOCAMPI), ("report", REPORT_HIPPOCAMPI)):
        for number in numbers:
            file = f"hippocampus_{number}.nii.gz"
            found.append(
                Case(f"hippocampus {number}", split, "manual", (f"hippocampus_msd/images/{file}",),
                     f"hippocampus_msd/labels/{file}", {"hippocampus": (1, 2)})
            )  # fmt: skip
    if quick:
        return [c for c in found if c.name in ("spinal cord T2", "hippocampus 003")]
    return found


@dataclass
class Scores:
    """What was measured of one target."""

    case: Case
    target: str
    node: float  # Dice of the best node's cells
    rendered: float  # of its mask
    levels: int
    best_level: float  # best Dice over the levels, first click
    preselected: float
    distance: list[int]  # levels from the preselected part to the best one, by click
    nodes_needed: int | None
    baselines: dict[str, tuple[float, int | None]]


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return the overlap of two masks."""
    return float(2 * np.count_nonzero(a & b) / max(np.count_nonzero(a) + np.count_nonzero(b), 1))


def best_dice(inside: NDArray[Any], sizes: NDArray[Any], total: int) -> float:
    """Return the best Dice of any region, from its voxels in the target and in all."""
    return float((2 * inside / np.maximum(sizes + total, 1)).max())


def nodes_needed(
    parent: NDArray[np.int64], inside: NDArray[Any], sizes: NDArray[Any], total: int
) -> int | None:
    """Return how many disjoint nodes reach the Dice :data:`MASK`; None where none do.

    The largest nodes of some least purity are added, those with most of the target first; the
    best of several purities counts.
    """
    best = None
    for purity in (0.5, 0.6, 0.7, 0.8, 0.9):
        pure = inside >= purity * np.maximum(sizes, 1)
        above = np.where(parent >= 0, pure[np.maximum(parent, 0)], False)
        # An impure parent may have a pure grandparent, which then holds this node.
        for node in range(len(parent) - 1, -1, -1):
            if parent[node] >= 0:
                above[node] = pure[parent[node]] or above[parent[node]]
        top = np.flatnonzero(pure & ~above & (inside > 0))
        order = top[np.argsort(-inside[top], kind="stable")]
        hit, size = np.cumsum(inside[order]), np.cumsum(sizes[order])
        reached = np.flatnonzero(2 * hit / (size + total) >= MASK)
        if len(reached) and (best is None or reached[0] + 1 < best):
            best = int(reached[0]) + 1
    return best


def clicks(mask: NDArray[np.bool_], seed: int) -> Iterator[tuple[int, ...]]:
    """Yield the deepest voxel of a target, and random ones at least half as deep."""
    from scipy.ndimage import distance_transform_edt

    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    yield tuple(int(k) for k in np.unravel_index(depth.argmax(), mask.shape))
    deep = np.argwhere(depth >= 0.5 * depth.max())
    for k in np.random.default_rng(seed).integers(len(deep), size=CLICKS - 1):
        yield tuple(int(v) for v in deep[k])


def score(
    case: Case,
    target: str,
    mask: NDArray[np.bool_],
    tree: PartTree,
    baselines: list[Baseline],
    seed: int,
) -> Scores:
    """Measure one target."""
    total = int(mask.sum())
    inside = tree.sum_up(np.bincount(tree.cells[mask], minlength=tree.leaves))
    node, union = tree.best_node(mask)
    distance, first = [], (0, 0.0, 0.0)
    for number, place in enumerate(clicks(mask, seed)):
        part = tree.at(place)
        nodes = np.array([n[0] for n in part.levels])
        overlap = 2 * inside[nodes] / (tree.voxels[nodes] + total)
        best = int(overlap.argmax())
        distance.append(abs(best - part.level))
        if number == 0:
            shown = dice(tree.mask(part.levels[best]), mask)
            first = (len(nodes), shown, dice(tree.mask(part.nodes), mask))
    others = {}
    for baseline in baselines:
        found = np.bincount(baseline.cells[mask], minlength=baseline.leaves)
        values = baseline.sum_up(found)
        needed = None
        if baseline.parent is not None:
            needed = nodes_needed(baseline.parent, values, baseline.sizes, total)
        others[baseline.name] = (best_dice(values, baseline.sizes, total), needed)
    return Scores(
        case, target, union, dice(tree.mask(node), mask), *first, distance,
        nodes_needed(tree.parent.astype(np.int64), inside, tree.voxels, total), others,
    )  # fmt: skip


def measure_times(
    tree: PartTree, volume: Volume, field: GaussianField, runs: int
) -> dict[str, Any]:
    """Time making the tree, outlines and masks, all on one thread."""
    from napari_medgs._util.threads import limit_threads
    from napari_medgs.hierarchy import PartParams

    def seconds(task: Any, repeats: int) -> tuple[float, float]:
        wall, cpu = [], []
        for _ in range(repeats):
            started, before = time.perf_counter(), time.process_time()
            task()
            wall.append(time.perf_counter() - started)
            cpu.append(time.process_time() - before)
        return median(wall), median(cpu)

    middle = tuple(n // 2 for n in tree.grid.shape)
    numbers: dict[str, Any] = {"gaussians": len(field), "leaves": tree.leaves}
    with limit_threads(1):
        numbers["tree"] = seconds(
            lambda: part_tree(volume, field=field, params=PartParams(threads=1)), runs
        )
        part = tree.at(middle)
        for axis in range(3):

            def hover(axis: int = axis) -> None:
                tree.outline(tree.at(middle).nodes, axis, middle[axis])

            hover()
            numbers[f"hover {axis}"] = seconds(hover, 5 * runs)
        tree.mask(part.nodes)
        numbers["mask"] = seconds(lambda: tree.mask(part.nodes), runs)
    return numbers


Measured = tuple[list[Scores], dict[str, Any] | None, dict[str, float]]


def measure_case(case: Case, context: Context) -> Measured:
    """Return scores of one image's targets, times where it has a row for them, and seconds."""
    from napari_medgs.segmentation.api import FIT_PARAMS, fit_for_segmentation

    volume, masks = case.load(context)
    field = fit_for_segmentation(volume, FIT_PARAMS)
    tree = part_tree(volume, field=field)
    baselines, seconds = baselines_of(volume, tree, case.name, context)
    rows = [
        score(case, target, mask, tree, baselines, context.seed) for target, mask in masks.items()
    ]
    for row in rows:
        context.say(f"  {case.name}: {row.target} {row.rendered:.3f}")
    timed = not case.name.startswith("hippocampus")
    times = measure_times(tree, volume, field, context.runs) if timed else None
    return rows, times, seconds


def run(context: Context) -> CaseResult:
    """Run the case; about ten minutes, or less than one with ``quick``."""
    from napari_medgs._util.threads import limit_threads

    rows: list[Scores] = []
    times: list[tuple[str, dict[str, Any]]] = []
    baseline_seconds: dict[str, dict[str, float]] = {}
    for case in cases(context.quick):
        with limit_threads(context.threads):
            found, timed, baseline_seconds[case.name] = measure_case(case, context)
        rows += found
        if timed is not None:
            times.append((case.name, timed))
    from suite.discover_report import notes, ratios, tables

    return CaseResult(
        "discover",
        "parts from one click, without training",
        ratios=ratios(rows),
        tables=tables(rows, times),
        notes=notes(),
        numbers={
            "targets": [
                {
                    "case": r.case.name, "split": r.case.split, "target": r.target,
                    "node": r.node, "rendered": r.rendered, "levels": r.levels,
                    "best_level": r.best_level, "preselected": r.preselected,
                    "distance": r.distance, "nodes_needed": r.nodes_needed,
                    "baselines": {k: list(v) for k, v in r.baselines.items()},
                }
                for r in rows
            ],
            "times": dict(times),
            "baseline_seconds": baseline_seconds,
        },
    )  # fmt: skip
