"""Corrections of a model's mask on the 40 test hippocampi, beside strokes on five slices alone.

    python benchmarks/learning_corrections.py --model MODEL --out FILE.json [--cases 5]
                                              [--steps 1000] [--data DIR]

A case starts from the model's probabilities, as Pre-segment does. Every round adds one stroke, the
middle of the largest error in the slice with the most errors. For comparison, strokes on five
slices spread through the organ are solved without a model. A model that is not there is trained
first. Cases that are in the file already are not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning import Run, source_of, split, train, training_names
from segmentation_cases import BACKGROUND, simulate_scribbles
from suite.registry import find_data

ROUNDS, SLICES = 5, 5
CLASSES = (1, 2)
ERASE = 255
"""Value of background strokes beside a model, whose classes start at 1."""


def add_stroke(strokes: NDArray[np.uint8], mask: NDArray[Any], truth: NDArray[Any]) -> None:
    """Mark the middle of the largest error in the slice with the most errors."""
    from scipy.ndimage import distance_transform_edt, label

    wrong = mask != truth
    if not wrong.any():
        return
    z = int(wrong.sum((1, 2)).argmax())
    best: tuple[int, NDArray[np.bool_], int] | None = None
    for value in (0, *CLASSES):
        parts, count = label(wrong[z] & (truth[z] == value))
        if count:
            sizes = np.bincount(parts.ravel())[1:]
            k = int(sizes.argmax())
            if best is None or sizes[k] > best[0]:
                best = int(sizes[k]), parts == k + 1, value
    assert best is not None
    depth = distance_transform_edt(best[1])
    strokes[z][depth >= max(1, 0.6 * depth.max())] = best[2] or ERASE


def measure(segmenter: Any, folder: Path, name: str, seed: int) -> dict[str, Any]:
    """Return Dice after every round, and of strokes alone."""
    from napari_medgs.io import read_labels, read_volume
    from napari_medgs.metrics.contrasts import label_agreement
    from napari_medgs.segmentation import Prompts, SegmentModel, SegmentParams
    from napari_medgs.segmentation.api import FIT_PARAMS, fit_for_segmentation

    volume = read_volume(folder / "images" / f"{name}.nii.gz")
    truth = read_labels(folder / "labels" / f"{name}.nii.gz", like=volume.grid)[0]
    found = segmenter.segment(volume, probabilities=True)
    model = SegmentModel(
        volume, fit_for_segmentation(volume, FIT_PARAMS), SegmentParams(threads=1)
    )

    def score(mask: NDArray[Any]) -> float:
        return float(label_agreement(mask, truth, CLASSES).mean())

    strokes, mask = np.zeros(truth.shape, np.uint8), found.labels
    curve = [score(mask)]
    for _ in range(ROUNDS):
        add_stroke(strokes, mask, truth)
        given = Prompts(labels=strokes, background=ERASE, prior=found.probability())
        mask = model.update(given).labels
        curve.append(score(mask))
    drawn = simulate_scribbles(truth.astype(np.uint8), 0, SLICES, seed)
    alone = model.update(Prompts(labels=drawn, background=BACKGROUND)).labels.astype(int)
    return {"curve": curve, "alone": score(np.maximum(alone - BACKGROUND, 0))}


def main() -> None:
    """Run from the command line."""
    import torch

    from napari_medgs.learning import load_segmenter, save_segmenter

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=500, help="no case is begun after")
    options = parser.parse_args()
    folder = find_data(options.data) / "hippocampus_msd"
    if not options.model.is_file():
        wanted = Run("unet", options.cases, 0, 0.0, options.steps)
        made = train(wanted, source_of(folder, training_names(folder, wanted)))[0]
        save_segmenter(options.model, made)
    segmenter = load_segmenter(options.model)
    done: dict[str, Any] = json.loads(options.out.read_text()) if options.out.is_file() else {}
    started, cpu = time.perf_counter(), time.process_time()
    for seed, name in enumerate(split(folder)[1]):
        if name not in done and time.perf_counter() - started < options.seconds:
            done[name] = measure(segmenter, folder, name, seed)
            options.out.write_text(json.dumps(done), encoding="utf-8")
    curves = np.array([entry["curve"] for entry in done.values()])
    alone = np.array([entry["alone"] for entry in done.values()])
    print(f"{len(done)} cases, {time.process_time() - cpu:.0f} CPU s")
    print("rounds 0 to 5:", " ".join(f"{x:.3f}" for x in curves.mean(0)))
    print("worst case:   ", " ".join(f"{x:.3f}" for x in curves.min(0)))
    worse = (np.diff(curves, axis=1) < 0).sum(0)
    print("cases that lost:", " ".join(map(str, worse)))
    print(f"strokes on five slices alone: {alone.mean():.3f}")
    better = (curves[:, 2] > alone).mean()
    print(f"two corrections of the model's mask are better on {better:.0%} of the cases")


if __name__ == "__main__":
    main()
