"""Lists of classes, and the folder that keeps accepted cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.errors import FileError, FormatVersionError, GeometryError, LabelError
from napari_medgs.segmentation import (
    CaseStore,
    ClassList,
    SegmentClass,
    Session,
    Settings,
    load_classes,
    save_classes,
)
from napari_medgs.segmentation.cases.store import case_name
from tests.strategies import damaged

LIVER = ("10200004", "SCT", "Liver")
ORGAN = ("91723000", "SCT", "Anatomical structure")
CLASSES = ClassList(
    (
        SegmentClass(1, "liver", (0.8, 0.25, 0.2), ORGAN, LIVER),
        SegmentClass(4, "Größe, \u4e2d", (0.0, 1.0, 0.5)),
        SegmentClass(300, "tumor"),
    )
)
AFFINE = np.array([[0, 0, -0.8, 30], [0, -0.9, 0, 40], [2.5, 0, 0, -10], [0, 0, 0, 1.0]])


@pytest.fixture
def image():
    data = np.random.default_rng(3).integers(-900, 900, (1, 5, 7, 9)).astype(np.int16)
    return Volume(data, Grid((5, 7, 9), affine=AFFINE), ("ct",))


@pytest.fixture
def mask():
    labels = np.zeros((5, 7, 9), np.uint16)
    labels[1:3, 2:5, 2:6], labels[3, 3, 3:5] = 1, 300
    return labels


# Lists of classes


def test_a_list_of_classes_comes_back_from_its_file(tmp_path):
    path = save_classes(tmp_path / "head.json", CLASSES)
    assert load_classes(path) == CLASSES
    assert CLASSES.names[4] == "Größe, \u4e2d"
    assert CLASSES.codes == {1: (ORGAN, LIVER)}
    assert ClassList.of(CLASSES.names, CLASSES.colors, CLASSES.codes) == CLASSES
    record = json.loads(path.read_text("utf-8"))
    assert record["classes"][2] == {"value": 300, "name": "tumor"}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([(0, "a")], "values are 1 to"),
        ([(70_000, "a")], "values are 1 to"),
        ([(1, " ")], "name of one line"),
        ([(1, "a\nb")], "name of one line"),
        ([(1, "a"), (1, "b")], "the same value"),
        ([(1, "a"), (2, "A")], "the same name"),
        ([(k, str(k)) for k in range(1, 260)], "At most 249"),
    ],
)
def test_classes_that_cannot_be_are_refused(classes, message):
    with pytest.raises(LabelError, match=message):
        ClassList(tuple(SegmentClass(*one) for one in classes))


def test_colors_and_codes_are_checked():
    with pytest.raises(LabelError, match="from 0 to 1"):
        SegmentClass(1, "a", (0, 0, 1.5))
    with pytest.raises(LabelError, match="coding scheme"):
        SegmentClass(1, "a", kind=("1", "", "x"))


@given(record=damaged(CLASSES.to_dict()))
def test_damaged_lists_are_refused_in_one_sentence(record, tmp_path_factory):
    path = tmp_path_factory.mktemp("classes") / "list.json"
    path.write_text(json.dumps(record), "utf-8")
    try:
        loaded = load_classes(path)
    except (FileError, FormatVersionError) as error:
        told = str(error)
    else:
        told = f"{path} {len(loaded.classes)}"
    assert told.startswith(str(path))


def test_other_files_are_no_lists(tmp_path):
    path = tmp_path / "list.json"
    with pytest.raises(FileError, match="cannot be read"):
        load_classes(path)
    for text in ("[1]", "no json", '{"labels": {}}'):
        path.write_text(text)
        with pytest.raises(FileError, match="not a"):
            load_classes(path)
    path.write_text(json.dumps(CLASSES.to_dict() | {"version": 9}))
    with pytest.raises(FormatVersionError, match="newer napari-medgs"):
        load_classes(path)
    path.write_bytes(b" " * (2**20 + 1))
    with pytest.raises(FileError, match="too large"):
        load_classes(path)


def test_lists_are_merged_where_they_agree():
    other = ClassList((SegmentClass(1, "LIVER", (0, 0, 0)), SegmentClass(2, "spleen")))
    merged = CLASSES.merged(other)
    assert merged.names == CLASSES.names | {2: "spleen"}
    assert merged.colors[1] == CLASSES.colors[1]
    with pytest.raises(LabelError, match="'liver' there and 'bone' here"):
        CLASSES.merged(ClassList.of({1: "bone"}))
    with pytest.raises(LabelError, match="the same name"):
        CLASSES.merged(ClassList.of({7: "liver"}))


# The store


def test_a_case_comes_back_with_image_mask_classes_and_session(tmp_path, image, mask):
    store = CaseStore(tmp_path / "cases")
    assert store.names == []
    assert store.classes == ClassList()
    session = Session(
        image.grid, Settings(background=9), names={1: "liver"}, field="a.safetensors"
    )
    session.paint(np.s_[1, 2, 2:6], 1)
    name = store.name_for(image, "ct 1")
    record = store.add(name, image, mask, CLASSES, session=session, images=["/data/ct 1.nii.gz"])
    assert record == store.record("ct_1")
    assert store.names == ["ct_1"]
    assert store.classes == CLASSES
    again = store.volume("ct_1")
    np.testing.assert_array_equal(again.data, image.data)
    np.testing.assert_allclose(again.grid.affine, image.grid.affine, atol=1e-5)
    np.testing.assert_array_equal(store.labels("ct_1"), mask)
    restored = store.session("ct_1")
    np.testing.assert_array_equal(restored.strokes, session.strokes)
    assert restored.field == ""
    assert session.field == "a.safetensors"
    assert store.name_for(image, "anything") == "ct_1"


def test_the_layout_is_what_nnunet_reads(tmp_path, image, mask):
    two = Volume(np.concatenate([image.data, image.data // 2]), image.grid, ("t1", "t2"))
    CaseStore(tmp_path / "cases").add("a", two, mask, CLASSES)
    root = tmp_path / "cases"
    files = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    assert files == [
        "cases/a.json", "classes.json", "dataset.json", "imagesTr/a_0000.nii.gz",
        "imagesTr/a_0001.nii.gz", "labelsTr/a.json", "labelsTr/a.nii.gz",
    ]  # fmt: skip
    dataset = json.loads((root / "dataset.json").read_text("utf-8"))
    assert dataset == {
        "channel_names": {"0": "t1", "1": "t2"},
        "labels": {"background": 0, "liver": 1, "Größe, \u4e2d": 4, "tumor": 300},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    image_file, mask_file = (nib.load(root / f) for f in (files[3], files[6]))
    np.testing.assert_array_equal(image_file.affine, mask_file.affine)
    assert sorted(np.unique(np.asarray(mask_file.dataobj))) == [0, 1, 300]


def test_a_case_is_replaced_but_never_another_image(tmp_path, image, mask):
    store = CaseStore(tmp_path / "cases")
    session = Session(image.grid)
    store.add("a", image, mask, CLASSES, session=session)
    mask[0, 0, 0] = 4
    store.add("a", image, mask, CLASSES)
    np.testing.assert_array_equal(store.labels("a"), mask)
    assert store.session("a") is None
    assert not store.session_file("a").exists()
    other = Volume(image.data + 1, image.grid, ("ct",))
    assert store.name_for(other, "A") == "A-2"
    for name in ("a", "A"):
        with pytest.raises(FileError, match="of another image"):
            store.add(name, other, mask, CLASSES)
    store.add("A-2", other, mask, ClassList.of({1: "liver", 4: CLASSES.names[4], 300: "tumor"}))
    assert store.names == ["A-2", "a"]
    store.remove("a")
    assert store.names == ["A-2"]
    assert [p.name for p in (store.folder / "imagesTr").iterdir()] == ["A-2_0000.nii.gz"]
    assert json.loads((store.folder / "dataset.json").read_text("utf-8"))["numTraining"] == 1


def test_what_cannot_be_kept_is_refused_before_anything_is_written(tmp_path, image, mask):
    store = CaseStore(tmp_path / "cases")

    def refused(error, match, name="a", volume=image, labels=mask, classes=CLASSES, store=store):
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}
        with pytest.raises(error, match=match):
            store.add(name, volume, labels, classes)
        assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file()}

    refused(LabelError, "empty", labels=np.zeros_like(mask))
    refused(LabelError, "no class: 300", classes=ClassList.of({1: "liver"}))
    refused(GeometryError, "shape", labels=mask[1:])
    for name in ("../a", "a/b", "", ".a", "nul", "Con.x", "a.", "ä", "x" * 300, "a\n"):
        refused(FileError, "cannot be the name", name=name)
    refused(FileError, "no such folder|does not exist", store=CaseStore(tmp_path / "no" / "cases"))
    (tmp_path / "file").touch()
    refused(FileError, "is a file", store=CaseStore(tmp_path / "file"))
    store.add("a", image, mask, CLASSES)
    refused(LabelError, "'liver' there and 'bone' here", "b",
            labels=(mask == 1).astype(int), classes=ClassList.of({1: "bone"}))  # fmt: skip
    two = Volume(np.concatenate([image.data, image.data]), image.grid)
    refused(GeometryError, "1 contrasts, this one 2", "b", two)
    with pytest.raises(FileError, match="has no case 'b'"):
        store.remove("b")


def test_a_write_that_fails_leaves_no_half_case(tmp_path, image, mask, monkeypatch):
    store = CaseStore(tmp_path / "cases")

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_medgs.segmentation.cases.store.save_session", full)
    with pytest.raises(FileError, match="No space left"):
        store.add("a", image, mask, CLASSES, session=Session(image.grid))
    assert store.names == []
    assert not [p for p in store.folder.rglob("*") if p.is_file()]


def test_a_killed_process_leaves_no_case_and_is_cleaned_up_after(tmp_path, image, mask):
    code = """
import os, sys
import numpy as np
import napari_medgs.segmentation.cases.store as module
from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
os.replace = lambda *args: os._exit(9)
volume = Volume(np.ones((1, 2, 2, 2)), Grid((2, 2, 2)))
labels = np.ones((2, 2, 2), int)
module.CaseStore(sys.argv[1]).add("a", volume, labels, module.ClassList.of({1: "x"}))
"""
    place = tmp_path / "cases"
    done = subprocess.run([sys.executable, "-c", code, str(place)], check=False)
    assert done.returncode == 9
    store = CaseStore(place)
    assert store.names == []
    store.add("a", image, mask, CLASSES)
    assert not [p.name for p in place.iterdir() if p.name.startswith(".")]
    assert store.names == ["a"]


def test_damaged_records_are_refused(tmp_path, image, mask):
    store = CaseStore(tmp_path / "cases")
    store.add("a", image, mask, CLASSES)
    path = store.folder / "cases" / "a.json"
    record = json.loads(path.read_text())
    for change, match in (
        ({"format": "x"}, "not the record"),
        ({"version": 2}, "newer napari-medgs"),
        ({"channels": 7}, "damaged"),
        ({"name": "b"}, "another case"),
    ):
        path.write_text(json.dumps(record | change))
        with pytest.raises(FileError, match=match):
            store.record("a")
    # A record that cannot be read hides no other case, and its name is not given away.
    assert store.name_for(image, "a") == "a-2"


@given(text=st.text(max_size=150))
def test_every_text_becomes_a_safe_name(text):
    name = case_name(text)
    assert name == os.path.basename(name)
    assert case_name(name) == name
    store = CaseStore("somewhere")
    assert store.mask_file(name).name == f"{name}.nii.gz"
