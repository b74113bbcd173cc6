"""Images that are too large for the memory: a coarser level takes their place."""

import dask.array as da
import numpy as np
import pytest
from napari.components import ViewerModel
from skimage.measure import block_reduce

from napari_medgs._util import memory
from napari_medgs.data.grid import Grid
from napari_medgs.errors import MemoryEstimateError
from napari_medgs.plugin import levels
from napari_medgs.plugin.layer_frame import frame_of, grid_kwargs
from napari_medgs.plugin.levels import at_fitting_level, fit_need, segment_need

SHAPE = (40, 64, 96)


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(100, 9, SHAPE).astype(np.float32)


@pytest.fixture
def scene(image):
    """A viewer with an image of ours, its axes oblique in the patient."""
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.5, -0.5, 1.0])[:, [2, 1, 0]]
    affine[:3, 3] = (7, -3, 11)
    viewer = ViewerModel()
    layer = viewer.add_image(image, name="ct", **grid_kwargs(Grid(SHAPE, affine)))
    return viewer, layer


@pytest.fixture
def free(monkeypatch):
    """Set how many bytes are free."""

    def set_it(count):
        monkeypatch.setattr(levels, "free_bytes", lambda: count)

    return set_it


def test_what_fits_stays_as_it_is(scene, notes):
    viewer, layer = scene
    assert at_fitting_level(viewer, [layer], fit_need, "The fit") == [layer]
    assert at_fitting_level(viewer, [], fit_need, "The fit") == []
    assert list(viewer.layers) == [layer]
    assert notes == []


def test_a_coarser_image_takes_the_place_of_one_that_does_not_fit(scene, image, free, notes):
    viewer, layer = scene
    free(fit_need(SHAPE, 1))  # but a part of it is for the rest
    (made,) = at_fitting_level(viewer, [layer], fit_need, "The fit")
    # The finest axes first: voxels become cubes of 1 mm.
    np.testing.assert_allclose(made.data, block_reduce(image, (1, 2, 2), np.mean), atol=1e-4)
    np.testing.assert_allclose(made.scale, (1, 1, 1))
    assert made.units == layer.units
    before, now = frame_of(layer).grid, frame_of(made).grid
    corner = now.to_world(np.zeros(3))
    np.testing.assert_allclose(corner, before.to_world(np.array([0, 0.5, 0.5])), atol=1e-6)
    last = now.to_world(np.array(now.shape) - 1)
    np.testing.assert_allclose(last, before.to_world(np.array(SHAPE) - (1, 1.5, 1.5)), atol=1e-6)
    np.testing.assert_allclose(
        made.data_to_world((0, 0, 0)), layer.data_to_world((0, 0.5, 0.5)), atol=1e-6
    )
    assert [kind for kind, _ in notes] == ["warning"]
    assert made.name in notes[0][1]
    # Once made, it is used again.
    assert at_fitting_level(viewer, [layer], fit_need, "The fit") == [made]
    assert len(viewer.layers) == 2


def test_lazy_levels_are_not_read_but_for_the_one_that_fits(image, free, notes):
    def forbidden(block):
        if block.size:  # dask tries functions on empty arrays
            raise AssertionError("a level that is too large was read")
        return block

    fine = da.zeros((160, 256, 384), chunks=(40, 256, 384), dtype="f4").map_blocks(
        forbidden, dtype="f4"
    )
    middle = da.zeros((80, 128, 192), chunks=(40, 128, 192), dtype="f4").map_blocks(
        forbidden, dtype="f4"
    )
    viewer = ViewerModel()
    from napari.layers import Image

    layer = Image(
        [fine, middle, da.from_array(image)],
        multiscale=True, name="p", scale=(0.25, 0.25, 0.25), contrast_limits=(0, 200),
        units=("mm",) * 3,
    )  # fmt: skip
    free(segment_need((80, 128, 192), 1))
    (made,) = at_fitting_level(viewer, [layer], segment_need, "The segmentation")
    np.testing.assert_array_equal(made.data, image)
    np.testing.assert_allclose(made.scale, (1, 1, 1))
    np.testing.assert_allclose(made.translate, (0.375, 0.375, 0.375))
    assert "160" not in notes[0][1]


def test_contrasts_go_together_and_hopeless_ones_are_refused(scene, image, free, notes):
    viewer, layer = scene
    place = {"scale": layer.scale, "translate": layer.translate, "units": layer.units}
    other = viewer.add_image(image[::-1], name="t2", metadata=dict(layer.metadata), **place)
    free(fit_need(SHAPE, 2))
    made = at_fitting_level(viewer, [layer, other], fit_need, "The fit")
    assert [x.name.split(" · ")[0] for x in made] == ["ct", "t2"]
    assert made[0].data.shape == made[1].data.shape == (40, 32, 48)
    free(1000)
    with pytest.raises(MemoryEstimateError, match=r"'ct' needs about \d\.\d GiB and 0\.0 GiB"):
        at_fitting_level(viewer, [layer], fit_need, "The fit")


def test_free_memory_is_what_the_narrowest_limit_leaves(tmp_path, monkeypatch):
    assert memory.free_bytes() > 0
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("3000\n")
    (tmp_path / "memory.stat").write_text("anon 10\ninactive_file 1000\n")
    assert memory._of_groups(tmp_path) == [3000]
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._of_groups(tmp_path) == []
    old = tmp_path / "memory"
    old.mkdir()
    (old / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    (old / "memory.usage_in_bytes").write_text("3000")
    (old / "memory.stat").write_text("total_inactive_file 0\n")
    assert memory._of_groups(tmp_path) == []
    (old / "memory.limit_in_bytes").write_text("4000")
    assert memory._of_groups(tmp_path) == [1000]
    monkeypatch.setattr(memory, "_of_groups", lambda: [17])
    assert memory.free_bytes() == 17


def test_limits_of_the_process_count():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**40, before[1]))
    try:
        found = memory._of_limits()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert 2**38 < found[0] < 2**40
