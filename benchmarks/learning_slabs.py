"""Which number tells failed slices of a glioma: agreement of folds, soft Dice, entropy, size?

    python benchmarks/learning_slabs.py --out FOLDER [--data DIR] [--steps 200]

One patient with a glioma and four contrasts, every second voxel, axial slices, in two halves of
which one is learned and the other tested, and the other way round. As when a segmenter is
trained, four networks each leave out two of four blocks, and a fifth sees everything. A signal is
to be chosen on the slices that are learned, with the two networks that had not seen them; what it
is worth is its AUC on the other half, for a Dice of the fifth network below 0.6. Networks whose
probabilities are in the folder are not trained again. One patient: no test of new ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import learning_contrasts
from learning_report import FAILED, area_under_curve
from suite.registry import find_data

NETWORKS, BAND, LEAST, RESAMPLES = 4, 2, 10, 1000
VALUES = tuple(learning_contrasts.CLASSES)
Masks = Sequence[NDArray[Any]]


def probabilities_of(
    image: NDArray[Any], labels: NDArray[Any], learned: NDArray[Any], steps: int, seed: int
) -> NDArray[np.float16]:
    """Return what a network of some slices says of all, (Z, K, Y, X)."""
    from napari_medgs.data.grid import Grid
    from napari_medgs.data.volume import Volume, spacing_affine

    every = dict(learning_contrasts.CLASSES)
    there = {v: n for v, n in every.items() if (labels[learned] == v).any()}
    learning_contrasts.CLASSES = there  # a block may hold all of a class
    segmenter = learning_contrasts.train(image, labels, learned, steps, seed)
    learning_contrasts.CLASSES = every
    grid = Grid((1, *labels.shape[1:]), spacing_affine((2.0, 2.0, 2.0)))
    found = np.zeros((len(labels), 1 + max(VALUES), *labels.shape[1:]), np.float16)
    for z in range(len(labels)):
        volume = Volume(image[:, z][:, None], grid, learning_contrasts.CONTRASTS)
        soft = segmenter.segment(volume, probabilities=True).probability()
        by_value = segmenter.by_value(soft)
        found[z, : len(by_value)] = by_value[:, 0]
    return found


def mean_dice(mask: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the mean Dice of the classes that a slice has."""
    from napari_medgs.metrics.contrasts import label_agreement

    there = [v for v in VALUES if (truth == v).sum() > LEAST]
    return float(label_agreement(mask, truth, there).mean())


def foreground_agreement(masks: Masks) -> float:
    """Return the mean Dice of all pairs of masks, of all classes as one."""
    found = []
    for a, b in combinations(masks, 2):
        size = (a > 0).sum() + (b > 0).sum()
        found.append(2 * ((a > 0) & (b > 0)).sum() / size if size else 1.0)
    return float(np.mean(found))


def signals_of(soft: NDArray[Any]) -> dict[str, float]:
    """Return what one can know of a slice from networks' probabilities (N, K, Y, X)."""
    from scipy.ndimage import binary_dilation

    from napari_medgs.learning.training.measure import agreement_of

    masks, mean = list(soft.argmax(1)), soft.mean(0)
    mask = mean.argmax(0)
    band = binary_dilation(mask > 0, iterations=BAND)
    clipped = np.clip(mean, 1e-6, 1)
    entropy = -(clipped * np.log(clipped)).sum(0)
    dice = [
        2 * mean[v][mask == v].sum() / (mean[v].sum() + (mask == v).sum())
        for v in VALUES
        if (mask == v).any() or mean[v].sum() > LEAST
    ]
    pairs = [(a == b)[band].mean() for a, b in combinations(masks, 2)] if band.any() else [0.0]
    return {
        "agreement of the folds": agreement_of(masks, VALUES),
        "agreement, classes as one": foreground_agreement(masks),
        "agreement in the band": float(np.mean(pairs)),
        "soft Dice": float(np.mean(dice)) if dice else 0.0,
        "entropy in the band": -float(entropy[band].mean()) if band.any() else -9.0,
        "entropy over the size": -float(entropy.sum()) / max(1, int((mask > 0).sum())),
        "size": float(np.log1p((mask > 0).sum())),
    }


def rows_of(
    image: NDArray[Any], labels: NDArray[Any], halves: Sequence[NDArray[Any]], out: Path,
    side: int, steps: int,
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:  # fmt: skip
    """Return the rows of the learned slices and of the tested ones."""
    from napari_medgs.learning.training.folds import left_out, unseen_by

    learned, tested = halves[side], halves[1 - side]
    blocks = np.array_split(learned, NETWORKS)
    soft = []
    for k in range(NETWORKS + 1):
        away = left_out(k, NETWORKS) if k < NETWORKS else ()
        gone = np.concatenate([np.zeros(0, int), *[blocks[b] for b in away]])
        path = out / f"half{side}_network{k}_{steps}steps.npz"
        if not path.is_file():
            shown = np.setdiff1d(learned, gone)
            np.savez_compressed(path, p=probabilities_of(image, labels, shown, steps, k))
        soft.append(np.load(path)["p"].astype(np.float32))
    *folds, whole = soft
    known, new = [], []
    for number, block in enumerate(blocks):
        unseen = [folds[k] for k in unseen_by(number, NETWORKS)]
        for z in block:
            if max((labels[z] == v).sum() for v in VALUES) > LEAST:
                dice = [mean_dice(p[z].argmax(0), labels[z]) for p in unseen]
                row = signals_of(np.stack([p[z] for p in unseen]))
                known.append({**row, "dice": float(np.mean(dice))})
    for z in tested:
        if max((labels[z] == v).sum() for v in VALUES) > LEAST:
            row = signals_of(np.stack([p[z] for p in folds]))
            new.append({**row, "dice": mean_dice(whole[z].argmax(0), labels[z])})
    return known, new


def area(rows: list[dict[str, float]], name: str) -> str:
    """Return the AUC of a signal with its 95 % interval over slices."""
    score = np.array([row[name] for row in rows])
    failed = np.array([row["dice"] < FAILED for row in rows])
    random, found = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        chosen = random.integers(len(rows), size=len(rows))
        one = area_under_curve(score[chosen], failed[chosen])
        if one is not None:
            found.append(one)
    whole = area_under_curve(score, failed)
    if whole is None:
        return ""
    low, high = np.percentile(found, (2.5, 97.5))
    return f"{whole:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Run from the command line."""
    import torch
    from scipy.stats import spearmanr

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of probabilities")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    image, labels = learning_contrasts.load(find_data(options.data))
    halves = np.array_split(np.flatnonzero((labels > 0).any((1, 2))), 2)
    known: list[dict[str, float]] = []
    new: list[dict[str, float]] = []
    for side in (0, 1):
        a, b = rows_of(image, labels, halves, options.out, side, options.steps)
        known, new = known + a, new + b
    for name, rows in (("learned, by networks that had not seen them", known), ("tested", new)):
        dice = np.array([row["dice"] for row in rows])
        print(
            f"{name}: {len(rows)} slices, Dice {dice.mean():.3f}, {(dice < FAILED).sum()} failed"
        )
    print("| signal | AUC, learned slices | AUC, tested slices | Spearman, tested |")
    print("|---|--:|--:|--:|")
    for name in known[0]:
        if name != "dice":
            rho = spearmanr([r[name] for r in new], [r["dice"] for r in new]).statistic
            print(f"| {name} | {area(known, name)} | {area(new, name)} | {rho:+.2f} |")


if __name__ == "__main__":
    main()
