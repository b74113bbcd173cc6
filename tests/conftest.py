"""Fixtures that many tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume

ROOT = Path(__file__).resolve().parents[1]

# The same examples in each run; HYPOTHESIS_PROFILE=random draws new ones. No test is timed.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("random", derandomize=False, deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import without collecting garbage, and keep what was imported out of later collections.

    Collections take nearly half of the time that the import of all tests and packages takes, and
    find nothing there: what is imported stays.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)  # after the choice by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests for two workers, of which each begins with one half.

    Files with slow tests come first, so that at the end no worker waits for the other's. The
    second half begins with tests of files and formats, which need few kernels: meanwhile the
    first worker compiles those that most tests need, which both would do otherwise.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    folders = ROOT / "tests" / "io", ROOT / "tests" / "corpus"
    of_files = [item for item in items if item.path.parent in folders]
    others = [item for item in items if item.path.parent not in folders]
    half = min(len(items) // 2, len(others))
    items[:] = others[:half] + of_files + others[half:]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real volumes; the test is skipped where it is absent."""
    named = os.environ.get("MEDGS_TEST_DATA")
    if not named:
        pytest.skip("no folder of real volumes: set MEDGS_TEST_DATA")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"MEDGS_TEST_DATA names {folder}, which is no folder")
    return folder


@pytest.fixture(scope="session")
def fits_so_far() -> dict[object, object]:
    """What `quick_fits` fitted, for all tests that use it."""
    return {}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture
def tiny_grid() -> Grid:
    """12 x 20 x 24 voxels of 3 x 1 x 1 mm, canonical orientation, away from the origin."""
    affine = np.array([[0, 0, -1, 40], [0, -1, 0, 20], [3, 0, 0, -10], [0, 0, 0, 1]], float)
    return Grid((12, 20, 24), affine)


@pytest.fixture
def tiny_labels(tiny_grid: Grid) -> np.ndarray:
    """Two touching ellipsoids, 1 and 2, in background 0: (12, 20, 24) uint8."""
    z, y, x = np.meshgrid(*[np.arange(n) for n in tiny_grid.shape], indexing="ij")
    labels = np.zeros(tiny_grid.shape, np.uint8)
    labels[((z - 5.5) / 4) ** 2 + ((y - 10) / 7) ** 2 + ((x - 8) / 5) ** 2 < 1] = 1
    labels[((z - 6) / 3.5) ** 2 + ((y - 9) / 5) ** 2 + ((x - 17) / 5) ** 2 < 1] = 2
    return labels


@pytest.fixture
def tiny_volume(tiny_grid: Grid, tiny_labels: np.ndarray, rng: np.random.Generator) -> Volume:
    """The ellipsoids at 100 and 200 on a background of 20, with a little noise."""
    image = np.array([20.0, 100.0, 200.0])[tiny_labels] + rng.normal(0, 2, tiny_grid.shape)
    return Volume(image[None].astype(np.float32), tiny_grid, ("image",))
