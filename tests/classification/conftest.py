"""Small synthetic sets of MedMNIST's layouts."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medgs.classification import LabeledDataset, TrainParams


def blobs(rng: np.random.Generator, count: int, ndim: int, edge: int = 16) -> tuple:
    """Images with a disc or a ring: (N, 1, ...) uint8 and labels (N, 1)."""
    labels = np.arange(count) % 2
    axes = np.meshgrid(*[np.arange(edge)] * ndim, indexing="ij")
    images = np.zeros((count, *[edge] * ndim), np.uint8)
    for k, label in enumerate(labels):
        center = edge / 2 + rng.uniform(-1.5, 1.5, ndim)
        r = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, center, strict=True)))
        inside = (r < 5) & ((r > 3) | (label == 0))
        images[k] = np.where(inside, 200, 40) + rng.integers(0, 20, inside.shape)
    return images[:, None], labels[:, None].astype(np.int64)


@pytest.fixture
def discs(rng) -> LabeledDataset:
    images, labels = blobs(rng, 96, 2)
    cuts = {"train": slice(0, 64), "val": slice(64, 80), "test": slice(80, 96)}
    return LabeledDataset(
        "discs",
        {s: images[c] for s, c in cuts.items()},
        {s: labels[c] for s, c in cuts.items()},
        "binary-class",
        ("disc", "ring"),
    )


@pytest.fixture
def quick() -> TrainParams:
    return TrainParams(epochs=2, gaussians=32, cache_dir="", threads=1, accelerator="cpu")


def write_npz(path, rng, *, shape, labels, counts=(24, 8, 8)):
    """Write a file of MedMNIST's layout; ``labels`` maps a count to (N, L) integers."""
    arrays = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, *shape), np.uint8)
        arrays[f"{split}_labels"] = labels(count).astype(np.uint8)
    np.savez_compressed(path, **arrays)
    return path
