"""What tells a wrong mask of a new case: agreement of the folds, entropy, unlikeness, or all.

    python benchmarks/learning_failures.py [--data DIR] [--cases 20] [--steps 300] [--model FILE]
                                           [--json FILE]

A model with four folds is trained on hippocampi. The 40 test cases are segmented as they are, and
degraded as scans are: noise, blur, a bias field, thick slices, another contrast. A case with a
mean Dice below 0.6 has failed. A score that combines several is a logistic regression fitted to
the other half of the cases (all versions of a case are in one half).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning import Run, source_of, split, training_names
from learning_report import FAILED, area_under_curve
from suite.registry import find_data

RESAMPLES = 1000


def degraded(image: NDArray[np.float32], kind: str, seed: int) -> NDArray[np.float32]:
    """Return an image (Z, Y, X) as another scan would have it."""
    from scipy.ndimage import gaussian_filter, zoom

    random = np.random.default_rng(seed)
    spread = float(image.std())
    if kind == "noise":
        return image + spread * random.standard_normal(image.shape, np.float32)
    if kind == "blur":
        return gaussian_filter(image, 2.0)
    if kind == "bias":
        coarse = random.uniform(-1.5, 1.5, (2, 2, 2))
        field = zoom(coarse, np.array(image.shape) / 2, order=1)
        return np.asarray(image * np.exp(field), np.float32)
    if kind == "thick":
        step = 5
        rows = np.minimum(np.arange(image.shape[0]) // step * step + step // 2, len(image) - 1)
        return image[rows]
    if kind == "inverted":
        return image.max() - image
    return image


KINDS = ("plain", "noise", "blur", "bias", "thick", "inverted")


def scores_of(segmenter: Any, volume: Any, truth: NDArray[Any]) -> dict[str, float]:
    """Return Dice, and what one can know without the truth."""
    from napari_medgs.learning.training.measure import agreement_of
    from napari_medgs.learning.trust import unlike_training
    from napari_medgs.metrics.contrasts import label_agreement

    values = segmenter.card.class_values
    found = segmenter.segment(volume, folds=True, probabilities=True)
    p = np.clip(found.probability(), 1e-6, 1)
    entropy = float(-(p * np.log(p)).sum())
    voxels = max(1, int((found.labels > 0).sum()))
    return {
        "dice": float(label_agreement(found.labels, truth, values).mean()),
        "agreement": agreement_of(found.fold_labels, values),
        "entropy": entropy / voxels,
        "unlike": float(unlike_training(segmenter.inputs(volume), segmenter.card) or 0.0),
    }


def combined(rows: list[dict[str, Any]], names: tuple[str, ...]) -> NDArray[np.float64]:
    """Return the probability that a case is good, fitted to the cases of the other half."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = np.array([[r[n] for n in names] for r in rows])
    good = np.array([r["dice"] >= FAILED for r in rows])
    half = np.array([r["case"] % 2 for r in rows])
    found = np.zeros(len(rows))
    for side in (0, 1):
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(table[half != side], good[half != side])
        found[half == side] = model.predict_proba(table[half == side])[:, 1]
    return found


def interval(score: NDArray[Any], failed: NDArray[Any], case: NDArray[Any]) -> tuple[float, float]:
    """Return the 95 % interval of the area, by drawing cases with all of their versions."""
    random, areas = np.random.default_rng(0), []
    groups = [np.flatnonzero(case == k) for k in np.unique(case)]
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[k] for k in random.integers(len(groups), size=len(groups))])
        area = area_under_curve(score[rows], failed[rows])
        if area is not None:
            areas.append(area)
    low, high = np.percentile(areas, (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    """Run from the command line."""
    from scipy.stats import spearmanr

    from napari_medgs.data.volume import Volume
    from napari_medgs.io import read_labels, read_volume
    from napari_medgs.learning import (
        LearnParams,
        load_segmenter,
        save_segmenter,
        train_segmenter,
    )

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--model", type=Path, help="kept here; used if it is there")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    folder = find_data(options.data) / "hippocampus_msd"
    if options.model is not None and options.model.is_file():
        segmenter = load_segmenter(options.model)
    else:
        params = LearnParams(
            steps=options.steps, folds=options.folds, workers=0, accelerator="cpu", threads=1
        )
        names = training_names(folder, Run("unet", options.cases, 0, 0.0))
        segmenter = train_segmenter(source_of(folder, names), params).segmenter
        if options.model is not None:
            save_segmenter(options.model, segmenter)
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(split(folder)[1]):
        volume = read_volume(folder / "images" / f"{name}.nii.gz")
        truth, _ = read_labels(folder / "labels" / f"{name}.nii.gz", like=volume.grid)
        for kind in KINDS:
            image = degraded(volume.channel(0), kind, number)
            found = scores_of(segmenter, Volume(image[None], volume.grid), truth)
            rows.append({"case": number, "kind": kind, **found})
    for kind in KINDS:
        here = np.array([r["dice"] for r in rows if r["kind"] == kind])
        print(f"{kind:10s} Dice {here.mean():.3f}, {int((here < FAILED).sum())} below {FAILED}")
    dice = np.array([r["dice"] for r in rows])
    case = np.array([r["case"] for r in rows])
    failed = dice < FAILED
    signals = {
        "agreement": np.array([r["agreement"] for r in rows]),
        "entropy / volume": -np.array([r["entropy"] for r in rows]),
        "unlike training": -np.array([r["unlike"] for r in rows]),
    }
    if 2 <= failed.sum() <= len(rows) - 2:
        signals["agreement, entropy"] = combined(rows, ("agreement", "entropy"))
        signals["all three"] = combined(rows, ("agreement", "entropy", "unlike"))
    for name, score in signals.items():
        area = area_under_curve(score, failed)
        shown = ""
        if area is not None:
            low, high = interval(score, failed, case)
            shown = f"{area:.3f} ({low:.3f} to {high:.3f})"
        print(f"{name:20s} Spearman {spearmanr(score, dice).statistic:+.2f}  AUC {shown}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
