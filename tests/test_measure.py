"""Volumes, boxes and centroids of shapes with known sizes, on any affine."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medgs.data.grid import Grid
from napari_medgs.errors import GeometryError, LabelError
from napari_medgs.metrics import volumes as measure


def test_counts_and_volumes(tiny_labels, tiny_grid):
    volumes = measure.volumes_ml(tiny_labels, tiny_grid)
    counts = measure.voxel_counts(tiny_labels)
    assert set(volumes) == {1, 2}
    assert set(counts) == {0, 1, 2}
    assert sum(counts.values()) == tiny_labels.size
    for value in (1, 2):
        assert counts[value] == np.count_nonzero(tiny_labels == value)
        assert volumes[value] == pytest.approx(counts[value] * 3 / 1000)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_box_on_any_affine(seed):
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = (rng.normal(0, 0.3, (3, 3)) + np.eye(3)[rng.permutation(3)]) * rng.uniform(
        0.3, 5, 3
    )
    affine[:3, 3] = rng.normal(0, 100, 3)
    grid = Grid((9, 10, 11), affine)
    start, stop = np.array([2, 1, 3]), np.array([6, 9, 8])
    labels = np.zeros(grid.shape, np.int16)
    labels[tuple(map(slice, start, stop))] = 12
    labels[0, 0, 0] = -1
    result = measure.measure_labels(labels, grid)
    assert set(result) == {12}
    box = result[12]
    assert box.voxels == 4 * 8 * 5
    assert box.volume_ml == pytest.approx(160 * abs(np.linalg.det(affine[:3, :3])) / 1000)
    np.testing.assert_allclose(box.centroid, grid.to_world((start + stop - 1) / 2), atol=1e-6)
    assert box.box_voxels == ((2, 6), (1, 9), (3, 8))
    corners = np.array(
        [grid.to_world(np.where(c, stop, start) - 0.5) for c in np.ndindex(2, 2, 2)]
    )
    np.testing.assert_allclose(box.box_mm, [corners.min(axis=0), corners.max(axis=0)], atol=1e-6)
    assert json.loads(json.dumps(box.to_dict()))["voxels"] == 160


def test_boxes_of_large_values_and_absent_labels():
    labels = np.zeros((4, 5, 6), np.int64)
    labels[1:3, 2, 3], labels[0, 0, 0], labels[3] = 10**12, 7, -1
    boxes = measure.label_boxes(labels)
    assert boxes == {7: (slice(0, 1),) * 3, 10**12: (slice(1, 3), slice(2, 3), slice(3, 4))}
    assert set(measure.label_boxes(labels, [7, 8])) == {7}
    assert measure.label_boxes(labels * 0) == {}


def test_surfaces():
    import trimesh

    box = trimesh.creation.box((10, 20, 30))
    assert measure.surface_areas_mm2({3: box})[3] == pytest.approx(2200)


def test_refusals(tiny_labels, tiny_grid):
    with pytest.raises(GeometryError, match="agree"):
        measure.volumes_ml(tiny_labels[1:], tiny_grid)
    with pytest.raises(LabelError, match="integers"):
        measure.volumes_ml(tiny_labels.astype(float), tiny_grid)
    with pytest.raises(LabelError, match="empty"):
        measure.voxel_counts(tiny_labels[:0])
