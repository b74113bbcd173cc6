"""Masks through every writable format and back: labels, place, names and colors."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_medgs import io
from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.io.dicom.segmentation import read_dicom_segments
from napari_medgs.io.formats import WRITTEN_SUFFIXES, read_label_names, write_labels
from napari_medgs.io.itk.segments import read_segments
from tests.corpus import dicom
from tests.strategies import affines

NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters='"\\'),
    min_size=1,
    max_size=20,
)
COLORS = st.tuples(*[st.integers(0, 255).map(lambda n: n / 255)] * 3)
FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, int, int] | None = None) -> np.ndarray:
    if shape is None:
        shape = tuple(draw(st.lists(st.integers(1, 6), min_size=3, max_size=3)))  # type: ignore
    return draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 2, 5])))


def farthest(grid: Grid, other: Grid) -> float:
    """Return the greatest distance of equal voxels' centers in mm."""
    assert grid.shape == other.shape
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in grid.shape])).reshape(3, -1).T
    return float(np.linalg.norm(grid.to_world(corners) - other.to_world(corners), axis=1).max())


@pytest.mark.parametrize("suffix", [*WRITTEN_SUFFIXES, ".seg.nrrd"])
@given(labels=masks(), affine=affines(), names=st.lists(NAMES, min_size=3, max_size=3),
       colors=st.lists(COLORS, min_size=3, max_size=3))  # fmt: skip
@FEW
def test_mask_comes_back(suffix, labels, affine, names, colors):
    # Of a file in any axis order, as masks of images are.
    volume = Volume.from_axes(labels[None], affine, source={"kind": "itk"})
    named, painted = (dict(zip((1, 2, 5), given)) for given in (names, colors))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mask{suffix}"
        write_labels(path, volume.data[0], volume.grid, named, colors=painted)
        found, grid = io.read_labels(path)
        assert read_label_names(path) == named
        if suffix == ".seg.nrrd":
            stored = {s.value: s.color for s in read_segments(path)}
            assert stored.keys() == painted.keys()
            for value, color in painted.items():
                np.testing.assert_allclose(stored[value], color, atol=1e-5)
    np.testing.assert_array_equal(found, volume.data[0])
    assert farthest(grid, volume.grid) < 1e-3


@given(labels=masks((dicom.COUNT, dicom.ROWS, dicom.COLUMNS)), angle=st.floats(-44, 44),
       names=st.lists(NAMES, min_size=3, max_size=3),
       colors=st.lists(COLORS, min_size=3, max_size=3))  # fmt: skip
@FEW
def test_mask_on_a_series_comes_back(labels, angle, names, colors):
    labels[0, 0, 0] = 1  # a segmentation has a segment
    axes = dicom.turned(angle)
    named, painted = (dict(zip((1, 2, 5), given)) for given in (names, colors))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        dicom.series(folder, axes=(axes[:, 0], axes[:, 1]))
        image = io.read_volume(folder / "series")
        mask = labels.reshape(image.shape)
        path = folder / "mask.dcm"
        write_labels(path, mask, image.grid, named, colors=painted, source=folder / "series")
        found, _ = io.read_labels(path, like=image.grid)
        present = sorted({int(v) for v in np.unique(mask)} - {0})
        stored = {s.value: s for s in read_dicom_segments(path)}
    np.testing.assert_array_equal(found, mask)
    for value in present:
        assert stored[value].name == named[value]
        np.testing.assert_allclose(stored[value].color, painted[value], atol=2 / 255)
