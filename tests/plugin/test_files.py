"""Readers and writers: what goes out of napari comes back as it was."""

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels, Layer, Surface

from napari_medgs.plugin import reader, sample_data, writer
from napari_medgs.plugin.layer_frame import frame_of
from napari_medgs.plugin.layer_metadata import NAMES_KEY, field_of, frame_of_field
from tests.plugin.test_sections import random_field

OBLIQUE = np.array(
    [[-0.9, 0.1, 0.2, 30.0], [0.12, 1.1, 0.3, -20.0], [0.1, -0.25, 3.0, 10.0], [0, 0, 0, 1]]
)
pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")


def save_nifti(path, data, affine=OBLIQUE):
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return str(path)


def open_layers(path):
    function = reader.get_reader(path)
    assert function is not None
    return [Layer.create(*data) for data in function(path)]


@pytest.fixture
def scan(tmp_path):
    data = np.random.default_rng(0).integers(-500, 1500, (9, 8, 7)).astype(np.int16)
    return save_nifti(tmp_path / "scan.nii.gz", data), data


def test_a_nifti_image_is_upright_in_mm_and_comes_back_bit_for_bit(scan, tmp_path):
    path, data = scan
    (layer,) = open_layers(path)
    assert isinstance(layer, Image)
    assert layer.name == "scan"
    assert [str(u) for u in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    assert (layer.scale > 0).all()
    spacing = np.linalg.norm(OBLIQUE[:3, :3], axis=0)
    np.testing.assert_allclose(layer.scale, spacing[::-1], rtol=1e-5)
    # Index growth along z, y, x goes to superior, posterior, left.
    directions = np.array(layer.metadata["medgs_grid"]["affine"])[:3, :3]
    assert directions[2, 0] > 0
    assert directions[1, 1] < 0
    assert directions[0, 2] < 0
    assert layer.metadata["medgs_grid"]["shape"] == [7, 8, 9]
    out = str(tmp_path / "copy.nii.gz")
    written = writer.write_image_layer(out, layer.data, layer.as_layer_data_tuple()[1])
    assert written == [out]
    back, before = nib.load(out), nib.load(path)
    np.testing.assert_array_equal(np.asarray(back.dataobj), data)
    assert back.get_data_dtype() == np.int16
    np.testing.assert_array_equal(back.header.get_sform(), before.header.get_sform())
    np.testing.assert_array_equal(back.affine, before.affine)


def test_labels_drawn_on_an_image_are_saved_with_its_geometry(make_viewer, scan, tmp_path):
    """A Labels layer made in the viewer knows no file: the image at its place does."""
    path, data = scan
    viewer = make_viewer()
    image = viewer.add_layer(open_layers(path)[0])
    painted = (image.data > 900).astype(np.uint8)
    labels = viewer.add_labels(painted, scale=image.scale, translate=image.translate)
    out = str(tmp_path / "mask.nii.gz")
    data_tuple = labels.as_layer_data_tuple()
    assert writer.write_labels_layer(out, data_tuple[0], data_tuple[1]) == [out]
    back = nib.load(out)
    np.testing.assert_array_equal(np.asarray(back.dataobj), data > 900)
    np.testing.assert_array_equal(back.affine, nib.load(path).affine)
    (again,) = open_layers(out)
    assert isinstance(again, Labels)
    np.testing.assert_array_equal(again.data, painted)


def test_label_names_travel_with_the_mask(tmp_path):
    labels = Labels(np.eye(6, dtype=int)[None].repeat(4, 0), metadata={NAMES_KEY: {1: "bone"}})
    out = str(tmp_path / "any.nii.gz")
    data, meta, _ = labels.as_layer_data_tuple()
    assert writer.write_labels_layer(out, data, meta) == [out]
    (again,) = open_layers(out)
    assert isinstance(again, Labels)
    assert again.metadata[NAMES_KEY] == {1: "bone"}
    np.testing.assert_array_equal(again.data, labels.data)


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("sub-01_seg.nii.gz", "few floats", Labels),
        ("lesions_gold.nii.gz", "few", Labels),
        ("aparc_aseg.nii.gz", "many", Labels),
        ("something.nii.gz", "few", Labels),
        ("t1.nii.gz", "many", Image),
        ("segmented_probability.nii.gz", "fractions", Image),
        ("t1_mask.nii.gz", "fractions", Image),
    ],
)
def test_masks_are_told_from_images(tmp_path, name, values, kind):
    rng = np.random.default_rng(0)
    data = {
        "few floats": rng.integers(0, 4, (6, 6, 6)).astype(np.float64),
        "few": rng.integers(0, 4, (6, 6, 6)).astype(np.uint8),
        "many": rng.integers(0, 2000, (9, 9, 9)).astype(np.int16),
        "fractions": rng.random((6, 6, 6)).astype(np.float32),
    }[values]
    (layer,) = open_layers(save_nifti(tmp_path / name, data))
    assert type(layer) is kind


def test_four_axes_become_one_layer_each(tmp_path):
    data = np.random.default_rng(0).random((6, 5, 4, 3)).astype(np.float32)
    layers = open_layers(save_nifti(tmp_path / "multi.nii.gz", data))
    assert len(layers) == 3
    assert [x.visible for x in layers] == [True, False, False]
    assert len({x.name for x in layers}) == 3


def test_files_of_others_are_left_alone(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.tif").write_bytes(b"II")
    for name in ("other.npz", "empty", "x.tif"):
        assert reader.get_reader(str(tmp_path / name)) is None


@pytest.mark.parametrize("content", [b"", b"not a nifti file at all" * 100])
def test_damaged_files_become_one_notification(tmp_path, notes, content):
    path = tmp_path / "bad.nii"
    path.write_bytes(content)
    assert reader.get_reader(str(path))(str(path)) == [(None,)]
    assert len(notes) == 1
    assert notes[0][0] == "error"
    assert "bad.nii" in notes[0][1]


def test_what_cannot_be_written_becomes_a_notification(tmp_path, notes):
    rgb = Image(np.zeros((5, 6, 3), np.uint8), rgb=True, name="photo")
    data, meta, _ = rgb.as_layer_data_tuple()
    assert writer.write_image_layer(str(tmp_path / "a.nii.gz"), data, meta) == []
    nowhere = str(tmp_path / "nowhere" / "a.nii.gz")
    data, meta, _ = Labels(np.eye(5, dtype=int)).as_layer_data_tuple()
    assert writer.write_labels_layer(nowhere, data, meta) == []
    assert [severity for severity, _ in notes] == ["error", "error"]
    assert "photo" in notes[0][1]
    assert "nowhere" in notes[1][1]
    assert list(tmp_path.iterdir()) == []


def test_medmnist_sets_open_as_stacks_that_are_not_fitted(tmp_path):
    from napari_medgs.errors import ImageError

    arrays = {}
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = np.full((count, 28, 28), count, np.uint8)
        arrays[f"{split}_labels"] = np.arange(count)[:, None] % 2
    path = tmp_path / "someset.npz"
    np.savez_compressed(path, **arrays)
    layers = open_layers(str(path))
    assert [x.data.shape for x in layers] == [(5, 28, 28), (2, 28, 28), (3, 28, 28)]
    assert [x.visible for x in layers] == [True, False, False]
    with pytest.raises(ImageError, match="5 separate items"):
        frame_of(layers[0])


def test_a_field_file_opens_with_image_mask_and_centers(tmp_path):
    from napari_medgs.io.fields import save_field
    from napari_medgs.rendering import render, render_labels

    field = random_field(n=30, classes=3)
    path = save_field(tmp_path / "found.medgs.safetensors", field)
    image, mask, points = open_layers(str(path))
    np.testing.assert_allclose(image.data, render(field, "image")[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(mask.data, render_labels(field))
    assert mask.metadata[NAMES_KEY] == {0: "class 0", 1: "class 1", 2: "class 2"}
    np.testing.assert_allclose(points.data, field.voxel_centers(), atol=1e-4)
    assert set(points.features["class"]) <= set(field.info.class_names)
    for layer in (image, mask, points):
        np.testing.assert_array_equal(field_of(layer).centers, field.centers)
        np.testing.assert_allclose(frame_of_field(layer).grid.affine, field.info.grid.affine)


def test_a_compressed_field_opens_like_a_field(tmp_path):
    from napari_medgs.io.fields import load_field, save_field
    from napari_medgs.rendering import render

    path = save_field(tmp_path / "found.medgs", random_field(n=30, classes=3))
    layers = open_layers(str(path))
    assert layers[0].name.startswith("found")
    field = load_field(path)
    np.testing.assert_allclose(layers[0].data, render(field, "image")[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layers[2].data, field.voxel_centers(), atol=1e-4)


def test_dicom_folders_are_taken(tmp_path):
    import SimpleITK as sitk

    folder = tmp_path / "series"
    folder.mkdir()
    data = np.random.default_rng(0).integers(0, 900, (4, 6, 5)).astype(np.int16)
    for k, plane in enumerate(data):
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing((0.5, 0.5, 2.0))
        for tag, value in {
            "0008|0060": "CT",
            "0020|000e": "1.2.3.4",
            "0020|000d": "1.2.3",
            "0020|0032": f"0\\0\\{2.0 * k}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(k + 1),
        }.items():
            image.SetMetaData(tag, value)
        writer_ = sitk.ImageFileWriter()
        writer_.KeepOriginalImageUIDOn()
        writer_.SetFileName(str(folder / f"{k}.dcm"))
        writer_.Execute(image)
    (layer,) = open_layers(str(folder))
    np.testing.assert_array_equal(layer.data, data)
    np.testing.assert_allclose(layer.scale, (2.0, 0.5, 0.5))


def test_surfaces_are_saved_in_ras_millimeters_the_right_side_out(tmp_path):
    pytest.importorskip("napari_medgs.meshing.api")
    import trimesh

    ball = trimesh.creation.icosphere(radius=5)
    # z, y, x voxels; outward in those coordinates.
    vertices = ball.vertices + 10
    layer = Surface((vertices, ball.faces), scale=(2, 1, 1), translate=(100, 0, 0))
    data, meta, _ = layer.as_layer_data_tuple()
    out = str(tmp_path / "ball.ply")
    assert writer.write_surface_layer(out, data, meta) == [out]
    back = trimesh.load(out)
    np.testing.assert_allclose(back.bounds, [[-15, -15, 110], [-5, -5, 130]], atol=1e-3)
    assert back.volume == pytest.approx(2 * ball.volume, rel=1e-3)
    flat = Surface((np.eye(3)[:, :2], np.array([[0, 1, 2]])))
    from napari_medgs.errors import GeometryError

    with pytest.raises(GeometryError, match="flat"):
        writer.save_surface(tmp_path / "flat.ply", flat)


def test_the_phantom_sample_is_an_image_with_its_tissues():
    image, labels = (Layer.create(*data) for data in sample_data.phantom())
    assert isinstance(image, Image)
    assert isinstance(labels, Labels)
    assert labels.data.shape == image.data.shape
    assert len(labels.metadata[NAMES_KEY]) == 8


def test_the_mni152_sample_has_both_tissues():
    pytest.importorskip("nilearn")
    image, labels = (Layer.create(*data) for data in sample_data.mni152_small())
    assert image.data.shape == labels.data.shape
    np.testing.assert_allclose(image.scale, 2)
    assert image.data[labels.data == 2].mean() > image.data[labels.data == 1].mean()
    # Gray lies around white: its voxels are farther from the middle.
    assert (labels.data == 1).sum() > 10_000 < (labels.data == 2).sum()


def test_without_nilearn_the_sample_says_how_to_get_it(monkeypatch, notes):
    import sys

    monkeypatch.setitem(sys.modules, "nilearn", None)
    assert sample_data.mni152() == []
    assert notes[0][0] == "error"
    assert "pip install napari-medgs[sample]" in notes[0][1]
