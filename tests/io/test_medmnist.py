"""MedMNIST files: single images, whole sets, downloads, and files not to be trusted."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from napari_medgs import io
from napari_medgs.errors import (
    FileError,
    ImageError,
    LabelError,
    MemoryEstimateError,
    ParameterError,
)
from napari_medgs.io.medmnist.download import fetch
from napari_medgs.io.medmnist.reader import is_spec, load_set, parse_spec, read_medmnist
from napari_medgs.io.medmnist.table import SETS, file_name


def make(path, shape, *, dtype=np.uint8, counts=(6, 3, 4), labels=None, compress=True, **extra):
    rng = np.random.default_rng(1)
    arrays = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, *shape)).astype(dtype)
        arrays[f"{split}_labels"] = (
            (np.arange(count) % 2)[:, None].astype(np.uint8) if labels is None else labels[:count]
        )
    arrays.update(extra)
    (np.savez_compressed if compress else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("shape", "data_shape", "names"),
    [
        ((28, 28), (1, 1, 28, 28), ("own train 2",)),
        ((28, 28, 3), (3, 1, 28, 28), ("red", "green", "blue")),
        ((28, 28, 28), (1, 28, 28, 28), ("own train 2",)),
        ((64, 64), (1, 1, 64, 64), ("own train 2",)),
    ],
)
def test_single_images(tmp_path, shape, data_shape, names, compress):
    path = make(tmp_path / "own.npz", shape, compress=compress)
    stored = np.load(path)["train_images"][2]
    volume = io.read_volume(f"{path}:train:2")
    assert volume.data.shape == data_shape
    assert volume.channel_names == names
    assert volume.spacing == (1, 1, 1)
    expected = np.moveaxis(stored, -1, 0)[:, None] if shape[-1] == 3 else stored
    np.testing.assert_array_equal(volume.data, expected.reshape(data_shape))
    assert io.read_volume(f"{path}:train:2", spacing=(3, 2, 1)).spacing == (3, 2, 1)
    np.testing.assert_array_equal(load_set(path).volume("train", 2).data, volume.data)


def test_fortran_order(tmp_path):
    images = np.asfortranarray(np.random.default_rng(0).integers(0, 9, (5, 4, 4), dtype=np.uint8))
    path = make(tmp_path / "f.npz", (4, 4), train_images=images, counts=(5, 1, 1))
    np.testing.assert_array_equal(io.read_volume(f"{path}:train:3").data[0, 0], images[3])
    np.testing.assert_array_equal(load_set(path).images["train"], images)


def test_known_fields_of_view(tmp_path):
    path = make(tmp_path / "adrenalmnist3d_64.npz", (8, 8, 8))
    assert io.read_volume(f"{path}:val:0").spacing == (8, 8, 8)


@pytest.mark.parametrize(
    ("text", "file", "split", "index"),
    [
        (r"C:\data\breastmnist.npz:train:7", r"C:\data\breastmnist.npz", "train", 7),
        ("C:/a b/x.npz:test:0", "C:/a b/x.npz", "test", 0),
        ("/a/b.npz/c.npz:val:12", "/a/b.npz/c.npz", "val", 12),
        ("x.NPZ:val:0012", "x.NPZ", "val", 12),
    ],
)
def test_specs(text, file, split, index):
    assert is_spec(text)
    assert parse_spec(text) == (Path(file), split, index)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x.npz", "holds many images; write FILE.npz:SPLIT:INDEX"),
        (r"C:\x.npz", "holds many images"),
        ("x.npz:train", "holds many images"),
        ("x.npz:all:3", "'all:3' is no image"),
        ("x.npz:train:-1", "is no image"),
        ("x.npz:train:one", "is no image"),
        ("x.npz:train:", "is no image"),
    ],
)
def test_bad_specs(text, words):
    assert is_spec(text)
    with pytest.raises(ParameterError, match=words):
        io.read_volume(text)


def test_other_names_are_no_specs():
    assert not is_spec("x.nii.gz")
    assert not is_spec("folder:train:3")
    with pytest.raises(ParameterError, match="no MedMNIST image"):
        parse_spec("x.nii.gz:train:0")


def test_index_beyond_the_last(tmp_path):
    path = make(tmp_path / "own.npz", (8, 8))
    with pytest.raises(ParameterError, match="'val' has 3 images; the last index is 2, not 3"):
        io.read_volume(f"{path}:val:3")
    with pytest.raises(ParameterError, match="'val' has 3 images; no number 3"):
        load_set(path).volume("val", 3)


def test_whole_sets(tmp_path):
    found = load_set(make(tmp_path / "breastmnist_64.npz", (64, 64)))
    assert (found.name, found.task, found.size) == ("breastmnist", "binary-class", 64)
    assert found.class_names == ("malignant", "normal, benign")
    assert (found.is_3d, found.is_rgb) == (False, False)
    assert {k: v.shape for k, v in found.images.items()} == {
        "train": (6, 64, 64), "val": (3, 64, 64), "test": (4, 64, 64)}  # fmt: skip
    assert found.labels["train"].shape == (6, 1)
    assert found.labels["train"].dtype == np.int64


@pytest.mark.parametrize(
    ("shape", "labels", "task", "classes", "flags"),
    [
        ((8, 8, 3), np.arange(9) % 4, "multi-class", 4, (False, True)),
        ((8, 8, 8), np.arange(9) % 2, "binary-class", 2, (True, False)),
        ((8, 8), np.eye(9, 5, dtype=int), "multi-label, binary-class", 5, (False, False)),
        ((8, 8), np.zeros(9), "binary-class", 2, (False, False)),
    ],
)
def test_unknown_sets(tmp_path, shape, labels, task, classes, flags):
    found = load_set(make(tmp_path / "own.npz", shape, labels=labels))
    assert found.task == task
    assert found.class_names == tuple(str(k) for k in range(classes))
    assert (found.is_3d, found.is_rgb) == flags


def test_labels_must_fit(tmp_path):
    with pytest.raises(LabelError, match="do not fit the set's 2 classes"):
        load_set(make(tmp_path / "breastmnist.npz", (8, 8), labels=np.arange(9)))
    with pytest.raises(LabelError, match="not integers"):
        load_set(make(tmp_path / "own.npz", (8, 8), labels=np.arange(9) / 2))
    short = make(tmp_path / "own.npz", (8, 8), val_labels=np.zeros((2, 1), np.uint8))
    with pytest.raises(FileError, match="3 images and 2 labels"):
        load_set(short)


# Files not to be trusted


def npy(array_header: bytes, values: bytes = b"") -> bytes:
    text = array_header + b" " * (64 - (len(array_header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values


def pack(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return path


def bad_missing(tmp):
    return tmp / "none.npz"


def bad_empty(tmp):
    (tmp / "x.npz").write_bytes(b"")
    return tmp / "x.npz"


def bad_text(tmp):
    (tmp / "x.npz").write_text("hello")
    return tmp / "x.npz"


def bad_truncated(tmp):
    path = make(tmp / "x.npz", (8, 8))
    path.write_bytes(path.read_bytes()[:-200])
    return path


def bad_bits(tmp):
    path = make(tmp / "x.npz", (28, 28))
    raw = bytearray(path.read_bytes())
    raw[400:420] = b"\xff" * 20
    path.write_bytes(raw)
    return path


def bad_other(tmp):
    np.savez(tmp / "x.npz", a=np.zeros(3))
    return tmp / "x.npz"


def bad_pickle(tmp):
    buffer = BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return pack(tmp / "x.npz", {"train_images.npy": buffer.getvalue()})


def bad_claim(tmp):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (900000, 900000, 3), }"
    return pack(tmp / "x.npz", {"train_images.npy": npy(header, b"\0" * 100)})


def bad_bomb(tmp):
    """A member that says it inflates to more than deflate can."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000, 1000, 1000), }"
    path = pack(tmp / "x.npz", {"train_images.npy": npy(header, b"\0" * 100)})
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = archive.infolist()[0].file_size
    path.write_bytes(
        raw.replace(size.to_bytes(4, "little"), (1_000_000_128).to_bytes(4, "little"))
    )
    return path


def bad_header(tmp):
    header = b"{'descr': __import__('os').system('true'), 'shape': (3,)}"
    return pack(tmp / "x.npz", {"train_images.npy": npy(header)})


def bad_long_header(tmp):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (3, 3, 3), }" + b" " * 20_000
    return pack(tmp / "x.npz", {"train_images.npy": npy(header, b"\0" * 27)})


def bad_no_npy(tmp):
    return pack(tmp / "x.npz", {"train_images.npy": b"hello world, this is no array"})


def bad_shape(tmp):
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (0, 8, 8), }"
    return pack(tmp / "x.npz", {"train_images.npy": npy(header)})


def bad_dims(tmp):
    return make(tmp / "x.npz", (2, 2, 2, 2, 2))


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (bad_missing, FileError, "no such file"),
        (bad_empty, FileError, "is empty"),
        (bad_text, FileError, r"no \.npz file"),
        (bad_truncated, FileError, "truncated, damaged"),
        (bad_bits, FileError, "truncated, damaged"),
        (bad_other, FileError, "(holds no 'train_images'|not a MedMNIST file)"),
        (bad_pickle, FileError, "instead of numbers; not opened"),
        (bad_claim, FileError, "promises 2.2 TiB"),
        (bad_bomb, FileError, "promises 953.7 MiB"),
        (bad_header, FileError, "damaged header"),
        (bad_long_header, FileError, "damaged header"),
        (bad_no_npy, FileError, "damaged header"),
        (bad_shape, ImageError, "is empty"),
        (bad_dims, ImageError, "2D, RGB or 3D"),
    ],
)
def test_bad_files(tmp_path, build, error, words):
    path = build(tmp_path)
    with pytest.raises(error, match=words):
        load_set(path)
    with pytest.raises(error, match=words):
        # The last image: all before it are read over.
        read_medmnist(f"{path}:train:{5 if build is bad_bits else 0}")


def test_little_memory(tmp_path, monkeypatch):
    import psutil

    path = make(tmp_path / "own.npz", (28, 28), counts=(50, 1, 1))
    free = psutil.virtual_memory()._replace(available=20_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(MemoryEstimateError, match="needs about"):
        load_set(path)
    # one image fits
    assert read_medmnist(f"{path}:train:49").shape == (1, 28, 28)


# The table and downloads


def test_the_table():
    assert len(SETS) == 18
    sums = [m for s in SETS.values() for m in s.md5.values()]
    assert len(set(sums)) == len(sums) == 12 * 4 + 6 * 2
    for name, info in SETS.items():
        assert all(re.fullmatch("[0-9a-f]{32}", m) for m in info.md5.values())
        assert set(info.md5) == ({28, 64} if name.endswith("3d") else {28, 64, 128, 224})
        assert len(info.classes) >= 2
        assert info.task in (
            "binary-class", "multi-class", "ordinal-regression", "multi-label, binary-class"
        )  # fmt: skip
    assert SETS["organmnist3d"].url("organmnist3d", 64).endswith("/organmnist3d_64.npz?download=1")
    assert file_name("breastmnist", 28) == "breastmnist.npz"


def test_download(tmp_path, monkeypatch):
    import pooch

    path = make(tmp_path / "breastmnist.npz", (28, 28))
    asked = []

    def download(url, output_file, _):
        asked.append(url)
        shutil.copy(path, output_file)

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *_, **__: download)
    with pytest.raises(FileError, match=r"could not be downloaded .* give the file's path"):
        fetch("breastmnist", cache=tmp_path / "cache")
    monkeypatch.setitem(SETS["breastmnist"].md5, 28, hashlib.md5(path.read_bytes()).hexdigest())
    found = load_set("BreastMNIST", cache=tmp_path / "cache")
    assert found.images["train"].shape == (6, 28, 28)
    assert len(asked) == 2
    assert asked[0].startswith("https://zenodo.org/records/10519652/files/breastmnist.npz")
    # kept: no third download
    assert fetch("breastmnist", cache=tmp_path / "cache").parent == tmp_path / "cache"
    assert len(asked) == 2


def test_no_network(tmp_path, monkeypatch):
    import pooch

    def download(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *_, **__: download)
    with pytest.raises(FileError, match=r"\(no route to host\).*zenodo"):
        fetch("organmnist3d", cache=tmp_path)


def test_unknown_names(tmp_path):
    with pytest.raises(ParameterError, match=r"'mnist' is no MedMNIST set; there are pathmnist"):
        fetch("mnist", cache=tmp_path)
    with pytest.raises(ParameterError, match=r"No checksum of organmnist3d at 224 pixels"):
        fetch("organmnist3d", size=224, cache=tmp_path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "counts", "shape"),
    [
        ("breastmnist", (546, 78, 156), (28, 28)),
        ("retinamnist", (1080, 120, 400), (28, 28, 3)),
        ("adrenalmnist3d", (1188, 98, 298), (28, 28, 28)),
    ],
)
def test_real_sets(data_dir, name, counts, shape):
    path = data_dir / "medmnist" / f"{name}.npz"
    assert hashlib.md5(path.read_bytes()).hexdigest() == SETS[name].md5[28]
    found = load_set(path)
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        assert found.images[split].shape == (count, *shape)
        assert found.labels[split].shape == (count, 1)
    assert found.class_names == SETS[name].classes
    volume = io.read_volume(f"{path}:test:5")
    volume.check_image()
    expected = np.load(path)["test_images"][5]
    got = volume.data
    np.testing.assert_array_equal(
        np.moveaxis(got[:, 0], 0, -1) if found.is_rgb else got.squeeze(), expected
    )
    if name == "adrenalmnist3d":
        assert volume.spacing == pytest.approx((64 / 28,) * 3)


@pytest.mark.parametrize("shape", [(2, 8, 8, 4), (2, 3, 8, 8)])
def test_volumes_that_may_be_colors_are_said(tmp_path, shape):
    path = tmp_path / "own.npz"
    parts = {f"{part}_images": np.zeros(shape, np.uint8) for part in ("train", "val", "test")}
    labels = {f"{part}_labels": np.zeros((2, 1), np.uint8) for part in ("train", "val", "test")}
    np.savez(path, **parts, **labels)
    with pytest.warns(UserWarning, match="are read as volumes"):
        assert io.read_volume(f"{path}:train:0").shape == shape[1:]
