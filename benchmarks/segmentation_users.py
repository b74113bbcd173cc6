"""Simulated users: where they stroke next, and whether uncertainty knows what is wrong."""

from __future__ import annotations

import numpy as np
from segmentation_cases import BACKGROUND, scribble_slice
from segmentation_measure import Bench, dice_of, indices

from napari_medgs.segment import Prompts

USERS = ("error", "suggested", "random")


def simulated_user(bench: Bench, rounds: int, seed: int, kind: str) -> list[float]:
    """Return the mean Dice after each round of a simulated user, from one slice on.

    "error": the user finds the slice with the most wrong voxels and strokes the middle of its
    largest wrong patch of each class. "suggested" and "random": strokes the suggested, or a
    random, slice as in the beginning.
    """
    from scipy.ndimage import distance_transform_edt
    from skimage.measure import label

    rng = np.random.default_rng([seed, 77])
    marks = bench.marks(1, seed)
    others = tuple(a for a in range(3) if a != bench.axis)
    scores = []
    for turn in range(rounds + 1):
        guess = bench.solve(marks)[1]
        scores.append(float(np.mean(dice_of(guess, bench.truth))))
        if turn == rounds:
            break
        wrong = guess != bench.truth
        if kind == "error":
            z = int(wrong.sum(axis=others).argmax())
        elif kind == "suggested":
            found = bench.model.suggest(1, bench.axis)
            if not found:
                continue
            z = found[0].index
        else:
            free = np.flatnonzero(~marks.any(axis=others))
            if not len(free):
                continue
            z = int(rng.choice(free))
        index = tuple(z if a == bench.axis else slice(None) for a in range(3))
        if kind != "error":
            fresh = scribble_slice(bench.truth[index], rng)
            marks[index] = np.where(fresh > 0, fresh, marks[index])
            continue
        for k in range(bench.classes + 1):
            pieces = label(wrong[index] & (bench.truth[index] == k))
            if not pieces.any():
                continue
            sizes = np.bincount(pieces.reshape(-1))
            sizes[0] = 0
            inside = distance_transform_edt(pieces == sizes.argmax())
            stroke = inside >= max(1.0, 0.7 * inside.max())
            marks[index][stroke] = k + 1
    return scores


def error_auc(bench: Bench, slices: int, seed: int) -> float | None:
    """Return how well uncertainty ranks wrong voxels: area under the ROC curve.

    Counted in the box of the truth and a margin of a tenth of the image; far air would flatter.
    None where nothing is wrong.
    """
    from sklearn.metrics import roc_auc_score

    prompts = Prompts(labels=bench.marks(slices, seed), background=BACKGROUND)
    result = bench.model.update(prompts)
    wrong = indices(result.labels) != bench.truth
    box = []
    for axis in range(3):
        hits = np.flatnonzero((bench.truth > 0).any(axis=tuple(a for a in range(3) if a != axis)))
        pad = int(0.1 * bench.truth.shape[axis]) + 1
        box.append(slice(max(0, int(hits[0]) - pad), int(hits[-1]) + 1 + pad))
    part = tuple(box)
    if not wrong[part].any():
        return None
    return float(roc_auc_score(wrong[part].reshape(-1), result.uncertainty()[part].reshape(-1)))
