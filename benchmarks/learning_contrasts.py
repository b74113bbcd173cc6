"""What tells a wrong mask of a new scan: agreement of folds, or variance of contrast ranks?

    python benchmarks/learning_contrasts.py [--data DIR] [--steps 300] [--json FILE]

One patient with a glioma and four contrasts, every second voxel, axial slices. Four networks learn
from one half of the brain's slices, each without a block of them, and are tested on the other
half; then the other way round. For every test slice: mean Dice of the networks, the agreement of
their masks, and the variance of the contrasts' ranks over the networks, exact over 16 subsets. The
value of a subset is the Dice with the truth, as published, or with the network's own full answer,
which a new scan allows. One patient: the halves are neighbors, this is no test of new patients.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning_report import FAILED, area_under_curve
from suite.registry import find_data

CONTRASTS = ("t1c", "t1n", "t2f", "t2w")
CLASSES = {1: "core", 2: "edema", 3: "enhancing"}
NETWORKS, EVERY = 4, 2
RANKINGS = {1: (1, 2, 4, 3), 2: (4, 3, 1, 2), 3: (1, 2, 4, 3)}
"""A reader's ranks of the contrasts by class: contrast agent for core and rim, else FLAIR."""


def load(data: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the contrasts (4, Z, Y, X) and labels around the tumor."""
    import nibabel

    folder = data / "mr_brats4_glioma"
    images = [np.asarray(nibabel.load(folder / f"{c}.nii.gz").dataobj) for c in CONTRASTS]
    labels = np.asarray(nibabel.load(folder / "seg_brats23.nii.gz").dataobj).astype(np.int64)
    there = np.argwhere(labels)
    low, high = np.maximum(there.min(0) - 8, 0), there.max(0) + 9
    box = tuple(slice(a, b, EVERY) for a, b in zip(low, high, strict=True))
    stack = np.stack([image[box] for image in images]).astype(np.float32)
    return np.moveaxis(stack, 3, 1), np.moveaxis(labels[box], 2, 0)


def train(
    image: NDArray[Any], labels: NDArray[Any], slices: NDArray[Any], steps: int, seed: int
) -> Any:
    """Return a segmenter of some slices."""
    from napari_medgs.data.grid import Grid
    from napari_medgs.data.volume import spacing_affine
    from napari_medgs.io import write_image, write_labels
    from napari_medgs.learning import LearnParams, train_segmenter
    from napari_medgs.learning.data.sources import TrainingCase, TrainingSource

    cases = []
    grid = Grid((1, *labels.shape[1:]), spacing_affine((2.0, 2.0, 2.0)))
    with tempfile.TemporaryDirectory() as folder:
        for z in slices:
            names = tuple(f"{folder}/{z}_{c}.nii.gz" for c in CONTRASTS)
            for name, channel in zip(names, image, strict=True):
                write_image(name, channel[z][None], grid)
            write_labels(f"{folder}/{z}_seg.nii.gz", labels[z][None].astype(np.uint8), grid)
            cases.append(TrainingCase(str(z), names, f"{folder}/{z}_seg.nii.gz"))
        params = LearnParams(
            steps=steps, folds=0, batch_size=8, workers=0, accelerator="cpu", seed=seed, threads=1
        )
        source = TrainingSource(tuple(cases), CLASSES, CONTRASTS, folder)
        return train_segmenter(source, params).segmenter


def test_slices(
    networks: list[Any], image: NDArray[Any], labels: NDArray[Any], slices: NDArray[Any]
) -> list[dict[str, float]]:
    """Return the numbers of every slice that has a tumor."""
    from napari_medgs.data.grid import Grid
    from napari_medgs.data.volume import Volume, spacing_affine
    from napari_medgs.learning.training.measure import agreement_of
    from napari_medgs.metrics.contrasts import (
        contrast_subsets,
        label_agreement,
        rank_variance,
        ranking_agreement,
        shapley_of,
    )

    found = []
    grid = Grid((1, *labels.shape[1:]), spacing_affine((2.0, 2.0, 2.0)))
    every = contrast_subsets(len(CONTRASTS))
    for z in slices:
        truth = labels[z][None]
        there = [k for k in CLASSES if (truth == k).sum() > 10]
        if not there:
            continue
        volume = Volume(image[:, z][:, None], grid, CONTRASTS)
        masks, with_truth, without = [], [], []
        for network in networks:
            answers = {
                s: network.segment(volume, absent=[c for c in range(4) if c not in s]).labels
                for s in every
            }
            full = answers[every[-1]]
            masks.append(full)
            for table, reference in ((with_truth, truth), (without, full)):
                values = {s: label_agreement(a, reference, there) for s, a in answers.items()}
                table.append(shapley_of(values, 4))
        per_class = np.array(with_truth)  # networks, contrasts, classes
        found.append(
            {
                "dice": float(np.mean([label_agreement(m, truth, there) for m in masks])),
                "agreement": agreement_of(masks, tuple(CLASSES)),
                "variance_with_truth": rank_variance(per_class.mean(2)),
                "variance_without": rank_variance(np.array(without).mean(2)),
                "ranking": float(
                    np.mean(
                        [
                            ranking_agreement(per_class.mean(0)[:, i], RANKINGS[k])
                            for i, k in enumerate(there)
                        ]
                    )
                ),
            }
        )
    return found


def main() -> None:
    """Run from the command line."""
    from scipy.stats import spearmanr

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    image, labels = load(find_data(options.data))
    halves = np.array_split(np.flatnonzero((labels > 0).any((1, 2))), 2)
    rows = []
    for train_on, test_on in (halves, halves[::-1]):
        blocks = np.array_split(train_on, NETWORKS)
        networks = [
            train(image, labels, np.setdiff1d(train_on, block), options.steps, k)
            for k, block in enumerate(blocks)
        ]
        rows += test_slices(networks, image, labels, test_on)
        print(
            f"{len(rows)} slices, mean Dice {np.mean([r['dice'] for r in rows]):.3f}", flush=True
        )
    dice = np.array([r["dice"] for r in rows])
    print(f"{(dice < FAILED).sum()} of {len(rows)} below {FAILED}")
    for what, sign in (
        ("agreement", 1), ("variance_with_truth", -1), ("variance_without", -1), ("ranking", 1),
    ):  # fmt: skip
        score = np.array([r[what] for r in rows])
        area = area_under_curve(sign * score, dice < FAILED)
        shown = "" if area is None else f"{area:.3f}"
        print(f"{what:20s} Spearman {spearmanr(score, dice).statistic:+.2f}  AUC {shown}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
