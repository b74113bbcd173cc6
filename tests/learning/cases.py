"""Small cases to train on: a bright ball (value 2) in a gray box (value 5)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import spacing_affine
from napari_medgs.io import write_image, write_labels

NAMES = {2: "ball", 5: "box"}


def phantom(
    number: int, size: int = 16, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> tuple[np.ndarray, np.ndarray, Grid]:
    """An image, its mask and their grid, another one for each number."""
    random = np.random.default_rng(number)
    shape = tuple(int(np.ceil(size / s)) for s in spacing)
    place = np.meshgrid(*[(np.arange(n) + 0.5) * s for n, s in zip(shape, spacing)], indexing="ij")
    middle = size / 2 + random.uniform(-1.5, 1.5, 3)
    away = [p - m for p, m in zip(place, middle)]
    labels = np.zeros(shape, np.uint8)
    labels[np.max(np.abs(away), axis=0) < 0.34 * size] = 5
    labels[np.sqrt(np.sum(np.square(away), axis=0)) < 0.22 * size] = 2
    image = np.array([10, 0, 200, 0, 0, 100], np.float32)[labels]
    image += random.normal(0, 8, shape).astype(np.float32)
    affine = spacing_affine(spacing)
    affine[:3, 3] = random.uniform(-50, 50, 3)
    return image, labels, Grid(shape, affine)


def write_nnunet(folder: Path, count: int = 4, contrasts: int = 1, **options) -> Path:
    """Cases in nnU-Net's raw layout."""
    for k in range(count):
        image, labels, grid = phantom(k, **options)
        for c in range(contrasts):
            (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
            write_image(folder / "imagesTr" / f"case{k}_{c:04d}.nii.gz", image * (c + 1), grid)
        (folder / "labelsTr").mkdir(exist_ok=True)
        write_labels(folder / "labelsTr" / f"case{k}.nii.gz", labels, grid)
    record = {
        "channel_names": {str(c): f"T{c + 1}" for c in range(contrasts)},
        "labels": {"background": 0, "ball": 2, "box": 5},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(record))
    return folder
