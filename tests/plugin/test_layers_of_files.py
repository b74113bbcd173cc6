"""Layers of volumes in time, OME-Zarr, meshes and colored masks, without a viewer."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import tifffile
import trimesh
from napari.layers import Image, Labels, Surface

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, GeometryError, LabelError
from napari_medgs.io import read_label_names, read_volume, write_labels
from napari_medgs.io.formats import read_label_colors
from napari_medgs.io.meshes import load_meshes, save_meshes
from napari_medgs.meshing import MeshParams, mesh_from_labels
from napari_medgs.plugin.layer_frame import frame_of, geometry_kwargs, grid_kwargs
from napari_medgs.plugin.layer_metadata import COLORS_KEY, NAMES_KEY
from napari_medgs.plugin.layer_volumes import labels_like
from napari_medgs.plugin.reader import get_reader, read_paths
from napari_medgs.plugin.writer import save_surface
from tests.io.test_ome_zarr import describe, volume_of, write

AFFINE = np.array([[-0.8, 0, 0, 30], [0, 1.2, 0, -15], [0, 0, 2.5, -90], [0, 0, 0, 1.0]])


def read(path):
    return get_reader(str(path))(str(path))


@pytest.fixture
def series(tmp_path):
    data = np.random.default_rng(0).integers(0, 99, (5, 4, 3, 40)).astype(np.int16)
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2
    nib.save(image, tmp_path / "run.nii.gz")
    return tmp_path / "run.nii.gz", data


def test_volumes_in_time_are_one_layer(series):
    path, _ = series
    ((array, options, kind),) = read(path)
    assert kind == "image"
    assert array.shape == (40, 3, 4, 5)
    layer = Image(array, **options)
    np.testing.assert_allclose(layer.scale, [2, 2.5, 1.2, 0.8])
    assert layer.axis_labels == ("t", "z", "y", "x")
    # every volume lies where the volume that is read alone lies
    alone = read_volume(path, volume=8)
    np.testing.assert_array_equal(array[7], alone.data[0])
    place = grid_kwargs(alone.grid)
    np.testing.assert_allclose(layer.scale[1:], place["scale"])
    np.testing.assert_allclose(layer.translate[1:], place["translate"])


def test_one_volume_is_chosen(series):
    path, _ = series
    ((array, options, kind),) = read_paths([path], volume=8)
    assert (array.shape, kind) == ((3, 4, 5), "image")
    assert options["name"] == "run"
    np.testing.assert_array_equal(array, read_volume(path, volume=8).data[0])


def test_ome_zarr_is_read_when_it_is_shown(tmp_path):
    data = volume_of((2, 4, 32, 32))
    path = write(tmp_path / "a.zarr", data, "czyx", levels=3, shift={"z": 10.0})
    layers = read(path)
    assert [kind for *_, kind in layers] == ["image", "image"]
    for c, (levels, options, _) in enumerate(layers):
        assert [type(level).__module__.partition(".")[0] for level in levels] == ["dask"] * 3
        layer = Image(levels, **options)
        assert layer.multiscale
        np.testing.assert_array_equal(np.asarray(layer.data[0]), data[c])
        assert frame_of(layer).grid.matches(read_volume(path).grid)
        np.testing.assert_allclose(layer.translate, [10, 0, 0], atol=1e-9)
    ((array, options, _),) = read_paths([path], volume=2)
    np.testing.assert_array_equal(array, data[1])


def test_ome_zarr_in_time_is_one_layer_a_channel(tmp_path):
    data = volume_of((3, 2, 4, 8, 8))
    path = write(tmp_path / "a.zarr", data, "tczyx")
    layers = read(path)
    assert len(layers) == 2
    array, options, _ = layers[1]
    np.testing.assert_array_equal(np.asarray(array), data[:, 1])
    np.testing.assert_allclose(options["scale"], [0.8, 3, 0.5, 0.7])


def test_label_images_of_ome_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    path = write(tmp_path / "a.zarr", volume_of((4, 8, 8)))
    table = {
        "colors": [{"label-value": 2, "rgba": [255, 0, 51, 255]}],
        "properties": [{"label-value": 2, "name": "nucleus"}],
    }
    folder = zarr.open_group(str(path)).create_group("labels")
    labels = (volume_of((4, 8, 8)) % 3).astype(np.uint8)
    write(path / "labels" / "cells", labels, more={"image-label": table})
    describe(folder, "0.5", {"labels": ["cells"]})
    image, mask = (layer for layer in read(path))
    assert (image[2], mask[2]) == ("image", "labels")
    layer = Labels(mask[0], **mask[1])
    np.testing.assert_array_equal(layer.data, labels)
    np.testing.assert_allclose(layer.colormap.color_dict[2][:3], [1, 0, 0.2], atol=1e-6)
    assert layer.metadata[NAMES_KEY] == {2: "nucleus"}
    assert read(path / "labels" / "cells")[0][2] == "labels"


def box_mask(shape=(12, 14, 16)):
    labels = np.zeros(shape, np.uint8)
    labels[2:6, 3:9, 4:12] = 1
    labels[7:10, 3:9, 4:12] = 2
    return labels


def placed(affine=AFFINE):
    return Volume.from_axes(np.zeros((1, 16, 14, 12), np.uint8), affine).grid


@pytest.mark.parametrize("suffix", [".ply", ".stl", ".obj", ".glb", ""])
def test_a_mesh_lies_on_its_mask(tmp_path, suffix):
    grid, labels = placed(), box_mask()
    path = tmp_path / f"organs{suffix}"
    colors = {1: (1, 0, 0.2), 2: (0, 0.4, 1)}
    save_meshes(path, mesh_from_labels(labels, grid, MeshParams(smooth_mm=0.0)),
                {1: "liver", 2: "spleen"}, colors)  # fmt: skip
    layers = read(path)
    assert {kind for *_, kind in layers} == {"surface"}
    assert len(layers) == (2 if suffix in (".glb", "") else 1)
    mask = Labels(labels, **grid_kwargs(grid))
    found = [Surface(data, **options) for data, options, _ in layers]
    corners = np.argwhere(labels > 0)
    low = mask.data_to_world(corners.min(0)) - np.array(mask.scale) / 2
    high = mask.data_to_world(corners.max(0)) + np.array(mask.scale) / 2
    vertices = np.vstack([layer.data[0] for layer in found])
    scale = np.array(mask.scale)  # surfaces keep the volume, not the corners
    np.testing.assert_allclose((vertices.min(0) - low) / scale, 0, atol=0.3)
    np.testing.assert_allclose((vertices.max(0) - high) / scale, 0, atol=0.3)
    stored = np.vstack([part.vertices for part in load_meshes(path).values()])
    expected = [mask.data_to_world(voxel) for voxel in grid.to_voxel(stored[::50])]
    np.testing.assert_allclose(vertices[::50], expected, atol=1e-3)
    for layer, options in zip(found, (options for _, options, _ in layers), strict=True):
        assert layer.axis_labels == ("z", "y", "x")
        if suffix in (".glb", ""):
            value = 1 if "liver" in layer.name else 2
            assert "spleen" in layer.name or value == 1
            np.testing.assert_allclose(options["vertex_colors"][0, :3], colors[value], atol=0.003)
        if suffix == ".stl":
            assert "vertex_colors" not in options
    if suffix == ".glb":
        out = tmp_path / "out.ply"
        for layer in found:
            (back,) = load_meshes(save_surface(out, layer)).values()
            original = load_meshes(path)[layer.name]
            np.testing.assert_allclose(back.bounds, original.bounds, atol=1e-4)
            assert back.volume == pytest.approx(original.volume, rel=1e-4)  # not inside out


def test_what_is_no_mesh(tmp_path, notes):
    (tmp_path / "a.ply").write_text("ply\n")
    assert read(tmp_path / "a.ply") == [(None,)]
    assert notes[0][0] == "error"
    (tmp_path / "notes.txt").touch()
    assert get_reader(str(tmp_path)) is None
    with pytest.raises(FileError, match="no mesh files, or other files beside"):
        load_meshes(tmp_path)


def test_meshes_beside_an_oblique_image(tmp_path, make_viewer):
    """An oblique image is drawn straight, and the mesh with it."""
    turn = np.eye(4)
    angle = np.deg2rad(25)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    grid, labels = placed(turn @ AFFINE), box_mask()
    path = tmp_path / "organ.ply"
    save_meshes(path, mesh_from_labels(labels, grid, MeshParams(smooth_mm=0.0)))
    viewer = make_viewer()
    place = grid_kwargs(grid)
    image = viewer.add_image(labels.astype(np.float32), **place)
    ((data, options, _),) = read(path)
    layer = viewer.add_surface(data, **options)
    (stored,) = load_meshes(path).values()
    expected = [image.data_to_world(voxel) for voxel in grid.to_voxel(stored.vertices[::50])]
    np.testing.assert_allclose(layer.data[0][::50], expected, atol=1e-3)
    (back,) = load_meshes(save_surface(tmp_path / "out.ply", layer)).values()
    (original,) = load_meshes(path).values()
    np.testing.assert_allclose(back.bounds, original.bounds, atol=1e-3)


def test_colors_of_a_mask_are_shown_and_kept(tmp_path):
    colors = {1: (1.0, 0.0, 0.5), 2: (0.0, 0.25, 0.0)}
    for name in ("m.seg.nrrd", "m.nii.gz", "m.mha"):
        path = write_labels(tmp_path / name, box_mask(), placed(), {1: "liver", 2: "spleen"},
                            colors=colors)  # fmt: skip
        ((data, options, kind),) = read(path)
        assert kind == "labels"
        layer = Labels(data, **options)
        for value, color in colors.items():
            np.testing.assert_allclose(layer.colormap.color_dict[value][:3], color, atol=1e-4)
        assert layer.metadata[NAMES_KEY] == {1: "liver", 2: "spleen"}
        assert layer.metadata[COLORS_KEY][1] == pytest.approx(colors[1])
    assert read_label_colors(tmp_path / "m.nii.gz") == colors


@pytest.mark.parametrize(
    "colors", [5, {"1": 5}, {"1": [1, 2, 3]}, {"x": [1, 0, 0]}, {"1": [True, 0, 0]}, {"1": [0, 0]}]
)
def test_damaged_colors_are_passed_over(tmp_path, colors):
    path = write_labels(tmp_path / "m.nii.gz", box_mask(), placed(), {1: "liver"})
    (tmp_path / "m.json").write_text(json.dumps({"labels": {"1": "liver"}, "colors": colors}))
    assert read_label_colors(path) == {}
    assert read_label_names(path) == {1: "liver"}
    ((_, options, _),) = read(path)
    assert "colormap" not in options


def test_a_cropped_mask_starts_on_its_image():
    """Slicer crops segmentations to their segments."""
    grid, labels = placed(), box_mask()
    image = Image(labels.astype(np.float32), name="scan", **grid_kwargs(grid))
    shift = np.array([2, 3, 4])
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world(shift)
    cropped = labels[2:10, 3:9, 4:12]
    mask = Labels(cropped, name="crop", **grid_kwargs(Grid(cropped.shape, affine)))
    np.testing.assert_array_equal(labels_like(mask, image, frame_of(image)), labels)
    affine[:3, 3] = grid.to_world(shift + 0.4)
    between = Labels(cropped, name="crop", **grid_kwargs(Grid(cropped.shape, affine)))
    with pytest.raises(GeometryError, match="differ in shape, voxel size or place"):
        labels_like(between, image, frame_of(image))
    empty = Labels(cropped * 0, name="none", **grid_kwargs(Grid(cropped.shape, affine)))
    with pytest.raises((LabelError, GeometryError)):
        labels_like(empty, image, frame_of(image))


def test_tiff_with_voxel_sizes_only(tmp_path):
    stack = np.zeros((3, 4, 5), np.uint16)
    tifffile.imwrite(tmp_path / "plain.tif", stack, photometric="minisblack")
    assert get_reader(str(tmp_path / "plain.tif")) is None
    tifffile.imwrite(tmp_path / "sized.tif", stack, imagej=True, resolution=(2, 2),
                     metadata={"spacing": 3, "unit": "mm", "axes": "ZYX"})  # fmt: skip
    ((_, options, _),) = read(tmp_path / "sized.tif")
    np.testing.assert_allclose(options["scale"], [3, 0.5, 0.5])


def test_info_of_a_folder_of_meshes(tmp_path):
    save_meshes(tmp_path / "organs", {1: trimesh.creation.box(), 2: trimesh.creation.box()})
    assert list(load_meshes(tmp_path / "organs")) == ["label_001", "label_002"]


def test_the_manifest_offers_every_format_that_is_read():
    from fnmatch import fnmatch

    from npe2 import PluginManifest

    import napari_medgs
    from napari_medgs.io.formats import READ_SUFFIXES
    from napari_medgs.io.meshes import SUFFIXES as MESHES
    from napari_medgs.io.ome_zarr.opening import SUFFIXES as ZARR

    manifest = PluginManifest.from_file(f"{napari_medgs.__path__[0]}/napari.yaml")
    (reader,) = manifest.contributions.readers
    names = [f"scan{suffix}" for suffix in (*READ_SUFFIXES, *MESHES, *ZARR, ".tif", ".tiff")]
    fields = ("f.medgs.safetensors", "f.medgs")
    for name in (*names, *fields, "scan.seg.nrrd", "a.dcm", "DICOMDIR", "a.npz"):
        assert any(fnmatch(name, pattern) for pattern in reader.filename_patterns), name
    assert reader.accepts_directories


def test_a_starting_mask_brings_its_names_and_colors(docked, notes, tiny_labels):
    viewer, widget = docked()
    scan = viewer.layers["scan"]
    table = {
        NAMES_KEY: {1: "liver", 2: "spleen", 7: "tumor"},
        COLORS_KEY: {1: (1.0, 0.0, 0.5)},
    }
    mask = viewer.add_labels(tiny_labels, name="old", metadata=table, **geometry_kwargs(scan))
    widget.view.initial.choose(mask)
    widget.view.new_strokes.click()
    shown = widget.view.table
    assert [shown.name(value) for value in (1, 2, 7)] == ["liver", "spleen", "tumor"]
    np.testing.assert_allclose(shown.color(1)[:3], (1, 0, 0.5), atol=0.01)
    np.testing.assert_allclose(
        widget.result_layer.colormap.color_dict[1][:3], (1, 0, 0.5), atol=0.01
    )
    assert notes == []


def test_the_load_widget_opens_one_volume(series, make_viewer, qtbot, notes):
    from napari_medgs.plugin.load.widget import LoadWidget

    path, _ = series
    viewer = make_viewer()
    widget = LoadWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.path.setText(str(path))
    for number, ndim in ((0, 4), (8, 3)):
        widget.volume.setValue(number)
        widget.run()
        qtbot.waitUntil(lambda: not widget.runner.busy and bool(widget.made), timeout=60_000)
        assert widget.made[0].ndim == ndim
    assert viewer.dims.ndim == 4
    assert notes == []
