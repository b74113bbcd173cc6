"""Layers of other readers: results lie on their source, or it is said that this is not known."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import trimesh
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Points, Surface

from napari_medgs import io
from napari_medgs.data.grid import Grid
from napari_medgs.errors import GeometryError
from napari_medgs.fitting import FitParams
from napari_medgs.plugin import reader, writer
from napari_medgs.plugin.export.jobs import MeshOptions, export_job, place_warning
from napari_medgs.plugin.export.widget import ExportWidget
from napari_medgs.plugin.fit.jobs import make_fit_request
from napari_medgs.plugin.layer_frame import (
    frame_of,
    geometry_kwargs,
    grid_kwargs,
    layer_to_ras,
    same_place,
)
from napari_medgs.plugin.layer_metadata import FIELD_KEY, derived_metadata
from napari_medgs.plugin.layer_orientation import is_assumed, place_metadata
from napari_medgs.plugin.layer_volumes import volume_from_layers
from tests.plugin.test_sections import random_field

nifti_reader = pytest.importorskip("napari_nifti._reader")
nifti_writer = pytest.importorskip("napari_nifti._writer")
pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")

SHAPE = (7, 6, 5)
RNG = np.random.default_rng(4)
VALUES = RNG.permutation(210).reshape(SHAPE).astype(np.int16)


def _affine(columns, origin=(30.0, -15.0, -90.0)):
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = origin
    return affine


def _turn(a, b):
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return x @ z


AFFINES = {
    "ras": _affine(np.diag([1, 1.2, 2.5])),
    "lps": _affine(np.diag([-1, -1.2, 2.5])),
    "flipped": _affine(np.diag([1, -1.2, -2.5])),
    "coronal": _affine(np.diag([1, 2.5, 1.2])[:, [0, 2, 1]]),
    "sagittal": _affine((np.diag([2.5, 1, 1.2]))[:, [1, 2, 0]]),
    "oblique": _affine(_turn(0.2, 0.3) @ np.diag([-0.7, 0.9, 3.0])),
    "oblique sagittal": _affine(_turn(-0.15, 0.1) @ np.diag([2.5, -1, 1.2])[:, [2, 0, 1]]),
}
each_affine = pytest.mark.parametrize("affine", AFFINES.values(), ids=list(AFFINES))


def save(path, affine, data=VALUES):
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return str(path)


def open_other(path):
    (data,) = nifti_reader.napari_get_reader(path)(path)
    return Layer.create(*data)


def by_place(path):
    """Return the values of an image with their RAS places, as nibabel has them."""
    image = nib.load(path)
    data = np.asarray(image.dataobj)
    index = np.indices(data.shape).reshape(3, -1).T
    return data.reshape(-1), nib.affines.apply_affine(image.affine, index)


def assert_overlays(path, source, wanted=lambda values: values):
    """Check that nibabel and ITK find the values of a source, where it has them."""
    values, places = by_place(source)
    written = nib.load(path)
    data = np.asarray(written.dataobj)
    index = nib.affines.apply_affine(np.linalg.inv(written.affine), places)
    assert np.abs(index - np.rint(index)).max() < 1e-3
    np.testing.assert_array_equal(data[tuple(np.rint(index).astype(int).T)], wanted(values))
    image = sitk.ReadImage(str(path))
    for value, place in zip(wanted(values)[::17], places[::17], strict=True):
        index = image.TransformPhysicalPointToIndex([-place[0], -place[1], place[2]])
        assert image[index] == value


@each_affine
def test_an_image_of_napari_nifti_keeps_its_place(tmp_path, affine, notes):
    source = save(tmp_path / "scan.nii.gz", affine)
    layer = open_other(source)
    out = str(tmp_path / "copy.nii.gz")
    data, meta, _ = layer.as_layer_data_tuple()
    assert writer.write_image_layer(out, data, meta) == [out]
    assert_overlays(out, source)
    assert notes == []
    volume, frame = volume_from_layers([layer])
    assert not is_assumed(frame.grid)
    np.testing.assert_array_equal(frame.to_layer(volume.data[0]), layer.data)


@each_affine
@pytest.mark.parametrize("record", ["converted", "derived"])
def test_a_mask_of_a_napari_nifti_layer_overlays_on_its_source(tmp_path, affine, record, notes):
    source = save(tmp_path / "scan.nii.gz", affine)
    image = open_other(source)
    metadata = image.metadata if record == "converted" else place_metadata(image)
    mask = Labels(
        (image.data > 150).astype(np.uint8), **geometry_kwargs(image), metadata=dict(metadata)
    )
    out = str(tmp_path / "mask.nii.gz")
    data, meta, _ = mask.as_layer_data_tuple()
    assert writer.write_labels_layer(out, data, meta) == [out]
    assert_overlays(out, source, lambda values: values > 150)
    exported = export_job("mask", mask, tmp_path / "exported.nii.gz")(
        lambda *_: None, lambda: False
    )
    assert_overlays(exported, source, lambda values: values > 150)
    assert place_warning("mask", mask) is None
    assert notes == []


@each_affine
def test_a_mesh_of_a_napari_nifti_layer_lies_on_its_source(tmp_path, affine):
    solid = np.zeros(SHAPE, np.int16)
    solid[1:4, 2:5, 1:3] = 1
    source = save(tmp_path / "scan.nii.gz", affine, solid)
    image = open_other(source)
    mask = Labels(image.data.astype(int), **geometry_kwargs(image), metadata=image.metadata)
    options = MeshOptions(smooth_mm=0)
    path = export_job("mesh", mask, tmp_path / "m.ply", options)(lambda *_: None, lambda: False)
    mesh = trimesh.load(path)
    values, places = by_place(source)
    np.testing.assert_allclose(mesh.bounds.mean(0), _box_middle(affine), atol=1e-3)
    assert mesh.volume > 0
    # Layers of surfaces drawn on the image, too.
    surface = Surface(
        (np.argwhere(image.data == 1).astype(float), np.array([[0, 1, 2]])),
        **geometry_kwargs(image),
        metadata=place_metadata(image),
    )
    matrix = layer_to_ras(surface)
    found = nib.affines.apply_affine(matrix, surface.data[0])
    wanted = places[values == 1]
    np.testing.assert_allclose(
        found[np.lexsort(found.round(3).T)], wanted[np.lexsort(wanted.round(3).T)], atol=1e-3
    )


def _box_middle(affine):
    """Return the middle of the bounds of the box's corners where surfaces meet its faces."""
    return nib.affines.apply_affine(affine, [2.0, 3.0, 1.5])


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
@each_affine
def test_napari_niftis_writer_saves_our_layers_at_their_place(tmp_path, affine, suffix):
    source = save(tmp_path / "scan.nii.gz", affine)
    (layer,) = [Layer.create(*x) for x in reader.get_reader(source)(source)]
    out = str(tmp_path / f"copy{suffix}")
    data, meta, _ = layer.as_layer_data_tuple()
    nifti_writer.write_single_image(out, data, meta)
    if suffix == ".nrrd":
        out = str(tmp_path / "copy.nii.gz")
        sitk.WriteImage(sitk.ReadImage(str(tmp_path / "copy.nrrd")), out)
    assert_overlays(out, source)


def test_the_codes_of_napari_niftis_header_are_written(tmp_path, notes):
    for code in (1, 2, 4):
        image = nib.Nifti1Image(VALUES, AFFINES["oblique"])
        image.set_sform(AFFINES["oblique"], code)
        image.set_qform(AFFINES["oblique"], code)
        path = str(tmp_path / f"{code}.nii.gz")
        nib.save(image, path)
        out = writer.save_image(tmp_path / "out.nii.gz", open_other(path))
        assert int(nib.load(out).header["sform_code"]) == code
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, path)
    layer = open_other(path)
    assert is_assumed(frame_of(layer).grid)  # nothing in the file says where it lies


@pytest.mark.parametrize("change", ["moved", "scaled", "cropped", "other key"])
def test_a_record_that_does_not_fit_its_layer_is_not_believed(tmp_path, change):
    layer = open_other(save(tmp_path / "scan.nii.gz", AFFINES["oblique"]))
    if change == "moved":
        layer.translate = np.add(layer.translate, (0, 0, 1))
    elif change == "scaled":
        layer.scale = np.multiply(layer.scale, (1, 1, 1.1))
    elif change == "cropped":
        layer = Image(layer.data[1:], **geometry_kwargs(layer), metadata=layer.metadata)
    else:
        layer.metadata["affine"] = np.eye(4)
    assert is_assumed(frame_of(layer).grid)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": (2, 1, 1), "units": ("um",) * 3},
        {"metadata": {"affine": np.eye(4)}},
        {"metadata": {"affine": "here", "coordinate_system": "RAS+", "spacing": 1, "origin": 0}},
    ],
)
def test_layers_without_orientation_are_written_as_such_and_say_so_once(tmp_path, options, notes):
    layer = Labels((VALUES > 100).astype(int), name="painted", **options)
    out = str(tmp_path / "a.nii.gz")
    data, meta, _ = layer.as_layer_data_tuple()
    assert writer.write_labels_layer(out, data, meta) == [out]
    header = nib.load(out).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (2, 2)
    assert [severity for severity, _ in notes] == ["warning"]
    assert "orientation of 'painted' is not known" in notes[0][1]
    assert place_warning("mask", layer) == notes[0][1]
    assert place_warning("mesh", layer) == notes[0][1]
    # A layer made from it does not forget it.
    again = Labels(np.zeros(SHAPE, int), **grid_kwargs(frame_of(layer).grid))
    assert is_assumed(frame_of(again).grid)


@pytest.mark.parametrize("kind", ["ome", "imagej", "npy"])
def test_images_of_napari_and_tifffile_have_no_orientation(tmp_path, kind, notes):
    if kind == "npy":
        from napari_builtins.io import napari_get_reader

        path = str(tmp_path / "a.npy")
        np.save(path, VALUES)
        ((data, *_),) = napari_get_reader(path)(path)
    else:
        path = str(tmp_path / ("a.ome.tif" if kind == "ome" else "a.tif"))
        axes = {"metadata": {"axes": "ZYX"}} if kind == "ome" else {"imagej": True}
        tifffile.imwrite(path, VALUES, **axes)
        data = tifffile.imread(path)
    layer = Image(data, scale=(3, 2, 1), name="scan")
    out = str(tmp_path / "out.nii.gz")
    data, meta, _ = layer.as_layer_data_tuple()
    assert writer.write_image_layer(out, data, meta) == [out]
    written = nib.load(out)
    assert int(written.header["sform_code"]) == 2
    assert written.header.get_zooms() == (1, 2, 3)
    np.testing.assert_array_equal(np.asarray(written.dataobj).T, VALUES)
    assert len(notes) == 1


def test_a_field_remembers_that_the_orientation_was_assumed():
    layer = Image(VALUES.astype(np.float32), name="scan")
    request = make_fit_request([layer], None, FitParams())
    assert is_assumed(request.volume.grid)
    field = random_field(n=10)
    assert place_warning("field", Points(np.zeros((1, 3)), metadata={FIELD_KEY: field})) is None
    field.info = replace(field.info, grid=request.volume.grid)
    made = Points(np.zeros((1, 3)), metadata=derived_metadata(layer, request.frame, field))
    for kind in ("field", "splat", "image"):
        assert "orientation" in place_warning(kind, made)


def test_contrasts_take_the_orientation_of_the_one_that_knows_it(tmp_path):
    known = open_other(save(tmp_path / "scan.nii.gz", AFFINES["oblique"]))
    other = Image(known.data.copy(), **geometry_kwargs(known))
    _, frame = volume_from_layers([other, known])
    assert not is_assumed(frame.grid)
    assert frame.grid.matches(frame_of(known).grid)


def test_oblique_images_that_are_drawn_alike_are_not_at_one_place():
    def drawn(a):
        affine = np.eye(4)
        affine[:3, :3] = _turn(a, 0) @ np.diag([-1, -1, 1])[:, [2, 1, 0]]
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
        return Image(VALUES, **grid_kwargs(Grid(SHAPE, affine)))

    first, second = drawn(0.2), drawn(-0.2)
    np.testing.assert_allclose(first.scale, second.scale)
    np.testing.assert_allclose(first.translate, second.translate)
    assert same_place(first, drawn(0.2))
    assert not same_place(first, second)
    with pytest.raises(GeometryError, match="differ"):
        volume_from_layers([first, second])


def test_layers_derived_from_napari_niftis_keep_its_record(tmp_path):
    layer = open_other(save(tmp_path / "scan.nii.gz", AFFINES["oblique"]))
    _, frame = volume_from_layers([layer])
    metadata = derived_metadata(layer, frame, None)
    made = Labels(np.zeros(layer.data.shape, int), **geometry_kwargs(layer), metadata=metadata)
    assert not is_assumed(frame_of(made).grid)
    assert frame_of(made).grid.matches(frame.grid)


@each_affine
@pytest.mark.parametrize("other", [False, True], ids=["ours", "napari-nifti"])
def test_masks_made_in_the_viewer_take_the_place_of_their_image(
    tmp_path, affine, other, notes, monkeypatch
):
    """napari's own new layers have no record, and no negative scales as napari-nifti's have."""
    source = save(tmp_path / "scan.nii.gz", affine)
    viewer = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: viewer)
    image = open_other(source) if other else Layer.create(*reader.get_reader(source)(source)[0])
    viewer.add_layer(image)
    viewer._new_labels()
    mask = viewer.layers[-1]
    assert not place_metadata(mask)
    points = np.argwhere(image.data > 150)
    for point in points:
        at = np.rint(mask.world_to_data(image.data_to_world(point))).astype(int)
        mask.data[tuple(at)] = 1
    assert mask.data.sum() == len(points)
    out = str(tmp_path / "mask.nii.gz")
    data, meta, _ = mask.as_layer_data_tuple()
    assert writer.write_labels_layer(out, data, meta) == [out]
    assert_overlays(out, source, lambda values: values > 150)
    # Part of the image, at another resolution: its place among the images counts.
    part = viewer.add_labels(
        np.ones((2, 2, 2), int),
        scale=np.multiply(image.scale, 0.5),
        translate=image.data_to_world((2, 1, 1)),
        units=image.units,
    )
    written = nib.load(writer.save_labels(tmp_path / "part.nii.gz", part))
    corners = nib.affines.apply_affine(written.affine, [[0, 0, 0], [1, 1, 1]]).mean(0)
    wanted = nib.affines.apply_affine(layer_to_ras(image), [2.25, 1.25, 1.25])
    np.testing.assert_allclose(corners, wanted, atol=1e-3)
    assert notes == []
    # Once the image is gone, its orientation is not known any more, and that is said.
    viewer.layers.remove(image)
    assert writer.write_labels_layer(out, data, meta) == [out]
    assert int(nib.load(out).header["sform_code"]) == 2
    assert [severity for severity, _ in notes] == ["warning"]


@pytest.mark.parametrize("kind", ["frames", "tiff", "medmnist"])
def test_files_without_orientation_are_written_as_such(tmp_path, kind, notes):
    grid = Grid(SHAPE, source={"kind": kind, "dtype": "int16"})
    layer = Image(VALUES, name="scan", **grid_kwargs(grid))
    out = str(tmp_path / "out.nii.gz")
    data, meta, _ = layer.as_layer_data_tuple()
    assert writer.write_image_layer(out, data, meta) == [out]
    assert int(nib.load(out).header["sform_code"]) == 2
    assert int(nib.load(io.write_labels(out, VALUES, grid)).header["qform_code"]) == 2
    assert [severity for severity, _ in notes] == ["warning"]


def test_the_export_widget_says_that_the_orientation_is_not_known(
    make_viewer, qtbot, tmp_path, notes
):
    viewer = make_viewer()
    viewer.add_labels((VALUES > 100).astype(int), name="painted")
    widget = ExportWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.kind.setCurrentIndex(widget.kind.findData("mask"))
    widget.save(tmp_path / "mask.nii.gz")
    qtbot.waitUntil(lambda: not widget.runner.busy, timeout=60_000)
    assert [severity for severity, _ in notes] == ["info", "warning"]
    assert "mask.nii.gz" in notes[0][1]
    assert "'painted'" in notes[1][1]
    assert int(nib.load(tmp_path / "mask.nii.gz").header["sform_code"]) == 2
