"""info describes every kind of file that a command or the viewer writes, and names all others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs.cli import app
from napari_medgs.data.grid import Grid
from napari_medgs.io import write_image, write_labels
from napari_medgs.io.fields import info_to_json


def run(*words: object, status: int = 0):
    result = CliRunner().invoke(app, [str(w) for w in words], env={"COLUMNS": "300"})
    assert result.exit_code == status, f"{result.output}\n{result.stderr}\n{result.exception}"
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a file of each kind, written as the package writes it."""
    from napari_medgs.classification import bundled_models
    from napari_medgs.segmentation import ClassList, save_classes
    from napari_medgs.segmentation.session.replay import save_session
    from napari_medgs.segmentation.session.session import Session

    place = tmp_path_factory.mktemp("kinds")
    random = np.random.default_rng(0)
    grid = Grid((6, 14, 12), np.diag([2.0, 1, 1, 1]))
    data = random.normal(100, 20, (1, *grid.shape)).astype(np.float32)
    labels = np.zeros(grid.shape, np.uint8)
    labels[1:5, 3:9, 3:9] = 1
    image, mask = place / "image.nii.gz", place / "mask.nii.gz"
    write_image(image, data, grid)
    write_labels(mask, labels, grid, {1: "liver"})
    run("fit", image, "-o", place / "field.medgs.safetensors", "--gaussians", 60, "--iterations",
        3, "--positions", place / "centers.npz", "--positions-every", 1, "--json",
        place / "numbers.json")  # fmt: skip
    run("mesh", mask, "-o", place / "liver.ply")
    run("mesh", mask, "-o", place / "meshes")
    run("measure", mask, "--csv", place / "table.csv")
    (place / "list.txt").write_text("image.nii.gz\n")
    run("fit-many", place / "list.txt", "-o", place / "fields", "--gaussians", 30,
        "--iterations", 1, "--workers", 1)  # fmt: skip
    run("pack", place / "fields", "-o", place / "all.medgsz", "--iterations", 0)
    run("parts", image, "-o", place / "parts.nii.gz", "--count", 3, "--tree", place / "tree.json")
    shutil.copy(bundled_models()["breastmnist"], place / "classifier.safetensors")
    session = Session(grid, names={1: "liver"}, images=[str(image)])
    session.paint(np.s_[1, 2, 3], 1)
    save_session(session, place / "session.json")
    save_classes(place / "classes.json", ClassList.of({1: "liver"}))
    (place / f"session.prior-{'0' * 32}.zz").write_bytes(b"x")
    return place


@pytest.fixture(scope="module")
def coded(made) -> Path:
    from safetensors.numpy import save

    from napari_medgs.compression.learned.files import CODED
    from napari_medgs.io.fields import load_field

    field = load_field(made / "field.medgs.safetensors")
    header = CODED.header(info=info_to_json(field.info), codec="ab", gaussians="60", crc32="0")
    path = made / "field.latents.safetensors"
    CODED.write(path, save({"latents": np.zeros(3, np.uint8)}, metadata=header))
    return path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("image.nii.gz", ("image", "6 x 14 x 12 voxels")),
        ("mask.nii.gz", ("mask", "liver")),
        ("mask.json", ("label names of a mask", "liver")),
        ("field.medgs.safetensors", ("field", "gaussians")),
        ("centers.npz", ("centers of a fit's Gaussians", "step_00003 60")),
        ("numbers.json", ("JSON with numbers or notes", "psnr")),
        ("liver.ply", ("mesh", "triangles")),
        ("meshes", ("mesh", "001_liver")),
        ("table.csv", ("table", "rows")),
        ("fields", ("folder of fields", "image.medgs.safetensors")),
        ("fields/manifest.json", ("manifest of fit-many", "finished")),
        ("all.medgsz", ("cohort of fields", "image")),
        ("tree.json", ("tree of parts", "smallest parts")),
        ("classifier.safetensors", ("classifier", "malignant", "no diagnosis")),
        ("session.json", ("session", "1 liver", "6 x 14 x 12 voxels")),
        ("classes.json", ("list of classes", "1 liver")),
        (f"session.prior-{'0' * 32}.zz", ("class probabilities of a session", "session.json")),
    ],
)
def test_every_kind_is_described(made, name, words):
    said = run("info", made / name).stdout
    assert f"kind  {words[0]}" in " ".join(said.split()).replace("kind ", "kind  ")
    for word in words[1:]:
        assert word in said
    kind = json.loads(run("info", made / name, "--json", "-").stdout)["kind"]
    assert kind == words[0]


def test_coded_fields_and_networks_are_described(coded, tmp_path):
    from napari_medgs.compression.learned.files import FORMAT as CODEC
    from napari_medgs.learning.files import FORMAT as SEGMENTER
    from napari_medgs.tissue.deep.card import TissueCard
    from napari_medgs.tissue.deep.files import FORMAT as TISSUES

    assert "coded by a learned codec" in run("info", coded).stdout
    pytest.importorskip("torch")
    card = TissueCard(classes=4, channel_names=("t1", "t2"), contrasts=2, cases=("a",), steps=9)
    path = TISSUES.write(tmp_path / "TISSUES.SAFETENSORS", card.to_dict(), {})
    said = run("info", path).stdout
    assert "tissue network" in said
    assert "t1, t2" in said
    for form in (CODEC, SEGMENTER):  # damaged ones, said to be what they are
        said = run("info", form.write(tmp_path / "a.safetensors", {}, {}), status=1).stderr
        assert "damaged" in said
        assert "safetensors file of another program" not in said


def test_splats_and_folders_of_cases(made, tmp_path):
    from napari_medgs.io.fields import load_field
    from napari_medgs.io.splats import save_splat_ply
    from tests.learning.cases import write_nnunet

    field = load_field(made / "field.medgs.safetensors")
    count = save_splat_ply(tmp_path / "s.ply", field)
    assert f"{count}" in run("info", tmp_path / "s.ply").stdout
    said = run("info", write_nnunet(tmp_path / "cases", 2)).stdout
    assert "folder of cases" in said
    assert "2 ball, 5 box" in said


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.safetensors", None, "is a safetensors file of another program"),
        ("a.json", b'{"format": "napari-medgs plan", "version": 1}', "is a plan, which this"),
        ("b.json", b'{"format": "napari-medgs session", "version": 1}', "session file is damaged"),
        ("c.json", b'{"format": "napari-medgs session", "version": 7}', "Use a newer"),
        ("d.json", b"{", "no JSON file, or damaged"),
        ("e.csv", b"\xff\xfe\x00", "no table in UTF-8"),
        ("f.pdf", b"%PDF-1.7", "a PDF document, which cannot be read"),
        ("g.txt", b"words", "not an image that can be read"),
        ("h.json", b"", "the file is empty"),
    ],
)
def test_what_is_not_known_is_said_to_be(tmp_path, name, content, says):
    from safetensors.numpy import save

    path = tmp_path / name
    path.write_bytes(save({"w": np.zeros(2)}) if content is None else content)
    said = run("info", path, status=1).stderr
    assert len(said.splitlines()) == 1
    assert str(path) in said
    assert says in said


def test_a_field_of_another_name_is_told_to_be_renamed(made, tmp_path):
    shutil.copy(made / "field.medgs.safetensors", tmp_path / "model.safetensors")
    said = run("info", tmp_path / "model.safetensors", status=1).stderr
    assert "is a field; rename it, so that it ends in .medgs.safetensors" in said
