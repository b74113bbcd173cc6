"""Trees of parts that are made in the background, kept with layers, and written with fields."""

import pytest

from napari_medgs.hierarchy import field_digest, has_tree, load_tree
from napari_medgs.plugin import trees
from napari_medgs.plugin.discover.widget import DiscoverWidget
from napari_medgs.plugin.export.jobs import export_job
from napari_medgs.plugin.fit.widget import FitWidget
from napari_medgs.plugin.layer_metadata import field_of
from tests.plugin.strokes import WAIT


def run(job):
    return job(lambda event: None, lambda: False)


def made(segment):
    segmenter = segment.controller.segmenter
    return segmenter is not None and segmenter.parts.is_ready


@pytest.fixture
def no_second_tree(monkeypatch):
    """Return a function after which no tree may be made."""

    def refuse(*args, **kwargs):
        raise AssertionError("a second tree was made")

    return lambda: monkeypatch.setattr("napari_medgs.hierarchy.build.build_tree", refuse)


def test_a_session_has_its_tree_before_it_is_asked_for(docked, qtbot, tmp_path, no_second_tree):
    viewer, segment = docked()
    segment.make_strokes()
    qtbot.waitUntil(lambda: made(segment) and not segment.parts_ahead.making.runner.busy,
                    timeout=WAIT)  # fmt: skip
    tree, field = segment.controller.segmenter.parts.tree(), segment.controller.field
    assert trees.tree_of(viewer.layers, field) is tree
    no_second_tree()
    segment.view.parts.button.click()
    qtbot.waitUntil(lambda: segment.parts.picker is not None, timeout=WAIT)
    assert segment.parts.picker.tree is tree
    segment.view.parts.button.click()
    segment.files.save(tmp_path / "work.json")
    qtbot.waitUntil(lambda: (tmp_path / "work.json").exists(), timeout=WAIT)
    (stored,) = tmp_path.glob("*.safetensors")
    assert load_tree(stored).field_digest == field_digest(field)


def test_a_fit_is_exported_with_its_tree_which_other_widgets_use(
    docked, qtbot, tmp_path, no_second_tree
):
    viewer, _ = docked()
    image = viewer.layers[0]
    fit = FitWidget(viewer)
    fit.run()
    qtbot.waitUntil(lambda: fit.last is not None and not fit.trees.runner.busy, timeout=WAIT)
    picture = next(x for x in viewer.layers if field_of(x) is not None)
    tree = trees.tree_of(viewer.layers, field_of(picture))
    assert tree is not None
    no_second_tree()
    path = run(export_job("field", picture, tmp_path / "scan.medgs.safetensors"))
    assert has_tree(path)
    discover = DiscoverWidget(viewer)
    discover.images.check([image])
    discover.find_parts()
    qtbot.waitUntil(lambda: discover.parts.tree is not None, timeout=WAIT)
    assert discover.parts.tree is tree
    qtbot.waitUntil(lambda: not discover.parts.mapping.busy, timeout=WAIT)
    discover.shut_down()
    for layer in viewer.layers:
        layer.metadata.pop(trees.TREE_KEY, None)
    assert trees.tree_of(viewer.layers, field_of(picture)) is None
    assert (trees.stored_tree(path, field_of(picture)).children == tree.children).all()
    other = field_of(picture).subset(slice(None, None, -1))
    assert trees.stored_tree(path, other) is None
    fit.shut_down()


def test_large_images_wait_until_asked(docked, qtbot, monkeypatch):
    monkeypatch.setattr(trees, "MOST_VOXELS", 10)
    _, segment = docked()
    segment.make_strokes()
    qtbot.waitUntil(lambda: segment.controller.segmenter.is_prepared, timeout=WAIT)
    qtbot.waitUntil(lambda: not segment.runner.busy, timeout=WAIT)
    assert not made(segment)
    assert not segment.parts_ahead.making.runner.busy
