"""Training cases in all layouts, and what is said of those that do not fit together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs import Grid, Volume
from napari_medgs.cli import app
from napari_medgs.errors import (
    FileError,
    GeometryError,
    ImageError,
    LabelError,
    MedGSError,
    ParameterError,
)
from napari_medgs.io import read_volume, write_image, write_labels
from napari_medgs.learning.data.checks import look_at, read_case
from napari_medgs.learning.data.patches import has_lateral_classes
from napari_medgs.learning.data.sources import find_training_cases
from napari_medgs.learning.training.train import look_at_cases
from napari_medgs.segmentation import CaseStore, ClassList
from tests.learning.cases import NAMES, phantom, write_nnunet


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_nnunet(tmp_path / "cases", 3, 2)


def pair(folder: Path, image: str, mask: str, number: int = 0, **options) -> None:
    data, labels, grid = phantom(number, **options)
    for path in (folder / image, folder / mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_image(folder / image, data, grid)
    write_labels(folder / mask, labels, grid)


def problem(source: Path, **options) -> str:
    """The one line that is said before training."""
    with pytest.raises(MedGSError) as caught:
        look_at_cases(find_training_cases(source), **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_nnunet(dataset: Path):
    source = find_training_cases(dataset)
    assert [case.name for case in source.cases] == ["case0", "case1", "case2"]
    assert [Path(p).name for p in source.cases[1].images] == [
        "case1_0000.nii.gz",
        "case1_0001.nii.gz",
    ]
    assert source.class_names == NAMES
    assert source.channel_names == ("T1", "T2")
    volume, labels = read_case(source.cases[0])
    assert volume.channels == 2
    assert labels.shape == volume.shape
    checked = look_at_cases(source)
    assert checked.classes == NAMES
    assert checked.channels == ("T1", "T2")
    first = checked.facts[0]
    expected = phantom(0)[1]
    assert first.voxels == {v: int((expected == v).sum()) for v in (2, 5)}
    for value in (2, 5):
        where = np.argwhere(expected == value)
        assert first.extents[value] == pytest.approx(tuple(where.max(0) - where.min(0) + 1.0))


def test_decathlon(tmp_path: Path):
    for k in range(2):
        pair(tmp_path, f"imagesTr/la_{k:03d}.nii.gz", f"labelsTr/la_{k:03d}.nii.gz", k)
    record = {"modality": {"0": "MRI"}, "labels": {"0": "background", "2": "ball", "5": "box"}}
    (tmp_path / "dataset.json").write_text(json.dumps(record))
    source = find_training_cases(tmp_path)
    assert [case.name for case in source.cases] == ["la_000", "la_001"]
    assert source.class_names == NAMES
    assert source.channel_names == ("MRI",)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a{}.nii.gz", "labels/a{}.nii.gz"),
        ("images/a{}.nii.gz", "masks/a{}_mask.nii.gz"),
        ("a{}.nii.gz", "a{}_seg.nii.gz"),
        ("p{}/ct.nii.gz", "p{}/ct-label.nii.gz"),
    ],
)
def test_folders(tmp_path: Path, image: str, mask: str):
    for k in range(2):
        pair(tmp_path, image.format(k), mask.format(k), k)
    cases = find_training_cases(tmp_path).cases
    assert [(case.images, case.mask) for case in cases] == [
        ((str(tmp_path / image.format(k)),), str(tmp_path / mask.format(k))) for k in range(2)
    ]


def test_patterns(tmp_path: Path):
    for k in range(2):
        pair(tmp_path, f"s{k}/anat/T1.nii.gz", f"s{k}/truth/T1_ball.nii.gz", k)
        pair(tmp_path, f"s{k}/anat/T2.nii.gz", f"s{k}/truth/T2_ball.nii.gz", k)
    source = find_training_cases(
        tmp_path, pattern="**/anat/T2.nii.gz", mask="../truth/{name}_ball.nii.gz"
    )
    assert [case.name for case in source.cases] == ["s0/anat/T2", "s1/anat/T2"]
    with pytest.raises(FileError, match="none of the 4 images has a mask"):
        find_training_cases(tmp_path, pattern="**/anat/T?.nii.gz", mask="{name}_nothing.nii.gz")
    with pytest.raises(ParameterError, match="not a pattern"):
        find_training_cases(tmp_path, mask="mask.nii.gz")


def test_table(tmp_path: Path):
    for k in range(2):
        pair(tmp_path, f"a{k}_t1.nii.gz", f"m{k}.nii.gz", k)
        pair(tmp_path, f"a{k}_t2.nii.gz", f"unused{k}.nii.gz", k)
    table = tmp_path / "cases.csv"
    rows = [f"a{k}_t1.nii.gz;a{k}_t2.nii.gz,m{k}.nii.gz,case {k}" for k in range(2)]
    table.write_text("\n".join(["image,mask,name", *rows]))
    checked = look_at_cases(find_training_cases(table))
    assert [one.case.name for one in checked.facts] == ["case 0", "case 1"]
    assert checked.channels == ("t1", "t2")
    assert checked.classes == {2: "class 2", 5: "class 5"}
    # The second case the other way round.
    swapped = [rows[0], "a1_t2.nii.gz;a1_t1.nii.gz,m1.nii.gz,case 1"]
    table.write_text("\n".join(["image,mask,name", *swapped]))
    assert "another order (t2, t1) than case 0 (t1, t2)" in problem(table)
    table.write_text("image\na0_t1.nii.gz\na1_t1.nii.gz\n")
    assert "no mask" in problem(table)


def test_bids(tmp_path: Path):
    for sub in ("01", "02"):
        folder = f"sub-{sub}/anat"
        pair(tmp_path, f"{folder}/sub-{sub}_T1w.nii.gz", f"x/{sub}.nii.gz", int(sub))
        pair(
            tmp_path,
            f"{folder}/sub-{sub}_T2w.nii.gz",
            f"derivatives/labels/{folder}/sub-{sub}_T2w_label-SC_mask.nii.gz",
            int(sub),
        )
    (tmp_path / "dataset_description.json").write_text("{}")
    cases = find_training_cases(tmp_path).cases
    assert [case.name for case in cases] == ["sub-01", "sub-02"]
    assert [Path(case.images[0]).name for case in cases] == [
        "sub-01_T2w.nii.gz",
        "sub-02_T2w.nii.gz",
    ]
    # A mask that names no image belongs to all contrasts of the subject.
    for sub in ("01", "02"):
        old = tmp_path / f"derivatives/labels/sub-{sub}/anat"
        name = f"sub-{sub}_space-orig_dseg.nii.gz"
        (old / f"sub-{sub}_T2w_label-SC_mask.nii.gz").rename(old / name)
    cases = find_training_cases(tmp_path).cases
    assert [Path(p).name for p in cases[0].images] == ["sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz"]
    shutil.copy(old / name, old / "sub-02_desc-second_dseg.nii.gz")
    assert "sub-02 has several masks" in problem(tmp_path)


def test_accepted_cases(tmp_path: Path):
    store = CaseStore(tmp_path / "accepted")
    for k in range(2):
        image, labels, grid = phantom(k)
        store.add(f"scan_{k}", Volume(image[None], grid), labels, ClassList.of(NAMES))
    checked = look_at_cases(find_training_cases(store.folder))
    assert [one.case.name for one in checked.facts] == ["scan_0", "scan_1"]
    assert checked.classes == NAMES


def test_nothing_there(tmp_path: Path):
    assert "no such file or folder" in problem(tmp_path / "nowhere")
    assert "no images with masks" in problem(tmp_path)
    (tmp_path / "imagesTr").mkdir()
    assert "no image of imagesTr has a mask" in problem(tmp_path)


def test_images_without_a_mask_are_named(dataset: Path, tmp_path: Path):
    """A mask of another name is the usual reason."""
    for k, folder in enumerate((dataset, tmp_path / "two")):
        if k:
            for name in ("a", "b", "c"):
                pair(folder, f"images/{name}.nii.gz", f"labels/{name}.nii.gz")
        lost = sorted((folder / ("labels" if k else "labelsTr")).glob("*.nii.gz"))[1]
        assert find_training_cases(folder).without_mask == ()
        lost.rename(lost.with_name("other.nii.gz"))
        source = find_training_cases(folder)
        assert source.without_mask == (lost.name.removesuffix(".nii.gz"),)
        assert len(source.cases) == 2
    line = ["train-segmenter", str(folder), "-o", str(tmp_path / "m.safetensors"), "--folds", "0"]
    answer = CliRunner().invoke(app, [*line, "--steps", "1", "--width", "4", "--threads", "1"])
    assert answer.exit_code == 0, answer.output
    assert "without a mask, and so not used: b." in answer.stderr


def test_folders_of_pictures(tmp_path: Path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    assert "convert others" in problem(tmp_path)


def test_files_that_were_not_fetched_are_listed(tmp_path: Path):
    """DataLad and git-annex leave links to nowhere in their place."""
    dataset = write_nnunet(tmp_path, 4)
    for file in ("imagesTr/case1_0000.nii.gz", "labelsTr/case3.nii.gz"):
        (dataset / file).unlink()
        (dataset / file).symlink_to("../.git/annex/objects/x")
    checked = look_at_cases(find_training_cases(dataset))
    assert [one.case.name for one in checked.facts] == ["case0", "case2"]
    assert list(checked.left_out) == ["case1", "case3"]
    assert all("datalad get" in why for why in checked.left_out.values())


def test_mask_of_another_grid(dataset: Path):
    _, labels, grid = phantom(1, size=20)
    write_labels(dataset / "labelsTr" / "case1.nii.gz", labels, grid)
    text = problem(dataset)
    assert "case1.nii.gz" in text
    assert "the mask lies on another grid than its image" in text
    assert "resample=True (--resample) does that" in text


def test_images_and_masks_of_other_grids_are_resampled_on_request(dataset: Path):
    files = [dataset / "imagesTr" / f"case1_{c:04d}.nii.gz" for c in range(2)]
    image, labels, grid = phantom(1)
    fine = grid.with_spacing((1.0, 0.5, 0.5))
    write_image(files[1], image.repeat(2, 1).repeat(2, 2), fine)
    write_labels(dataset / "labelsTr" / "case1.nii.gz", labels.repeat(2, 1).repeat(2, 2), fine)
    assert "resample=True (--resample) does that" in problem(dataset)
    source = find_training_cases(dataset, resample=True)
    volume, found = read_case(source.cases[1])
    np.testing.assert_array_equal(volume.channel(0), read_volume(files[0]).channel(0))
    np.testing.assert_allclose(volume.channel(1), image, rtol=1e-5)
    np.testing.assert_array_equal(found, labels)
    assert len(look_at_cases(source).facts) == 3
    far = grid.affine.copy()
    far[:3, 3] += 900
    write_labels(dataset / "labelsTr" / "case1.nii.gz", labels, Grid(grid.shape, far))
    with pytest.raises(GeometryError, match="do not overlap anywhere"):
        read_case(source.cases[1])
    with pytest.raises(GeometryError):
        look_at(find_training_cases(dataset).cases[1])


def test_one_case(tmp_path: Path):
    assert "one case only (case0)" in problem(write_nnunet(tmp_path, 1))


def test_undeclared_class(dataset: Path):
    _, labels, grid = phantom(1)
    labels[0, 0, 0] = 7
    write_labels(dataset / "labelsTr" / "case1.nii.gz", labels, grid)
    text = problem(dataset)
    assert "the value 7, which is no class of dataset.json (2, 5)" in text
    assert look_at_cases(find_training_cases(dataset), values=(5,)).classes == {5: "box"}
    # Where nothing declares the classes, a value of one case alone is as suspect.
    (dataset / "dataset.json").unlink()
    assert "the value 7 is in this mask only" in problem(dataset)


def test_empty_class(dataset: Path):
    record = json.loads((dataset / "dataset.json").read_text())
    record["labels"]["tail"] = 9
    (dataset / "dataset.json").write_text(json.dumps(record))
    assert "the class 'tail' (9) is empty" in problem(dataset)
    record["labels"] = {"background": 0, "whole": [2, 5]}
    (dataset / "dataset.json").write_text(json.dumps(record))
    with pytest.raises(LabelError, match="several values"):
        find_training_cases(dataset)


def test_all_masks_empty(tmp_path: Path):
    for k in range(2):
        image, labels, grid = phantom(k)
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "labels").mkdir(exist_ok=True)
        write_image(tmp_path / "images" / f"{k}.nii.gz", image, grid)
        write_labels(tmp_path / "labels" / f"{k}.nii.gz", 0 * labels, grid)
    assert "all masks are empty" in problem(tmp_path)


def test_names_that_differ(tmp_path: Path):
    for k, name in enumerate(("ball", "sphere")):
        image, labels, grid = phantom(k)
        write_image(tmp_path / f"c{k}.nii.gz", image, grid)
        write_labels(tmp_path / f"c{k}_seg.nii.gz", labels, grid, {2: name, 5: "box"})
    assert "the value 2 is 'ball' in c0 and 'sphere' in c1" in problem(tmp_path)


def test_names_within_masks(tmp_path: Path):
    """3D Slicer numbers segments as they were made, which may differ from case to case."""
    names = [{2: "ball", 5: "box"}, {2: "Segment_2", 5: "Box"}, {2: "box", 5: "ball"}]
    for k in range(3):
        image, labels, grid = phantom(k)
        write_image(tmp_path / f"c{k}.nii.gz", image, grid)
        write_labels(tmp_path / f"c{k}.seg.nrrd", labels, grid, names[k])
    assert "the value 2 is 'ball' in c0 and 'box' in c2" in problem(tmp_path)
    (tmp_path / "c2.nii.gz").unlink()
    (tmp_path / "c2.seg.nrrd").unlink()
    assert look_at_cases(find_training_cases(tmp_path)).classes == NAMES


def test_other_contrasts(dataset: Path):
    (dataset / "imagesTr" / "case2_0001.nii.gz").unlink()
    with pytest.raises(ImageError, match=r"case2 has 1 contrast\(s\), case0 2"):
        look_at_cases(find_training_cases(dataset))


def test_slices_among_volumes(tmp_path: Path):
    write_nnunet(tmp_path, 2)
    image, labels, _ = phantom(7)
    flat = Volume.from_array(image[8])
    write_image(tmp_path / "imagesTr" / "flat_0000.nii.gz", flat.data[0], flat.grid)
    write_labels(tmp_path / "labelsTr" / "flat.nii.gz", labels[8:9], flat.grid)
    assert "flat is a single slice and case0 a volume of 16 slices" in problem(tmp_path)


def test_unreadable_case_is_left_out(dataset: Path):
    damaged = dataset / "imagesTr" / "case1_0000.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:200])
    checked = look_at_cases(find_training_cases(dataset))
    assert [one.case.name for one in checked.facts] == ["case0", "case2"]
    assert list(checked.left_out) == ["case1"]
    assert "case1_0000.nii.gz" in checked.left_out["case1"]


def test_damaged_description(dataset: Path):
    (dataset / "dataset.json").write_text("{")
    assert "dataset.json: damaged" in problem(dataset)


@pytest.mark.parametrize(
    ("names", "lateral"),
    [
        (["left kidney"], True),
        (["kidney_R"], True),
        (["Hippocampus-lh"], True),
        (["cleft", "anterior"], False),
        (["liver", "Aorta"], False),
    ],
)
def test_lateral_names(names: list[str], lateral: bool):
    assert has_lateral_classes(names) is lateral
