"""OME-Zarr images and masks, written by the reference implementation and by zarr."""

import json
import shutil
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from napari_medgs.data.grid import Grid
from napari_medgs.data.orientation import is_orientation_known
from napari_medgs.errors import (
    FileError,
    GeometryError,
    ImageError,
    LabelError,
    MedGSError,
    MemoryEstimateError,
    ParameterError,
)
from napari_medgs.io import read_label_names, read_labels, read_volume
from napari_medgs.io.fourth_axis import SOURCE_KEY
from napari_medgs.io.ome_zarr.lazy import open_lazily
from napari_medgs.io.ome_zarr.opening import is_ome_zarr
from napari_medgs.io.reading import read_all_volumes

zarr = pytest.importorskip("zarr")
nz = pytest.importorskip("ngff_zarr")

VERSIONS = ("0.4", "0.5")
ZIPS = [(".zarr.zip", ""), (".ozx", ""), (".zarr.zip", "b.ome.zarr/")]
MM = {"z": "millimeter", "y": "millimeter", "x": "micrometer", "t": "millisecond"}
SIZES = {"t": 800.0, "c": 1.0, "z": 3.0, "y": 0.5, "x": 700.0}


def group(path, version="0.5"):
    return zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)


def describe(root, version, record):
    """Write metadata where the version has them."""
    if version == "0.5":
        root.attrs["ome"] = {"version": version, **record}
    else:
        root.attrs.update(record)


def write(path, data, letters="zyx", version="0.5", *, levels=1, units=MM, shift=None, more=None):
    """Write levels that are halved along y and x; voxels of 3 x 0.5 x 0.7 mm."""
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": a, "type": kinds.get(a, "space")} for a in letters]
    axes = [a | {"unit": units[a["name"]]} if a["name"] in units else a for a in axes]
    root, datasets = group(path, version), []
    for k in range(levels):
        step = tuple(slice(None, None, 2**k if a in "yx" else None) for a in letters)
        halves = tuple(max(2, n // 2) for n in data.shape)
        root.create_array(str(k), data=np.ascontiguousarray(data[step]), chunks=halves,
                          chunk_key_encoding={"name": "v2" if version == "0.4" else "default",
                                              "separator": "/"})  # fmt: skip
        scale = [SIZES[a] * (2**k if a in "yx" else 1) for a in letters]
        entries = [{"type": "scale", "scale": scale}]
        if shift:
            moved = [shift.get(a, 0.0) for a in letters]
            entries.append({"type": "translation", "translation": moved})
        datasets.append({"path": str(k), "coordinateTransformations": entries})
    image = {"axes": axes, "datasets": datasets, "name": "image"}
    image |= {"version": "0.4"} if version == "0.4" else {}
    describe(root, version, {"multiscales": [image], **(more or {})})
    return path


def volume_of(shape=(4, 6, 8), dtype=np.uint16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def packed(folder, target, inside=""):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{inside}{file.relative_to(folder).as_posix()}")
    return target


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_values_and_place_of_ngff_zarr(tmp_path, version, dtype):
    data, path = volume_of(dtype=dtype), tmp_path / "a.ome.zarr"
    shift = {"z": 10.0, "y": -2.0, "x": 500.0}
    sizes = {a: SIZES[a] for a in "zyx"}
    image = nz.to_ngff_image(data, dims=["z", "y", "x"], scale=sizes, translation=shift,
                             axes_units={a: MM[a] for a in "zyx"})  # fmt: skip
    nz.to_ngff_zarr(str(path), nz.to_multiscales(image, scale_factors=[]), version=version)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data[0], data)
    assert volume.data.dtype == dtype
    assert volume.spacing == pytest.approx((3, 0.5, 0.7))
    # z runs to superior, y to posterior and x to left
    np.testing.assert_allclose(volume.grid.to_world([0, 0, 0]), [-0.5, 2.0, 10.0])
    assert not is_orientation_known(volume.grid)
    assert volume.channel_names == ("a",)


@pytest.mark.parametrize("version", VERSIONS)
def test_ngff_zarr_reads_the_same(tmp_path, version):
    data, shift = volume_of((3, 4, 8, 8)).astype(">f4"), {"z": 10.0, "x": 500.0}
    path = write(tmp_path / "a.zarr", data, "czyx", version, levels=2, shift=shift)
    theirs = nz.from_ngff_zarr(str(path), validate=True).images
    ours = open_lazily(path)
    for k in range(2):
        np.testing.assert_array_equal(np.asarray(ours.levels[k]), np.asarray(theirs[k].data))
        sizes = [theirs[k].scale[a] * (1e-3 if a == "x" else 1) for a in "zyx"]
        np.testing.assert_allclose(ours.grids[k].spacing, sizes)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data)
    assert volume.data.dtype == np.dtype("f4")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("suffix", "inside"), ZIPS)
def test_zip_files(tmp_path, version, suffix, inside):
    folder = write(tmp_path / "a.ome.zarr", volume_of(), version=version, levels=2)
    path = packed(folder, tmp_path / f"b.ome{suffix}", inside)
    np.testing.assert_array_equal(read_volume(path).data[0], volume_of())
    assert read_volume(path).spacing == pytest.approx((3, 0.5, 0.7))


def test_axes(tmp_path):
    flat = write(tmp_path / "yx.zarr", volume_of((6, 8)), "yx")
    assert read_volume(flat).shape == (1, 6, 8)
    assert read_volume(flat).spacing == pytest.approx((0.5, 0.5, 0.7))
    several = volume_of((3, 4, 6, 8))
    volume = read_volume(write(tmp_path / "czyx.zarr", several, "czyx"))
    np.testing.assert_array_equal(volume.data, several)
    assert volume.channel_names == ("czyx [0]", "czyx [1]", "czyx [2]")
    many = volume_of((9, 4, 6, 8))  # named channels are never time
    assert read_volume(write(tmp_path / "many.zarr", many, "czyx")).channels == 9
    one = read_volume(tmp_path / "many.zarr", volume=9)
    np.testing.assert_array_equal(one.data[0], many[8])
    single = volume_of((1, 1, 4, 6, 8))
    np.testing.assert_array_equal(
        read_volume(write(tmp_path / "tczyx.zarr", single, "tczyx")).data, single[0]
    )


def test_time(tmp_path):
    data = volume_of((3, 4, 6, 8))
    path = write(tmp_path / "a.zarr", data, "tzyx")
    with pytest.raises(ImageError, match=r"holds 3 volumes .*0\.8 s apart.*--volume 1"):
        read_volume(path)
    np.testing.assert_array_equal(read_volume(path, volume=2).data[0], data[1])
    assert read_volume(path, volume=2).channel_names == ("a volume 2",)
    with pytest.raises(ParameterError, match="has 3 volumes"):
        read_volume(path, volume=4)
    every = read_all_volumes(path)
    np.testing.assert_array_equal(every.data, data)
    assert every.grid.source[SOURCE_KEY] == {"count": 3, "step_s": pytest.approx(0.8)}
    both = volume_of((3, 2, 4, 6, 8))
    path = write(tmp_path / "b.zarr", both, "tczyx")
    np.testing.assert_array_equal(read_volume(path, volume=3).data, both[2])
    with pytest.raises(ImageError, match="3 volumes of 2 channels"):
        read_all_volumes(path)


def test_channel_names(tmp_path):
    names = {"omero": {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}}
    path = write(tmp_path / "a.zarr", volume_of((2, 4, 6, 8)), "czyx", more=names)
    assert read_volume(path).channel_names == ("DAPI", "GFP")
    assert read_volume(path, volume=2).channel_names == ("GFP",)


def test_a_level_is_chosen_by_memory(tmp_path, monkeypatch):
    import psutil

    path = write(tmp_path / "a.zarr", volume_of((4, 64, 64)), levels=3)

    def free(count):
        monkeypatch.setattr(
            psutil, "virtual_memory", lambda: type("Memory", (), {"available": count})
        )

    free(40_000)
    with pytest.warns(UserWarning, match="level 1 of 4 x 32 x 32 voxels is read"):
        volume = read_volume(path)
    np.testing.assert_array_equal(volume.data[0], volume_of((4, 64, 64))[:, ::2, ::2])
    assert volume.spacing == pytest.approx((3, 1, 1.4))
    free(100)
    with pytest.raises(MemoryEstimateError, match="of memory are free"):
        read_volume(path)


def test_a_level_named_by_the_path(tmp_path):
    path = write(tmp_path / "a.zarr", volume_of((4, 16, 16)), levels=3)
    volume = read_volume(path / "2")
    assert volume.shape == (4, 4, 4)
    assert volume.spacing == pytest.approx((3, 2, 2.8))


def test_nothing_is_read_before_it_is_needed(tmp_path):
    path = write(tmp_path / "a.zarr", volume_of((2, 4, 16, 16)), "czyx", levels=2)
    lazy = open_lazily(path)
    for file in path.rglob("*"):  # without its chunks
        if file.is_file() and file.name not in ("zarr.json",):
            file.unlink()
    assert [level.shape for level in lazy.levels] == [(2, 4, 16, 16), (2, 4, 8, 8)]
    assert not np.asarray(lazy.levels[0]).any()  # absent chunks hold the fill value
    assert lazy.grids[1].spacing == pytest.approx((3, 1, 1.4))


@pytest.mark.parametrize("version", VERSIONS)
def test_label_images(tmp_path, version):
    image = write(tmp_path / "a.zarr", volume_of((4, 16, 16)), version=version)
    labels = np.zeros((4, 16, 16), np.int32)
    labels[1:3, 4:8, 4:8], labels[3] = 300, 2
    table = {
        "colors": [{"label-value": 300, "rgba": [255, 0, 51, 255]}],
        "properties": [{"label-value": 300, "name": "nucleus"}],
    }
    folder = zarr.open_group(str(image)).create_group("labels")
    write(image / "labels" / "cells", labels, version=version, more={"image-label": table})
    describe(folder, version, {"labels": ["cells"]})
    grid = read_volume(image).grid
    for path in (image, image / "labels" / "cells"):
        found, where = read_labels(path, grid)
        np.testing.assert_array_equal(found, labels)
        assert where is grid or where.matches(grid)
        assert read_label_names(path) == {300: "nucleus"}
    zipped = packed(image, tmp_path / "b.zarr.zip")
    np.testing.assert_array_equal(read_labels(zipped / "labels" / "cells")[0], labels)
    write(image / "labels" / "more", labels, version=version, more={"image-label": {}})
    describe(folder, version, {"labels": ["cells", "more"]})
    with pytest.raises(LabelError, match=r"holds 2 label images; choose one of: .*labels.*cells"):
        read_labels(image)
    with pytest.raises(FileError, match="a group of label images"):
        read_volume(image / "labels")


def test_masks_beside_other_images(tmp_path):
    mask = (volume_of() % 3).astype(np.uint8)
    path = write(tmp_path / "m.zarr", mask)
    unplaced = write(tmp_path / "n.zarr", mask, units={})
    like = Grid((4, 6, 8))
    for name in (path, unplaced):
        labels, grid = read_labels(name, like)
        np.testing.assert_array_equal(labels, mask)
        assert grid is like
    with pytest.raises(GeometryError, match="must share one grid"):
        read_labels(path, Grid((4, 6, 9)))


def test_a_cropped_mask_is_padded_in_place(tmp_path):
    image = read_volume(write(tmp_path / "i.zarr", volume_of()))
    mask = write(tmp_path / "m.zarr", np.ones((2, 3, 4), np.uint8), shift={"z": 3.0, "y": 1.0})
    with pytest.warns(UserWarning, match="padded or cropped in place"):
        labels, _ = read_labels(mask, image.grid)
    assert labels.sum() == 24
    assert (labels[1:3, 2:5, :4] == 1).all()
    moved = write(tmp_path / "n.zarr", np.ones((4, 6, 8), np.uint8), shift={"z": 1.0})
    with pytest.raises(GeometryError, match="lie up to 1 mm apart"):
        read_labels(moved, image.grid)


def test_spacing(tmp_path):
    path = write(tmp_path / "a.zarr", volume_of(), units={}, levels=2)
    with pytest.raises(GeometryError, match="does not say how large its voxels are"):
        read_volume(path)
    assert read_volume(path, spacing=(2, 1, 1)).spacing == pytest.approx((2, 1, 1))
    assert read_volume(path / "1", spacing=(2, 1, 1)).spacing == pytest.approx((2, 2, 2))
    placed = write(tmp_path / "b.zarr", volume_of())
    assert read_volume(placed, spacing=(3, 0.5, 0.7)).shape == (4, 6, 8)
    with pytest.raises(GeometryError, match="contradicts"):
        read_volume(placed, spacing=(3, 0.5, 0.8))


def first(m):
    return m["datasets"][0]["coordinateTransformations"][0]


def edit_metadata(path, change):
    file = path / "zarr.json"
    record = json.loads(file.read_text())
    change(record["attributes"]["ome"]["multiscales"][0])
    file.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.pop("axes"), "no axes are listed"),
        (lambda m: m.update(axes=5), "metadata are damaged"),
        (lambda m: m["axes"][0].update(name="q"), "has the axes 'qyx'"),
        (lambda m: m["axes"].pop(), "has the axes|damaged"),
        (lambda m: m.update(datasets=[]), "no resolution is listed"),
        (lambda m: m["datasets"][0].update(path="../b"), "lies outside the image"),
        (lambda m: m["datasets"][0].update(path="nothing"), "damaged"),
        (
            lambda m: first(m).update(scale=[1, 2]),
            "2 numbers for 3",
        ),
        (
            lambda m: first(m).update(scale=[1, 0, 1]),
            "not positive",
        ),
        (
            lambda m: first(m).update(type="affine"),
            "'affine'",
        ),
    ],
)
def test_damaged_metadata(tmp_path, change, words):
    path = edit_metadata(write(tmp_path / "a.zarr", volume_of()), change)
    with pytest.raises((FileError, ImageError), match=words) as caught:
        read_volume(path)
    assert "a.zarr" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_image(tmp_path):
    group(tmp_path / "empty.zarr")
    with pytest.raises(FileError, match="without the metadata of OME-Zarr"):
        read_volume(tmp_path / "empty.zarr")
    zarr.save_array(str(tmp_path / "array.zarr"), volume_of())
    with pytest.raises(FileError, match="no level of an OME-Zarr image"):
        read_volume(tmp_path / "array.zarr")
    for name in ("plate", "well"):
        group(tmp_path / "p.zarr").attrs["ome"] = {name: {}}
        with pytest.raises(FileError, match="a plate of several images"):
            read_volume(tmp_path / "p.zarr")
    root = group(tmp_path / "c.zarr")
    root.attrs["ome"] = {"bioformats2raw.layout": 3}
    root.create_group("0")
    with pytest.raises(FileError, match=r"a collection of images.*: 0 below it"):
        read_volume(tmp_path / "c.zarr")
    with pytest.raises(FileError, match="no such file"):
        read_volume(tmp_path / "absent.zarr.zip")
    (tmp_path / "bad.zarr.zip").write_bytes(b"no zip")
    with pytest.raises(FileError, match=r"bad\.zarr\.zip"):
        read_volume(tmp_path / "bad.zarr.zip")
    assert not is_ome_zarr(tmp_path)
    write(tmp_path / "complex.zarr", volume_of().astype(np.complex64))
    with pytest.raises(ImageError, match="complex"):
        read_volume(tmp_path / "complex.zarr")


def test_codecs_that_could_run_code_are_refused(tmp_path):
    path = write(tmp_path / "a.zarr", volume_of(), version="0.4")
    (file,) = path.rglob(".zarray")
    record = json.loads(file.read_text())
    for change in ({"compressor": {"id": "pickle"}}, {"filters": [{"id": "pickle"}]}):
        file.write_text(json.dumps(record | change))
        with pytest.raises(FileError, match="pickle"):
            read_volume(path)
    other = {"id": "astype", "encode_dtype": "<u2", "decode_dtype": "<u2"}
    file.write_text(json.dumps(record | {"filters": [other]}))
    with pytest.raises(FileError, match="'astype', which is not read"):
        read_volume(path)


def test_damaged_chunks(tmp_path):
    """Every damage gives values or one clear line."""
    rng = np.random.default_rng(0)
    whole = {v: write(tmp_path / f"w{v}.zarr", volume_of(), version=v) for v in VERSIONS}
    for k in range(40):
        source = whole["0.4" if k % 2 else "0.5"]
        path = tmp_path / "d.zarr"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source, path)
        files = sorted(p for p in path.rglob("*") if p.is_file())
        file = files[rng.integers(len(files))]
        content = bytearray(file.read_bytes())
        if k % 3 == 0:
            content = content[: rng.integers(len(content))]
        else:
            for place in rng.integers(0, len(content), 3):
                content[place] = rng.integers(256)
        file.write_bytes(content)
        with suppress(MedGSError):
            assert read_volume(path).shape == (4, 6, 8)


@pytest.mark.parametrize(
    ("letter", "value", "read"),
    [
        ("x", "right-to-left", True),
        ("y", "anterior-to-posterior", True),
        ("z", "inferior-to-superior", True),
        ("z", "dorsal-to-ventral", True),
        ("x", "left-to-right", False),
        ("y", "right-to-left", False),
        ("z", "superior-to-inferior", False),
    ],
)
def test_axes_that_run_another_way_are_refused(tmp_path, letter, value, read):
    path = write(tmp_path / "a.zarr", volume_of())
    file = path / "zarr.json"
    record = json.loads(file.read_text())
    axis = record["attributes"]["ome"]["multiscales"][0]["axes"]["zyx".index(letter)]
    axis["orientation"] = {"type": "anatomical", "value": value}
    file.write_text(json.dumps(record))
    if read:
        np.testing.assert_array_equal(read_volume(path).data[0], volume_of())
        return
    with pytest.raises(ImageError, match=f"a.zarr: says that its axis {letter} runs {value}"):
        read_volume(path)
