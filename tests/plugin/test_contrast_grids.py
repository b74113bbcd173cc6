"""Images of other grids as contrasts: resampled where the widgets list them."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from napari.components import ViewerModel
from napari.layers import Image

from napari_medgs.errors import GeometryError
from napari_medgs.fitting import FitParams
from napari_medgs.io import read_volumes, write_image
from napari_medgs.plugin.contrast_grids import add_resampled, others_of, resample_job
from napari_medgs.plugin.fit.widget import FitWidget
from napari_medgs.plugin.layer_frame import frame_of, same_place
from napari_medgs.plugin.layer_volumes import volume_from_layers
from napari_medgs.plugin.reader import read_volume_layers
from napari_medgs.plugin.segment.choices import NOT_YET
from tests.plugin.strokes import begin, idle

WAIT = 120_000


def turned(volume, angle=0.2):
    """The affine of a NIfTI array (x, y, z) around the same middle, turned and coarser."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-1.3, 1.2, 2.0])
    middle = volume.grid.to_world((np.array(volume.shape) - 1) / 2)
    affine = np.eye(4)
    affine[:3, :3] = turn
    affine[:3, 3] = middle - turn @ [8, 7, 8]
    return affine


@pytest.fixture
def files(tmp_path, tiny_volume):
    """A first contrast, oblique itself, and a second one on a turned grid of other voxels."""
    affine = tiny_volume.grid.affine.copy()
    c, s = np.cos(0.3), np.sin(0.3)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ affine[:3, :3]
    grid = type(tiny_volume.grid)(tiny_volume.shape, affine)
    first = write_image(tmp_path / "t1.nii.gz", tiny_volume.data, grid)
    random = np.random.default_rng(3)
    second = tmp_path / "t2.nii.gz"
    data = random.normal(100, 20, (17, 15, 17)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, turned(tiny_volume)), second)
    return first, second


def opened(viewer, paths):
    """Add files as the reader does."""
    return [viewer.add_layer(Image(d, **o)) for p in paths for d, o, _ in read_volume_layers(p)]


def run_job(sources, reference):
    job = resample_job(sources, reference)
    return job, job(lambda event: None, lambda: False)


def test_the_button_resamples_where_images_lie(make_viewer, qtbot, files, notes):
    viewer = make_viewer()
    first, second = opened(viewer, files)
    widget = FitWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Fit")
    bar = widget.align
    assert bar.isHidden()
    widget.images.check([first, second])
    assert not bar.isHidden()
    assert bar.note.text().startswith("t2 lies on another grid than t1.")
    assert [bar.reference.itemText(k) for k in range(2)] == [
        "t1 · 3 x 1 x 1 mm", "t2 · 2 x 1.2 x 1.3 mm",
    ]  # fmt: skip
    widget.run()
    assert notes[-1][0] == "error"
    assert "Press 'Resample'" in notes[-1][1]

    bar.reference.setCurrentIndex(1)
    assert bar.note.text().startswith("t1 lies on another grid than t2.")
    bar.reference.setCurrentIndex(0)
    bar.button.click()
    assert bar.busy
    qtbot.waitUntil(lambda: not bar.busy, timeout=WAIT)
    assert [x.name for x in viewer.layers] == ["t1", "t2", "t2 · resampled to t1"]
    made = viewer.layers[-1]
    assert widget.images.layers == [first, made]
    assert bar.isHidden()
    assert (made.visible, second.visible) == (True, False)
    assert notes[-1][0] == "warning"
    assert "'t2' does not reach" in notes[-1][1]

    expected = sitk.Resample(
        sitk.ReadImage(str(files[1])),
        sitk.ReadImage(str(files[0])),
        sitk.Transform(),
        sitk.sitkLinear,
    )
    path = write_image(files[0].with_name("moved.nii.gz"), made.data[None], frame_of(made).grid)
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    # ITK reads NaN as 0, which is what it resamples to beyond an image.
    np.testing.assert_allclose(found, sitk.GetArrayFromImage(expected), atol=1e-2)
    assert (found > 50).any()
    assert np.isnan(made.data).any()
    # As the command line has it.
    with pytest.warns(UserWarning, match="does not reach"):
        both = read_volumes(files, resample=True)
    shown = volume_from_layers([first, made])[0].data
    np.testing.assert_array_equal(shown, both.data)

    widget.settings.load(FitParams(gaussians=100, iterations=2, backend="cpu"))
    widget.run()
    qtbot.waitUntil(lambda: not widget.runner.busy and widget.last is not None, timeout=WAIT)
    assert widget.last.result.field.info.image_channels == ("t1", "t2 · resampled to t1")

    made.translate = np.asarray(made.translate) + 1  # by hand, in napari's controls
    assert bar.note.text().startswith("t2 · resampled to t1 lies on another grid")
    assert not bar.isHidden()
    made.translate = np.asarray(made.translate) - 1
    assert bar.isHidden()

    # What is gone meanwhile is not drawn; Stop and closing leave nothing behind.
    widget.images.check([first, second])
    bar.button.click()
    viewer.layers.remove(second)
    qtbot.waitUntil(lambda: not bar.busy, timeout=WAIT)
    assert sum("resampled" in x.name and "recon" not in x.name for x in viewer.layers) == 1
    third = opened(viewer, files[1:])[0]
    widget.images.check([first, third])
    bar.button.click()
    bar.button.click()
    qtbot.waitUntil(lambda: not bar.busy, timeout=WAIT)
    bar.button.click()
    widget.shut_down()
    assert not bar.busy


def test_a_session_goes_on_until_images_are_resampled(docked, qtbot, notes, files):
    viewer, widget = docked(image=False)
    first, second = opened(viewer, files)
    view = widget.view
    view.images.check([first])
    begin(qtbot, widget)
    session, strokes = widget.controller.session, widget.strokes_layer
    view.images.check([first, second])
    assert widget.controller.session is session
    assert widget.state.message == NOT_YET
    view.images.check([first])
    assert widget.state.message != NOT_YET
    view.images.check([first, second])
    view.align.button.click()
    qtbot.waitUntil(lambda: not view.align.busy, timeout=WAIT)
    assert [x.name for x in widget.context.sources] == ["t1", "t2 · resampled to t1"]
    assert widget.controller.session is not session
    assert widget.strokes_layer is strokes
    np.testing.assert_array_equal(widget.controller.session.strokes, session.strokes)
    idle(qtbot, widget)


def test_layers_of_unknown_orientation_share_the_viewer_and_no_patient(tiny_volume, files):
    coarse = tiny_volume.channel(0)
    fine = coarse.repeat(2, 1).repeat(2, 2)
    image = Image(coarse, name="plain", scale=(3, 1, 1), units=("mm",) * 3)
    # One in pixels takes the other's unit, as for strokes.
    other = Image(fine, name="fine", scale=(3, 0.5, 0.5), translate=(0, -0.25, -0.25))
    assert others_of([image, other], image) == [other]
    _, [(data, texts)] = run_job([other], image)
    np.testing.assert_allclose(data, coarse, rtol=1e-5)
    assert texts == []
    known = Image(*read_volume_layers(files[0])[0][:1], **read_volume_layers(files[0])[0][1])
    with pytest.raises(GeometryError, match=r"not known how 'fine' lies .* Load widget"):
        resample_job([other], known)
    with pytest.raises(GeometryError, match="not known how 'fine' lies"):
        resample_job([known], other)
    with pytest.raises(GeometryError, match="'flat' is a flat picture and 'plain' a volume"):
        resample_job([Image(coarse[0], name="flat")], image)
    assert others_of([image, Image(coarse[None], name="4D")], image) == []


def test_axes_of_the_reference_stay(tiny_volume):
    """A reference whose axes another program turned gets an array in its own order."""
    viewer = ViewerModel()
    coarse = tiny_volume.channel(0)
    first = viewer.add_image(np.ascontiguousarray(coarse.transpose(2, 0, 1)[::-1]), name="turned")
    first.affine = np.array([[0, 3.0, 0, 0], [0, 0, 1, 0], [-1, 0, 0, 23], [0, 0, 0, 1]])
    second = viewer.add_image(coarse[:, 2:], name="part", scale=(3, 1, 1), translate=(0, 2, 0))
    job, made = run_job([second], first)
    assert "does not reach" in made[0][1][0]
    layer = add_resampled(viewer, job, made)[second]
    assert same_place(layer, first)
    expected = np.full_like(coarse, np.nan)
    expected[:, 2:] = coarse[:, 2:]
    np.testing.assert_allclose(layer.data, expected.transpose(2, 0, 1)[::-1], atol=1e-3)
