"""The demo makes everything that it lists."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs.cli import app
from napari_medgs.data.phantom import make_phantom
from napari_medgs.data.volume import Volume
from napari_medgs.demo import cases, pictures, run
from napari_medgs.demo.shading import Part, draw_parts
from napari_medgs.errors import Cancelled, FileError
from napari_medgs.fitting import FitParams
from napari_medgs.io.fields import load_field


@pytest.fixture
def case() -> cases.DemoCase:
    head = make_phantom(7.0)
    names = {v: n for v, n in head.names.items() if v}
    return cases.DemoCase(
        "Small head", Volume(head.image[None], head.grid, ("phantom",)), head.labels, names,
        (6, 7), (1,), skin=True,
    )  # fmt: skip


def is_picture(path: Path) -> bool:
    """Tell whether a PNG shows more than one color."""
    import imageio.v3

    return len(np.unique(imageio.v3.imread(path)[..., 0])) > 20


def test_on_a_small_head(case, tmp_path, monkeypatch):
    monkeypatch.setitem(cases.CASES, "phantom", lambda: case)
    words = ["demo", "-o", str(tmp_path / "d"), "--case", "phantom", "--no-gui",
             "--json", str(tmp_path / "n.json"), "--seed", "4", "--threads", "1"]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert numbers == json.loads((tmp_path / "d" / "results.json").read_text())
    assert numbers["fit"]["psnr"] > 20
    assert set(numbers["scores"]["labels"]) == set("1234567")
    assert numbers["scores"]["mean"]["dice"] > 0.8
    field = load_field(tmp_path / "d" / "field.medgs.safetensors")
    assert (field.info.params["seed"], field.info.params["threads"]) == (4, 1)
    names = {"image.nii.gz", "truth.nii.gz", "reconstruction.nii.gz", "mask.nii.gz", "mesh.ply",
             "splats.ply", "slices.png", "mesh.png"}  # fmt: skip
    for name in names:
        assert (tmp_path / "d" / name).stat().st_size > 0
        assert name in result.stdout
    assert is_picture(tmp_path / "d" / "slices.png")
    assert is_picture(tmp_path / "d" / "mesh.png")


def test_cancelled_between_stages(case, tmp_path):
    asked = iter([False] * 4 + [True] * 1000)
    with pytest.raises(Cancelled):
        run.run_demo(
            case, tmp_path / "d", FitParams(iterations=3), gui=False,
            should_stop=lambda: next(asked),
        )  # fmt: skip
    assert not (tmp_path / "d" / "results.json").exists()


def test_files_of_the_user_s_are_not_replaced(case, tmp_path):
    (tmp_path / "mask.nii.gz").write_bytes(b"painted for hours")
    with pytest.raises(FileError, match="another file of this name"):
        run.run_demo(case, tmp_path, gui=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mask.nii.gz"]


def test_choice_of_the_case(monkeypatch, tmp_path):
    monkeypatch.delenv(cases.DATA_VARIABLE, raising=False)
    with pytest.raises(FileError, match=cases.DATA_VARIABLE):
        cases.choose_case("glioma")
    monkeypatch.setattr(cases, "mni152", cases.glioma)  # not to be had either
    assert cases.choose_case().title == "Synthetic head"


def test_glioma_case(data_dir, monkeypatch):
    monkeypatch.setenv(cases.DATA_VARIABLE, str(data_dir))
    case = cases.choose_case()
    assert case.title.startswith("Glioma")
    assert case.volume.shape == (155, 240, 240)
    assert set(np.unique(case.labels)) == {0, *case.names}


def test_screenshot_that_fails_is_a_remark(monkeypatch, tmp_path):
    monkeypatch.setenv("DISPLAY", ":0")
    files = {"image": tmp_path / "no.nii.gz", "field": tmp_path / "no.medgs.safetensors"}

    def broken(command, **_options):
        return subprocess.CompletedProcess(command, 1, "", "some\nOpenGL is broken")

    monkeypatch.setattr(subprocess, "run", broken)
    picture, remark = run.take_screenshot(tmp_path / "x.png", files)
    assert picture is None
    assert "OpenGL is broken" in remark
    monkeypatch.setattr(run.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    assert "xvfb-run" in run.take_screenshot(tmp_path / "x.png", files)[1]


@pytest.mark.gui
@pytest.mark.slow
def test_screenshot(case, tmp_path):
    from napari_medgs.fitting import fit
    from napari_medgs.io import write_image
    from napari_medgs.io.fields import save_field

    image = write_image(tmp_path / "image.nii.gz", case.volume.data, case.volume.grid)
    result = fit(case.volume, FitParams(iterations=5), case.labels)
    field = save_field(tmp_path / "f.medgs.safetensors", result.field)
    picture, remark = run.take_screenshot(tmp_path / "v.png", {"image": image, "field": field})
    assert remark == ""
    assert picture is not None
    assert is_picture(picture)


def test_slices_show_small_labels():
    labels = np.zeros((10, 12, 14), int)
    labels[2:9, 2:9, 2:9] = 1
    labels[7, 3, 11] = 2
    assert pictures._center(labels) == [7, 3, 11]


def test_surfaces_hide_what_is_behind_them():
    import trimesh

    near = trimesh.creation.icosphere(radius=10)
    near.apply_translation([0, 40, 0])
    far = trimesh.creation.icosphere(radius=10)
    # Azimuth 0 looks at the patient's face, from the front (anterior is +y).
    picture, millimeters = draw_parts(
        [Part(far, "#ff0000", transparent=False), Part(near, "#0000ff", transparent=False)],
        0,
        0,
        pixels=60,
    )
    middle = picture[30, 30]
    assert middle[2] > 0.3 > middle[0]
    assert picture[1, 1, 3] == 0
    assert 60 * millimeters == pytest.approx(20 * 1.06)
    glass, _ = draw_parts(
        [Part(far, "#ff0000", transparent=False), Part(near, "#0000ff", transparent=True)],
        0,
        0,
        pixels=60,
    )
    assert glass[30, 30, 0] > glass[30, 30, 2]
