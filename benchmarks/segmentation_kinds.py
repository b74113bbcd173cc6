"""Phantoms of kinds of structures that fail in the same way, with simulated strokes.

    python benchmarks/segmentation_kinds.py [--kinds NAME ...] [--seeds 2] [--pictures DIR]

Dice and volume ratio on 1, 3 and 5 slices, and the suggested slice's number of components that no
stroke has touched. ``strokes alone`` is a solve that looks for no components without a stroke.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.segmentation import Prompts, SegmentModel, SegmentParams
from napari_medgs.segmentation.advanced import SolverParams
from napari_medgs.segmentation.api import fit_for_segmentation
from napari_medgs.segmentation.term_params import ScatterParams
from segmentation_cases import BACKGROUND, simulate_scribbles
from segmentation_measure import dice_of, indices, ratios_of

SHAPE = 24, 64, 64
SPACING = {"horns": (7.5, 0.5, 0.5)}
SLICES = 1, 3, 5
ALONE = SegmentParams(advanced=SolverParams(scatter=ScatterParams(min_components=0)))
WAYS = {"strokes alone": ALONE, "default": SegmentParams()}
Phantom = tuple[NDArray[np.float32], NDArray[np.uint8]]


def phantom(kind: str, seed: int) -> Phantom:
    """Return the image and the truth of a kind."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng([seed, 7])
    z, y, x = np.indices(SHAPE).astype(float)
    image, truth = np.full(SHAPE, 60.0), np.zeros(SHAPE, np.uint8)
    around = np.hypot(y - 32, x - 32)
    if kind == "lesions":  # of one look, most of them on other slices than the strokes
        image[around > 28] = 10
        truth[_balls(25, rng)] = 1
        image[truth == 1] = 100
    elif kind == "blood":  # a thin wall between two cavities full of it
        left = ((x - 23) / 15) ** 2 + ((y - 32) / 20) ** 2 < 1
        right = ((x - 48) / 9) ** 2 + ((y - 32) / 19) ** 2 < 1
        image[left | right] = 120
        image[np.abs(x - 38.5) < 0.6] = 100
        truth[left] = 1
    elif kind == "ring":  # a wall around blood; what lies outside looks the same
        inner = 14 + 1.5 * np.sin(z / 4)
        image[:] = 70
        image[around < inner] = 120
        image[(around >= inner + 5) & (around < inner + 6)] = 58
        truth[(around >= inner) & (around < inner + 5)] = 1
    elif kind == "middle":  # the middle of three alike
        image[:] = 40
        for k, center in enumerate((14, 32, 50)):
            part = ((x - center) / 8.2) ** 2 + ((y - 32) / 12) ** 2 < 1
            image[part] = 90
            truth[part & (k == 1)] = 1
        image[(np.abs(x - 23) < 0.8) | (np.abs(x - 41) < 0.8)] = 55
    elif kind == "stack":  # one of three alike, with a bridge over the gaps between them
        disc = z % 9 < 6
        image[((around < 13) & disc) | (np.hypot(y - 43, x - 32) < 3)] = 100
        truth[(around < 13) & disc & (np.abs(z - 11.5) < 3)] = 1
    elif kind == "horns":  # fine branches in thick slices: gray matter in a spinal cord
        rise, shift = np.cumsum(rng.normal(0, 0.7, (2, SHAPE[0], 1, 1)), axis=1)
        v, u = y - 32 - rise, x - 32 - shift
        side = np.abs(u)
        front = ((v - 4.2) / 3.6) ** 2 + ((side - 5) / 2.6) ** 2 < 1
        back = (np.abs(side - 4.6 + 0.28 * v) < 1.25) & (v < 4) & (v > -9)
        truth[front | back | ((np.abs(v - 1) < 1.1) & (side < 5))] = 1
        tissue = gaussian_filter(rng.normal(0, 1, SHAPE), (0.6, 5, 5))
        image = 100 + 40 * tissue / tissue.std()
        image[(v / 19) ** 2 + (u / 23) ** 2 < 1] = 200
        image[(v / 12) ** 2 + (u / 16) ** 2 < 1] = 110
        image[truth == 1] = 154
    else:  # "rim": a tumor with a bright rim around a dark core
        radius = np.sqrt((x - 32) ** 2 + (y - 32) ** 2 + (1.3 * (z - 12)) ** 2)
        image[radius < 20] = 75
        image[radius < 14] = 110
        image[radius < 10] = 25
        truth[radius < 14] = 1
    blur = (0, 0.8, 0.8) if kind == "horns" else 0.7
    noisy = gaussian_filter(image, blur) + rng.normal(0, 6, SHAPE)
    return noisy.astype(np.float32), truth


KINDS = "lesions", "blood", "ring", "middle", "stack", "rim", "horns"


def _balls(count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return balls that do not touch, of 1.3 to 3.5 voxels."""
    z, y, x = np.indices(SHAPE)
    made: list[tuple[NDArray[np.float64], float]] = []
    mask = np.zeros(SHAPE, np.bool_)
    while len(made) < count:
        place, radius = rng.uniform([2, 10, 10], [22, 54, 54]), rng.uniform(1.3, 3.5)
        apart = all(np.linalg.norm(place - p) > radius + r + 3 for p, r in made)
        if apart and np.hypot(*(place[1:] - 32)) < 22:
            made.append((place, radius))
            square = sum((a - c) ** 2 for a, c in zip((z, y, x), place, strict=True))
            mask |= square < radius**2
    return mask


def missed_components(
    model: SegmentModel, truth: NDArray[Any], marks: NDArray[Any], found: NDArray[Any]
) -> str:
    """Return how many components without stroke the mask lacks in the suggested slice."""
    from scipy.ndimage import label

    parts, _ = label(truth)
    lost = (truth > 0) & (found == 0) & ~np.isin(parts, parts[marks > BACKGROUND])
    per_slice = [len(np.unique(plane[gone])) for plane, gone in zip(parts, lost, strict=True)]
    chosen = model.suggest(1, axis=0)
    return f"{per_slice[chosen[0].index] if chosen else 0} of at most {max(per_slice)}"


def draw(
    image: NDArray[Any],
    truth: NDArray[Any],
    marks: NDArray[Any],
    masks: dict[str, NDArray[Any]],
    planes: list[int],
    path: Path,
) -> None:
    """Draw the truth with strokes (top) and each mask over some slices."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows: dict[str, NDArray[Any]] = {"truth, strokes": truth, **masks}
    size = 1.7 * len(planes), 1.7 * len(rows)
    figure, axes = plt.subplots(len(rows), len(planes), figsize=size, squeeze=False)
    for row, (name, mask) in zip(axes, rows.items(), strict=True):
        for axis, z in zip(row, planes, strict=True):
            axis.imshow(image[z], cmap="gray")
            if mask[z].any():
                axis.contour(mask[z] > 0, [0.5], colors="lime", linewidths=0.9)
            if mask is truth:
                for value, color in ((BACKGROUND, "red"), (BACKGROUND + 1, "yellow")):
                    v, u = np.nonzero(marks[z] == value)
                    axis.plot(u, v, "s", markersize=1, color=color)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(f"slice {z}" if mask is truth else "", fontsize=7, pad=2)
        row[0].set_ylabel(name, fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    for kind in given.kinds:
        for seed in range(given.seeds):
            image, truth = phantom(kind, seed)
            volume = Volume.from_array(image, spacing=SPACING.get(kind, (1.0, 1.0, 1.0)))
            model = SegmentModel(volume, fit_for_segmentation(volume))
            for count in SLICES:
                marks = simulate_scribbles(truth, 0, count, seed)
                masks = {}
                for way, params in WAYS.items():
                    model.params = params
                    started = time.process_time()
                    result = model.update(Prompts(labels=marks, background=BACKGROUND))
                    seconds = time.process_time() - started
                    masks[way] = found = indices(result.labels)
                    line = f"{kind} {seed}, {count} slices, {way}: {dice_of(found, truth)[0]:.3f}"
                    line += f" ({ratios_of(found, truth)[0]:.2f}), {seconds:.2f} CPU s"
                    if kind == "lesions":
                        missed = missed_components(model, truth, marks, found)
                        line += f", suggested slice lacks {missed} components"
                    print(line, flush=True)
                if given.pictures and not seed:
                    stroked = np.flatnonzero(marks.any(axis=(1, 2)))
                    planes = sorted({6, 12, 16, int(stroked[0])})
                    path = given.pictures / f"kind_{kind}_{count}.png"
                    draw(image, truth, marks, masks, planes, path)


if __name__ == "__main__":
    main()
