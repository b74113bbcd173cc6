"""Trees in field files, and as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import napari_medgs as mg
from napari_medgs.errors import FileError, FormatVersionError, ParameterError
from napari_medgs.hierarchy import has_tree, load_tree, save_tree, write_tree_json
from napari_medgs.io.fields import FORMAT


@pytest.fixture
def stored(tree, tmp_path):
    return save_tree(tmp_path / "case.medgs.safetensors", tree)


def test_round_trip(stored, tree):
    assert has_tree(stored)
    same = load_tree(stored)
    for name in ("cells", "children", "altitude", "bridge", "gaussian_leaf", "empty_anchor"):
        assert np.array_equal(getattr(same, name), getattr(tree, name)), name
    part, again = tree.at((4, 8, 8)), same.at((4, 8, 8))
    assert part == again
    assert np.array_equal(tree.mask(part.nodes), same.mask(again.nodes))


def test_older_programs_read_the_field_all_the_same(stored, field):
    """They look at the field's own tensors only, as this reader does."""
    loaded = mg.load_field(stored)
    assert all(
        np.array_equal(getattr(loaded, name), getattr(field, name))
        for name in field.tensor_names()
    )
    mg.save_field(stored, loaded)
    assert not has_tree(stored)
    with pytest.raises(FileError, match="holds no tree of parts; make one with"):
        load_tree(stored)


def rewrite(path, changes=None, note=None):
    tensors = load_file(path)
    header = FORMAT.read_header(path)
    for name, change in (changes or {}).items():
        if change is None:
            del tensors[name]
        else:
            tensors[name] = np.ascontiguousarray(change(tensors[name]))
    if note is not None:
        header["tree"] = note
    save_file(tensors, path, metadata=header)


def test_a_tree_of_another_field(stored, tree, field):
    def moved(centers):
        return centers + np.float32(0.25)

    with pytest.raises(ParameterError, match="belongs to another field"):
        save_tree(stored, tree, field.subset(np.arange(len(field) - 1)))
    with pytest.raises(FileError, match="belongs to another field"):
        load_tree(stored, field.subset(np.arange(len(field))[::-1]))
    rewrite(stored, {"centers": moved})
    with pytest.raises(FileError, match=r"case\.medgs\.safetensors: the tree of parts belongs"):
        load_tree(stored)


def swapped(array):
    out = array.copy()
    out[[0, 1]] = out[[1, 0]]
    return out


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("children", None, "lacks children"),
        ("children", lambda a: a[:-1], "different lengths"),
        ("children", lambda a: a.astype(np.float32), "no integers"),
        ("children", lambda a: np.zeros_like(a), "no parent, or two"),
        ("children", lambda a: a[::-1], "its own ancestor"),
        ("altitude", lambda a: a[::-1], "costs fall"),
        ("altitude", lambda a: np.full_like(a, np.nan), "costs fall"),
        ("altitude", lambda a: a.astype(np.int64), "no floating-point"),
        ("altitude", lambda a: a[:0], "different lengths"),
        ("bridge", lambda a: a - 1000, "out of range"),
        ("gaussian_leaf", lambda a: a + 100_000, "out of range"),
        ("gaussian_leaf", lambda a: a[:-1], "another number"),
        ("empty_anchor", lambda a: np.array([10**9]), "outside of the image"),
    ],
)
def test_damaged_trees(stored, name, change, message):
    rewrite(stored, {f"tree.{name}": change})
    with pytest.raises(FileError, match=message):
        load_tree(stored)


@pytest.mark.parametrize(
    ("note", "error", "message"),
    [
        ("{", FileError, "damaged"),
        ('{"version": 1}', FileError, "damaged"),
        ('{"version": "x", "field": "y"}', FileError, "damaged"),
        ('{"version": 9, "field": "y"}', FormatVersionError, "version 9"),
    ],
)
def test_damaged_notes(stored, note, error, message):
    rewrite(stored, note=note)
    with pytest.raises(error, match=message):
        load_tree(stored)


def test_json(tree, tmp_path):
    record = json.loads(write_tree_json(tmp_path / "tree.json", tree).read_text())
    assert record["leaves"] == tree.leaves
    assert np.array_equal(record["children"], tree.children)
    assert np.array_equal(record["voxels"], tree.voxels)
    assert np.allclose(record["altitude"], tree.altitude)
    assert record["voxel_volume_ml"] == pytest.approx(0.002)
