"""Load, overlay and Export widgets in a real viewer."""

import re

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels, Layer
from qtpy.QtWidgets import QAbstractSpinBox, QCheckBox, QComboBox, QPushButton
from superqt import QLabeledDoubleSlider

from napari_medgs.errors import Cancelled, ParameterError
from napari_medgs.io.fields import load_field, save_field
from napari_medgs.plugin import reader
from napari_medgs.plugin.export.jobs import KINDS, export_job, parse_labels, with_suffix
from napari_medgs.plugin.export.widget import ExportWidget
from napari_medgs.plugin.field_images import render_field
from napari_medgs.plugin.file_names import plain_name
from napari_medgs.plugin.fit.results import field_layer_data
from napari_medgs.plugin.layer_frame import frame_of, grid_kwargs
from napari_medgs.plugin.layer_metadata import NAMES_KEY
from napari_medgs.plugin.load.widget import LoadWidget
from napari_medgs.plugin.overlay.layer import OverlayStyle, find_overlay
from napari_medgs.plugin.overlay.widget import OverlayWidget
from tests.plugin.test_docks import NAMES
from tests.plugin.test_sections import random_field

WAIT = 60_000


def wait_done(qtbot, widget):
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=WAIT)


def add_field(viewer, **options):
    field = random_field(n=60, **options)
    field.log_precision -= 0.7  # large enough to leave no class without voxels
    layers = field_layer_data(field, render_field(field), "found")
    return field, [viewer.add_layer(Layer.create(*data)) for data in layers]


def test_every_widget_opens_from_the_menu_with_an_empty_viewer(make_viewer, session_cache):
    viewer = make_viewer()
    for name in NAMES:
        dock, widget = viewer.window.add_plugin_dock_widget("napari-medgs", name)
        assert widget.viewer is viewer
        for kind in (QAbstractSpinBox, QCheckBox, QComboBox, QPushButton):
            for child in widget.findChildren(kind):
                if not isinstance(child.parent(), QLabeledDoubleSlider):
                    assert child.toolTip(), f"{name}: {kind.__name__} without a tooltip"
        viewer.window.remove_dock_widget(dock)


# Overlay


@pytest.fixture
def overlay_scene(make_viewer):
    viewer = make_viewer()
    field, layers = add_field(viewer, classes=3)
    widget = OverlayWidget(viewer)
    viewer.window.add_dock_widget(widget)
    return viewer, field, layers, widget


def test_the_overlay_is_made_styled_hidden_and_shown(overlay_scene, qtbot, notes):
    viewer, field, layers, widget = overlay_scene
    assert widget.style() == OverlayStyle()
    assert widget.field.layer is layers[0]
    assert "not shown" in widget.note.text()
    widget.show_it.setChecked(True)
    qtbot.waitUntil(lambda: widget.overlay is not None)
    overlay = find_overlay(viewer.layers, field)
    viewer.dims.set_current_step(0, 9)
    assert overlay.summary in widget.note.text()
    widget.color_by.setCurrentIndex(widget.color_by.findData("class"))
    widget.size.setValue(2.0)
    widget.opacity.setValue(0.25)
    widget.hide_background.setChecked(False)
    widget.limit.setValue(500)
    widget.colormap.setCurrentIndex(widget.colormap.findData("magma"))
    qtbot.waitUntil(lambda: overlay.style.sigmas == 2.0)
    assert overlay.style == OverlayStyle(
        color_by="class", sigmas=2.0, opacity=0.25, hide_background=False,
        most_ellipsoids=500, colormap="magma",
    )  # fmt: skip
    assert overlay.layer.opacity == pytest.approx(0.25)
    widget.show_it.setChecked(False)
    qtbot.waitUntil(lambda: not overlay.layer.visible)
    widget.show_it.setChecked(True)
    qtbot.waitUntil(lambda: overlay.layer.visible)
    assert notes == []
    viewer.layers.remove(overlay.layer)
    assert not widget.show_it.isChecked()
    # A second widget finds the style of an overlay that is there.
    widget.show_it.setChecked(True)
    qtbot.waitUntil(lambda: widget.overlay is not None)
    other = OverlayWidget(viewer)
    qtbot.addWidget(other)
    assert other.style() == widget.overlay.style
    other.shut_down()


def test_coloring_by_error_needs_the_image(overlay_scene, qtbot, notes):
    viewer, _field, layers, widget = overlay_scene
    widget.show_it.setChecked(True)
    qtbot.waitUntil(lambda: widget.overlay is not None)
    widget.color_by.setCurrentIndex(widget.color_by.findData("error"))
    qtbot.waitUntil(lambda: len(notes) == 1)
    assert notes[0][0] == "error"
    assert "image" in notes[0][1]
    assert widget.color_by.currentData() == "intensity"  # back to what is shown
    image = layers[0]
    truth = viewer.add_image(image.data + 0.5, name="truth", scale=image.scale,
                             translate=image.translate)  # fmt: skip
    widget.image.choose(truth)
    widget.color_by.setCurrentIndex(widget.color_by.findData("error"))
    qtbot.waitUntil(lambda: widget.overlay.style.color_by == "error")
    np.testing.assert_allclose(widget.overlay.errors, 0.5, atol=1e-5)
    assert len(notes) == 1


def test_no_classes_no_class_colors(make_viewer, qtbot, notes):
    viewer = make_viewer()
    _field, (image, *_) = add_field(viewer)
    widget = OverlayWidget(viewer)
    qtbot.addWidget(widget)

    def offered():
        items = [widget.color_by.model().item(k) for k in range(widget.color_by.count())]
        return [widget.color_by.itemData(k) for k, item in enumerate(items) if item.isEnabled()]

    assert offered() == ["intensity"]
    truth = viewer.add_image(image.data, scale=image.scale, translate=image.translate)
    widget.image.choose(truth)
    assert offered() == ["intensity", "error"]
    widget.image.choose(None)
    widget.color_by.setCurrentIndex(widget.color_by.findData("class"))
    widget.show_it.setChecked(True)
    qtbot.waitUntil(lambda: len(notes) == 1)
    assert "classes" in notes[0][1]
    assert widget.overlay is None
    widget.shut_down()


# Export


@pytest.fixture
def export_scene(make_viewer):
    viewer = make_viewer()
    field, layers = add_field(viewer, classes=3)
    widget = ExportWidget(viewer)
    viewer.window.add_dock_widget(widget)
    return viewer, field, layers, widget


def choose(widget, kind, layer):
    widget.kind.setCurrentIndex(widget.kind.findData(kind))
    widget.layer.choose(layer)
    assert widget.layer.layer is layer


def test_export_of_a_field_and_its_pictures(export_scene, qtbot, tmp_path, notes):
    _viewer, field, (image, mask, _), widget = export_scene
    choose(widget, "field", image)
    widget.save(tmp_path / "a")
    wait_done(qtbot, widget)
    assert widget.saved == tmp_path / "a.medgs.safetensors"
    np.testing.assert_array_equal(load_field(widget.saved).centers, field.centers)
    choose(widget, "image", image)
    widget.save(tmp_path / "b.nii.gz")
    wait_done(qtbot, widget)
    (back,) = (Layer.create(*d) for d in reader.read_paths([tmp_path / "b.nii.gz"]))
    np.testing.assert_allclose(back.data, image.data, atol=1e-6)
    choose(widget, "mask", mask)
    widget.save(tmp_path / "c.nii.gz")
    wait_done(qtbot, widget)
    (again,) = (Layer.create(*d) for d in reader.read_paths([tmp_path / "c.nii.gz"]))
    np.testing.assert_array_equal(again.data, mask.data)
    assert again.metadata[NAMES_KEY][1] == "class 1"
    assert [severity for severity, _ in notes] == ["info"] * 3
    assert all(str(tmp_path) in text for _, text in notes)


def test_export_of_a_compressed_field(export_scene, qtbot, tmp_path, notes):
    viewer, field, (image, _, _), widget = export_scene
    choose(widget, "compressed", image)
    box = widget.compression
    assert not box.isHidden()
    qtbot.waitUntil(lambda: "smaller" in box.text.text(), timeout=20_000)
    first = box.text.text()
    difference = box.difference
    assert difference in viewer.layers
    assert difference.data.shape == image.data.shape
    assert difference.data.any()
    box.slider.setValue(0)
    qtbot.waitUntil(lambda: box.text.text() not in ("Measuring ...", first), timeout=20_000)
    assert [layer for layer in viewer.layers if "difference" in layer.name] == [difference]
    box.shows.setChecked(False)
    assert not difference.visible
    widget.save(tmp_path / "a")
    wait_done(qtbot, widget)
    assert widget.saved == tmp_path / "a.medgs"
    small = load_field(widget.saved)
    assert len(small) == len(field)
    assert small.info.degree <= 1
    widget.kind.setCurrentIndex(widget.kind.findData("mesh"))
    assert box.isHidden()
    assert [severity for severity, _ in notes] == ["info"]
    widget.shut_down()


def test_compression_to_an_image_that_is_another(export_scene, qtbot, tmp_path, notes):
    viewer, _, (image, _, _), widget = export_scene
    other = viewer.add_image(np.random.default_rng(0).random((3, 9, 9)), name="other")
    choose(widget, "compressed", image)
    widget.compression.image.choose(other)
    qtbot.waitUntil(lambda: "not the image of this field" in widget.compression.text.text())
    widget.save(tmp_path / "a")
    assert notes[-1][0] in ("warning", "error")
    assert "not the image of this field" in notes[-1][1]
    assert not (tmp_path / "a.medgs").exists()
    widget.shut_down()


def test_export_of_splats(export_scene, qtbot, tmp_path):
    pytest.importorskip("napari_medgs.io.splats")
    _, field, (image, _, _), widget = export_scene
    choose(widget, "splat", image)
    widget.save(tmp_path / "cloud")
    wait_done(qtbot, widget)
    head = (tmp_path / "cloud.ply").read_bytes()[:200]
    count = int(re.search(rb"element vertex (\d+)", head)[1])
    assert 0.9 * len(field) < count <= len(field)  # those that nobody would see are left out


def test_export_of_meshes(export_scene, qtbot, tmp_path, notes):
    from napari_medgs.io.meshes import load_meshes

    _, field, (_, mask, _), widget = export_scene
    choose(widget, "mesh", mask)
    widget.labels.setText("1")
    widget.keep.setValue(50)
    inside = np.argwhere(mask.data == 1)
    for suffix in (".ply", ".stl", ".obj", ".glb"):
        notes.clear()
        path = tmp_path / f"one{suffix}"
        widget.save(path)
        wait_done(qtbot, widget)
        assert [severity for severity, _ in notes] == ["info"], notes
        (mesh,) = load_meshes(path).values()
        voxels = field.info.grid.to_voxel(mesh.vertices)
        assert (voxels.min(0) > inside.min(0) - 1.5).all(), suffix
        assert (voxels.max(0) < inside.max(0) + 1.5).all(), suffix


def test_edited_masks_are_meshed_from_their_voxels(export_scene, qtbot, tmp_path, notes):
    from napari_medgs.io.meshes import load_meshes

    _, field, (_, mask, _), widget = export_scene
    edited = np.zeros_like(mask.data)
    edited[5:9, 5:9, 5:9] = 1
    mask.data = edited
    choose(widget, "mesh", mask)
    widget.smooth.setValue(0)
    widget.save(tmp_path / "cube.ply")
    wait_done(qtbot, widget)
    (mesh,) = load_meshes(tmp_path / "cube.ply").values()
    assert mesh.volume == pytest.approx(64 * field.info.grid.voxel_volume, rel=0.25)


def test_refused_exports_leave_nothing_behind(export_scene, qtbot, tmp_path, notes):
    viewer, _, (_image, mask, _), widget = export_scene
    choose(widget, "mask", mask)
    widget.save(tmp_path / "nowhere" / "a.nii.gz")
    wait_done(qtbot, widget)
    choose(widget, "mesh", mask)
    widget.labels.setText("one and two")
    widget.save(tmp_path / "b.ply")
    widget.labels.setText("77")
    widget.save(tmp_path / "b.ply")
    wait_done(qtbot, widget)
    empty = viewer.add_labels(np.zeros_like(mask.data), name="blank")
    widget.labels.setText("")
    choose(widget, "mesh", empty)
    widget.save(tmp_path / "b.ply")
    viewer.layers.clear()
    widget.save(tmp_path / "b.ply")
    wait_done(qtbot, widget)
    assert [severity for severity, _ in notes] == ["error"] * 5
    for (_, text), word in zip(notes, ("nowhere", "label", "77", "blank", "Choose")):
        assert word in text
    assert list(tmp_path.iterdir()) == []


def test_label_lists_and_suffixes():
    assert parse_labels(" ") is None
    assert parse_labels("all") is None
    assert parse_labels("1, 2 5-7 2") == (1, 2, 5, 6, 7)
    for bad in ("x", "1-", "-3", "1.5", "1-99999999"):
        with pytest.raises(ParameterError):
            parse_labels(bad)
    assert with_suffix("a/b", "mask").name == "b.nii.gz"
    assert with_suffix("a/b.nii", "mask").name == "b.nii"
    assert with_suffix("b.v2", "mesh").name == "b.v2.ply"
    assert set(KINDS) == {"mesh", "mask", "image", "field", "compressed", "splat"}


# Load


@pytest.fixture
def loader(make_viewer):
    viewer = make_viewer()
    widget = LoadWidget(viewer)
    viewer.window.add_dock_widget(widget)
    return viewer, widget


def test_files_are_opened_in_the_background(loader, qtbot, tmp_path, notes):
    viewer, widget = loader
    data = np.random.default_rng(0).integers(0, 900, (6, 5, 4)).astype(np.int16)
    nib.save(nib.Nifti1Image(data, np.diag([1, 2, 3, 1.0])), tmp_path / "scan.nii.gz")
    widget.path.setText(str(tmp_path / "scan.nii.gz"))
    widget.panel.button.click()
    wait_done(qtbot, widget)
    (layer,) = viewer.layers
    assert isinstance(layer, Image)
    np.testing.assert_allclose(layer.scale, (3, 2, 1))
    field = random_field(n=10, classes=2)
    save_field(tmp_path / "f.medgs.safetensors", field)
    widget.path.setText(str(tmp_path / "f.medgs.safetensors"))
    widget.run()
    wait_done(qtbot, widget)
    assert [type(x).__name__ for x in widget.made] == ["Image", "Labels", "Points"]
    assert notes == []


def test_what_a_file_does_not_say_can_be_said(loader, qtbot, tmp_path, notes):
    import imageio.v3 as iio

    _viewer, widget = loader
    assert [box.text() for box in widget.spacing] == ["z auto", "y auto", "x auto"]
    frames = tmp_path / "frames"
    frames.mkdir()
    for k in range(4):
        iio.imwrite(frames / f"{k:03}.png", np.full((6, 7), 40 * k, np.uint8))
    widget.path.setText(str(frames))
    widget.run()
    wait_done(qtbot, widget)
    assert len(notes) == 1
    assert "spacing" in notes[0][1]
    widget.spacing[0].setValue(2.5)
    widget.run()
    assert "all" in notes[1][1]
    for box in widget.spacing[1:]:
        box.setValue(0.5)
    widget.run()
    wait_done(qtbot, widget)
    assert len(notes) == 2
    np.testing.assert_allclose(widget.made[0].scale, (2.5, 0.5, 0.5))


def test_what_cannot_be_opened_is_said(loader, qtbot, tmp_path, notes):
    viewer, widget = loader
    (tmp_path / "text.docx").write_bytes(b"PK")
    for name in ("", "missing.nii.gz", "text.docx"):
        notes.clear()
        widget.path.setText(str(tmp_path / name) if name else "")
        widget.run()
        wait_done(qtbot, widget)
        assert [severity for severity, _ in notes] == ["error"], name
        assert name in notes[0][1]
        assert len(viewer.layers) == 0


def test_items_of_a_medmnist_set(loader, qtbot, data_dir, notes):
    _viewer, widget = loader
    widget.tabs.setCurrentIndex(1)
    widget.set_path.setText(str(data_dir / "medmnist" / "retinamnist.npz"))
    widget.split.setCurrentIndex(widget.split.findData("test"))
    widget.index.setValue(7)
    widget.run()
    wait_done(qtbot, widget)
    assert [x.name for x in widget.made] == [
        f"retinamnist test 7 {c}" for c in ("red", "green", "blue")
    ]
    stored = np.load(data_dir / "medmnist" / "retinamnist.npz", allow_pickle=False)
    np.testing.assert_array_equal(
        np.stack([x.data[0] for x in widget.made], -1), stored["test_images"][7]
    )
    assert frame_of(widget.made[0]).grid.shape == (1, 28, 28)
    widget.set_path.setText(str(data_dir / "medmnist" / "adrenalmnist3d.npz"))
    widget.run()
    wait_done(qtbot, widget)
    assert widget.made[0].data.shape == (28, 28, 28)
    assert notes == []
    widget.index.setValue(9_999_999)
    widget.run()
    wait_done(qtbot, widget)
    assert "last index" in notes[0][1]


def test_whole_sets_as_stacks(loader, qtbot, data_dir, notes):
    _viewer, widget = loader
    widget.tabs.setCurrentIndex(1)
    widget.set_path.setText(str(data_dir / "medmnist" / "retinamnist.npz"))
    widget.whole.setChecked(True)
    assert not widget.index.isEnabled()
    widget.run()
    wait_done(qtbot, widget)
    assert [x.data.shape[0] for x in widget.made] == [1080, 120, 400]
    assert all(x.rgb for x in widget.made)
    assert notes == []


def test_sets_are_downloaded_by_name(loader, qtbot, monkeypatch, data_dir):
    from napari_medgs.io.medmnist import download

    asked = []

    def fetch(name, *, size):
        asked.append((name, size))
        return data_dir / "medmnist" / f"{name}.npz"

    monkeypatch.setattr(download, "fetch", fetch)
    _viewer, widget = loader
    widget.tabs.setCurrentIndex(1)
    widget.set_name.setCurrentIndex(widget.set_name.findData("breastmnist"))
    assert not widget.set_path.isEnabled()
    widget.run()
    wait_done(qtbot, widget)
    assert asked == [("breastmnist", 28)]
    (layer,) = widget.made
    assert layer.name == "breastmnist train 0"


def test_masks_opened_here_are_labels(loader, qtbot, data_dir, notes):
    viewer, widget = loader
    folder = data_dir / "ct_spleen_msd_crop"
    for name in ("ct", "seg"):
        widget.path.setText(str(folder / f"{name}.nii.gz"))
        widget.run()
        wait_done(qtbot, widget)
    image, mask = viewer.layers
    assert isinstance(mask, Labels)
    assert notes == []
    np.testing.assert_allclose(image.scale, mask.scale)
    np.testing.assert_allclose(image.translate, mask.translate)
    assert image.scale[0] == pytest.approx(5.0)
    assert grid_kwargs(frame_of(image).grid)["scale"] == pytest.approx(tuple(image.scale))


def test_meshes_have_the_colors_of_the_screen_and_a_file_each(
    export_scene, qtbot, tmp_path, notes
):
    import trimesh
    from napari.utils.colormaps import DirectLabelColormap

    _, _field, (_, mask, _), widget = export_scene
    shown = {1: (1.0, 0, 0, 1), 2: (0, 1.0, 0, 1), None: (0, 0, 0, 0)}
    mask.colormap = DirectLabelColormap(color_dict=shown)
    choose(widget, "mesh", mask)
    widget.voxels.setChecked(True)
    widget.save(tmp_path / "all.ply")
    wait_done(qtbot, widget)
    whole = trimesh.load(tmp_path / "all.ply")
    found = {tuple(color[:3]) for color in whole.visual.vertex_colors}
    assert found == {(255, 0, 0), (0, 255, 0)}
    widget.separate.setCurrentIndex(widget.separate.findData(True))
    widget.save(tmp_path / "each.stl")
    wait_done(qtbot, widget)
    assert widget.saved == tmp_path / "each"
    assert sorted(p.name for p in widget.saved.iterdir()) == [
        "001_class_1.stl", "002_class_2.stl",
    ]  # fmt: skip
    widget.save(tmp_path / "each.stl")  # never among other files
    assert [severity for severity, _ in notes] == ["info", "info", "error"]
    assert "not empty" in notes[-1][1]


def test_dialogs_start_in_the_folder_of_the_image(export_scene, tmp_path, monkeypatch, notes):
    from napari_medgs.plugin.export import widget as module

    _, _field, (image, mask, _), widget = export_scene
    image.metadata["path"] = str(tmp_path / "scan.nii.gz")
    mask.metadata["path"] = str(tmp_path / "scan.nii.gz")
    asked = []
    monkeypatch.setattr(
        module.QFileDialog, "getSaveFileName", lambda *a: (asked.append(a[2]), ("", ""))[1]
    )
    choose(widget, "mask", mask)
    widget.ask()
    choose(widget, "field", image)
    widget.ask()
    choose(widget, "image", image)  # its name is not that of the mask
    widget.ask()
    assert asked == [
        str(tmp_path / "found_mask.nii.gz"), str(tmp_path / "found.medgs.safetensors"),
        str(tmp_path / "found_reconstruction.nii.gz"),
    ]  # fmt: skip
    (tmp_path / "there.medgs.safetensors").write_bytes(b"precious")
    for name, text in (("there", "there.medgs.safetensors: exists."), ("n" * 250, "cannot be")):
        chosen = str(tmp_path / name), ""
        monkeypatch.setattr(module.QFileDialog, "getSaveFileName", lambda *_, c=chosen: c)
        choose(widget, "field", image)
        widget.ask()
        assert not widget.runner.busy
        assert text in notes[-1][1]
    image.name = "ü" * 200
    assert len(plain_name(image.name).encode()) < 230


def test_a_canceled_export_writes_nothing(tiny_volume, tiny_labels, tmp_path):
    layer = Labels(tiny_labels, name="mask", **grid_kwargs(tiny_volume.grid))
    for kind in ("mesh", "mask"):
        job = export_job(kind, layer, tmp_path / "x")
        with pytest.raises(Cancelled):
            job(lambda event: None, lambda: True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("through", ["the widget", "napari's menu"])
def test_the_scan_is_not_overwritten(export_scene, qtbot, tmp_path, notes, through):
    _viewer, _field, (image, mask, _), widget = export_scene
    scan, own = tmp_path / "scan.nii.gz", tmp_path / "own.nii.gz"
    image.metadata["path"], mask.metadata["path"] = str(scan), str(own)
    for path in (scan, own):
        path.write_bytes(b"precious")
    choose(widget, "mask", mask)
    if through == "the widget":
        widget.save(scan)
    else:
        mask.save(str(scan), plugin="napari-medgs")
    assert scan.read_bytes() == b"precious"
    assert "is open in the viewer; choose another name" in notes[-1][1]
    if through == "napari's menu":
        mask.save(str(own), plugin="napari-medgs")  # onto itself, as edited
        assert own.read_bytes() != b"precious"
