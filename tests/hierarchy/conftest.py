"""A small image with three blocks, its field and its tree."""

from __future__ import annotations

import numpy as np
import pytest

import napari_medgs as mg
from napari_medgs.hierarchy import PartTree


def blocks(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of three blocks in noise, and their labels."""
    labels = np.zeros((8, 32, 36), np.uint8)
    labels[2:7, 4:14, 4:16] = 1
    labels[1:6, 18:28, 6:14] = 2
    labels[2:7, 10:26, 22:32] = 3
    image = np.random.default_rng(seed).normal(0, 4, labels.shape)
    image += np.array([0, 60, 140, 100])[labels]
    return image.astype(np.float32), labels


@pytest.fixture(scope="session")
def truth() -> np.ndarray:
    return blocks()[1]


@pytest.fixture(scope="session")
def volume() -> mg.Volume:
    return mg.Volume.from_array(blocks()[0], spacing=(2.0, 1.0, 1.0))


@pytest.fixture(scope="session")
def field(volume):
    return mg.fit(volume, mg.FitParams(iterations=40)).field


@pytest.fixture(scope="session")
def tree(volume, field) -> PartTree:
    return mg.part_tree(volume, field=field)
