"""The sets of the benchmark of classification; the fourth is made of hippocampus volumes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_medgs.classification import LabeledDataset, load_dataset
from napari_medgs.io import read_labels, read_volume

EDGE = 20
JITTER = 3
CASES = {"train": (0, 120), "val": (120, 140), "test": (140, 200)}
NAMES = ("anterior", "posterior", "elsewhere")


def load_task(data: Path, name: str) -> LabeledDataset:
    """Return one of the sets by name."""
    if name != "hippocampus":
        return load_dataset(data / "medmnist" / f"{name}.npz")
    return hippocampus(data / "hippocampus_msd")


def hippocampus(folder: Path) -> LabeledDataset:
    """Return gray-value cubes of 20 mm: about the anterior part, the posterior part, or neither.

    The center is the part's centroid moved by up to 3 voxels, or a voxel at least 8 mm from any
    part. The first 120 cases by number train, 20 validate, 60 test. Masks only place the cubes.
    """
    files = sorted((folder / "images").glob("*.nii.gz"))
    rng = np.random.default_rng(0)
    images: dict[str, list[np.ndarray]] = {split: [] for split in CASES}
    labels: dict[str, list[int]] = {split: [] for split in CASES}
    for split, (first, last) in CASES.items():
        for path in files[first:last]:
            volume = read_volume(path)
            mask, _ = read_labels(folder / "labels" / path.name, volume.grid)
            gray = volume.data[0].astype(np.float32)
            low, high = np.percentile(gray, (0.5, 99.5))
            gray = np.clip((gray - low) / (high - low), 0, 1)
            for label in (1, 2, 3):
                center = _center(mask, label, rng)
                images[split].append(_cube(gray, center)[None])
                labels[split].append(label - 1)
    return LabeledDataset(
        "hippocampus",
        {s: np.stack(v) for s, v in images.items()},
        {s: np.asarray(v, np.int64)[:, None] for s, v in labels.items()},
        "multi-class",
        NAMES,
        "percentile",
    )


def _center(mask: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
    if label < 3:
        middle = np.argwhere(mask == label).mean(0)
        return np.round(middle + rng.uniform(-JITTER, JITTER, 3)).astype(int)
    from scipy.ndimage import distance_transform_edt

    far = np.argwhere(distance_transform_edt(mask == 0) >= 8)
    return far[rng.integers(len(far))]


def _cube(gray: np.ndarray, center: np.ndarray) -> np.ndarray:
    half = EDGE // 2
    padded = np.pad(gray, half, mode="edge")
    z, y, x = center
    return padded[z : z + EDGE, y : y + EDGE, x : x + EDGE]
