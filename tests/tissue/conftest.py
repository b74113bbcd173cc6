"""Small images of three classes, and their fields."""

from __future__ import annotations

import numpy as np
import pytest

import napari_medgs as mg

LEVELS = np.array([0, 60, 110, 160], np.float64)  # class 0 is padding


def three_classes(seed: int = 0, noise: float = 14.0) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of nested ellipsoids in noise, padded with zeros, and its labels."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (10, 40, 44)], indexing="ij")
    labels = np.zeros(z.shape, np.uint8)
    labels[(z / 1.2) ** 2 + y**2 + x**2 < 0.95] = 2
    labels[(z / 1.2) ** 2 + (y / 0.7) ** 2 + (x / 0.6) ** 2 < 1] = 3
    labels[(z / 0.8) ** 2 + (y / 0.35) ** 2 + ((x - 0.1) / 0.3) ** 2 < 1] = 1
    image = LEVELS[labels] + np.random.default_rng(seed).normal(0, noise, labels.shape)
    image[labels == 0] = 0
    return image.astype(np.float32), labels


@pytest.fixture(scope="session")
def truth() -> np.ndarray:
    return three_classes()[1]


@pytest.fixture(scope="session")
def volume() -> mg.Volume:
    return mg.Volume.from_array(three_classes()[0], spacing=(3.0, 1.0, 1.0))


@pytest.fixture(scope="session")
def field(volume):
    return mg.fit(volume, mg.FitParams(iterations=40)).field


def agreement(labels: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of voxels with the right class, where there is one."""
    inside = truth > 0
    return float((labels == truth)[inside].mean())
