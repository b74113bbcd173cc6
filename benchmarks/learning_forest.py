"""Large scans coarse first, in full where unsure: seconds, memory and Dice by size.

    python benchmarks/learning_forest.py [--sizes 128 256 400x512x512] [--steps 300] [--json FILE]

A network is trained on synthetic volumes of 112 voxels an edge: a smooth organ, in half of them
with a branching tree of thin tubes, in noise. Larger volumes are then segmented in full and by
``--forest``, in a process of their own each. The organ alone, in a larger and larger field of
view, is what the forest is made for; the tree fills the volume with edges.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suite.isolated import peak_bytes

SCALE, TUBES, STEPS_OF_TUBE = 64, 32, 42
TRAIN_SIZE = 112
"""Half of the size in voxels of what an organ lies in, tubes in so much, their length."""


def shape_of(size: str) -> tuple[int, int, int]:
    """Return the shape (z, y, x) of "256" or "400x512x512"."""
    sides = [int(n) for n in size.split("x")]
    z, y, x = sides if len(sides) == 3 else sides * 3
    return z, y, x


def synthetic(
    shape: tuple[int, int, int], seed: int, kind: str
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return a noisy volume and its mask: 1 a smooth organ, 2 a branching tree.

    Parameters
    ----------
    shape : (z, y, x)
    seed : int
    kind : {"organ", "tree"}
        "tree": the tree, too.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    random = np.random.default_rng(seed)
    axes = [(np.arange(n, dtype=np.float32) - n / 2) / SCALE for n in shape]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    middle, radii = random.uniform(-0.3, 0.3, 3), random.uniform(0.25, 0.4, 3)
    wave = 0.12 * np.sin(4 * z + 3 * y + random.uniform(0, 6)) * np.cos(5 * x)
    away = ((z - middle[0]) / radii[0]) ** 2 + ((y - middle[1]) / radii[1]) ** 2
    labels = (away + ((x - middle[2]) / radii[2]) ** 2 + wave < 1).astype(np.uint8)
    if kind == "tree":
        lines, size = np.ones(shape, bool), np.array(shape)
        ends = [(random.uniform(0.1, 0.9, 3) * size, random.normal(size=3))]
        for _ in range(int(TUBES * float(np.prod(size / (2 * SCALE))))):
            place, way = ends[random.integers(len(ends))]
            for _ in range(STEPS_OF_TUBE):
                way = way / np.linalg.norm(way) + 0.15 * random.normal(size=3)
                place = place + way / np.linalg.norm(way)
                cell = np.round(place).astype(int)
                if (cell < 0).any() or (cell >= size).any():
                    break
                lines[tuple(cell)] = False
            ends.append((np.clip(place, 1, size - 2), random.normal(size=3)))
        tube = distance_transform_edt(lines) < 2.0
        labels[tube] = 2
    values = np.array([0.0, 1.0, 2.0], np.float32)[labels]
    image = gaussian_filter(values, 0.7)
    image += 0.35 * random.standard_normal(shape, np.float32)
    return image, labels


def train(steps: int, out: Path) -> None:
    """Train and write the segmenter."""
    from napari_medgs.data.grid import Grid
    from napari_medgs.io import write_image, write_labels
    from napari_medgs.learning import (
        LearnParams,
        find_training_cases,
        save_segmenter,
        train_segmenter,
    )

    with tempfile.TemporaryDirectory() as folder:
        for name in ("images", "labels"):
            (Path(folder) / name).mkdir()
        grid = Grid((TRAIN_SIZE,) * 3, np.eye(4))
        for seed in range(8):
            image, labels = synthetic((TRAIN_SIZE,) * 3, seed, "tree" if seed % 2 else "organ")
            write_image(Path(folder) / "images" / f"c{seed}.nii.gz", image, grid)
            write_labels(Path(folder) / "labels" / f"c{seed}.nii.gz", labels, grid)
        params = LearnParams(
            steps=steps, folds=0, spacing=(1.0, 1.0, 1.0), workers=0, accelerator="cpu"
        )
        result = train_segmenter(find_training_cases(folder), params, values=(1, 2))
        save_segmenter(out, result.segmenter)


def measure(model: Path, size: str, kind: str, forest: bool) -> dict[str, Any]:
    """Return what one segmentation takes and how good it is."""
    import torch

    from napari_medgs.data.volume import Volume
    from napari_medgs.learning import load_segmenter
    from napari_medgs.metrics import dice

    torch.set_num_threads(1)
    image, labels = synthetic(shape_of(size), 100, kind)
    segmenter = load_segmenter(model)
    volume = Volume.from_array(image)
    before, started = peak_bytes(), time.process_time()
    found = segmenter.segment(volume, forest=forest).labels
    seconds = time.process_time() - started
    there = [k for k in (1, 2) if (labels == k).any()]
    return {
        "size": size, "kind": kind, "forest": forest, "cpu_seconds": seconds,
        "more_bytes": peak_bytes() - before,
        "dice": [dice(found == k, labels == k) for k in there],
    }  # fmt: skip


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", default=["128", "192", "256"])
    parser.add_argument("--kinds", nargs="+", default=["organ", "tree"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--model", type=Path, help="a segmenter trained before")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.model, **json.loads(options.one))))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or Path(folder) / "m.safetensors"
        if not model.is_file():
            train(options.steps, model)
        rows = []
        for size in options.sizes:
            for kind in options.kinds:
                for forest in (False, True):
                    task = json.dumps({"size": size, "kind": kind, "forest": forest})
                    command = [sys.executable, __file__, "--model", str(model), "--one", task]
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode:
                        print(task, done.stderr.strip().splitlines()[-1])
                        continue
                    row = json.loads(done.stdout.splitlines()[-1])
                    rows.append(row)
                    scores = " ".join(f"{d:.3f}" for d in row["dice"])
                    how = "forest" if forest else "full"
                    print(
                        f"{size:>11s} {kind:6s} {how:6s} {row['cpu_seconds']:6.1f} CPU s "
                        f"{row['more_bytes'] / 2**20:6.0f} MiB  Dice {scores}",
                        flush=True,
                    )
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
