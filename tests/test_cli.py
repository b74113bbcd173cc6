"""The commands do what they say, and write what they promise."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs import __version__
from napari_medgs._util.progress import ProgressEvent
from napari_medgs.cli import app
from napari_medgs.cli.app import COMMANDS
from napari_medgs.cli.report import Reporter, _Lines
from napari_medgs.cli.words import spread_lists
from napari_medgs.errors import FileError
from napari_medgs.fitting import FitParams
from napari_medgs.fitting import fit as fit_field
from napari_medgs.io import (
    read_label_names,
    read_labels,
    read_volume,
    write_frames,
    write_image,
    write_labels,
)
from napari_medgs.io.fields import load_field, save_field
from napari_medgs.io.json_files import plain_json

NAMES = {1: "left one", 2: "right one"}


def run(*words: object, status: int = 0):
    """Run a command in this process; return its result."""
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == status, f"{result.output}\n{result.stderr}\n{result.exception}"
    return result


def numbers(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture
def place(tmp_path, tiny_volume, tiny_labels):
    """A folder with image.nii.gz and truth.nii.gz."""
    write_image(tmp_path / "image.nii.gz", tiny_volume.data, tiny_volume.grid)
    write_labels(tmp_path / "truth.nii.gz", tiny_labels, tiny_volume.grid, NAMES)
    return SimpleNamespace(
        folder=tmp_path,
        image=tmp_path / "image.nii.gz",
        truth=tmp_path / "truth.nii.gz",
        out=tmp_path / "out.medgs.safetensors",
        json=tmp_path / "out.json",
    )


@pytest.fixture
def field_file(place, tiny_volume, tiny_labels):
    """A field of image and mask, made without the command line."""
    params = FitParams(gaussians=150, iterations=30)
    result = fit_field(tiny_volume, params, tiny_labels, class_names=NAMES)
    return save_field(place.folder / "field.medgs.safetensors", result.field)


def test_a_folder_of_images_and_one_of_prompts(place, tiny_labels):
    images, prompts = place.folder / "images", place.folder / "prompts"
    for folder in (images, prompts):
        folder.mkdir()
    for name in ("a", "b"):
        (images / f"{name}.nii.gz").write_bytes(place.image.read_bytes())
    strokes = np.where(np.arange(len(tiny_labels))[:, None, None] == 4, tiny_labels + 1, 0)
    for name in ("a", "c"):
        write_labels(prompts / f"{name}.nii.gz", strokes, read_volume(place.image).grid)
    words = ["segment", images, "--prompts", prompts, "--background-label", 1]
    words += ["-o", place.folder / "masks", "--json", place.json]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 1
    found = numbers(place.json)
    assert (found["failed"], found["without_prompts"]) == (1, ["b.nii.gz"])
    text = " ".join(result.output.split())
    assert "masks 1 without prompts b.nii.gz" in text
    for value, volume in found["cases"]["a.nii.gz"]["volume_ml"].items():
        assert f"{value}: {volume:.3f} ml" in text


def test_prompts_are_paired_with_images_of_any_format(place, tiny_labels):
    images, prompts = place.folder / "images", place.folder / "prompts"
    for folder in (images, prompts):
        folder.mkdir()
    (images / "a b.nii.gz").write_bytes(place.image.read_bytes())
    volume = read_volume(place.image)
    strokes = np.where(np.arange(len(tiny_labels))[:, None, None] == 4, tiny_labels + 1, 0)
    write_labels(prompts / "a b.mha", strokes, volume.grid)
    words = ["segment", images, "--prompts", prompts, "--background-label", 1]
    words += ["-o", place.folder / "masks", "--json", place.json]
    run(*words)
    assert [p.name for p in (place.folder / "masks").iterdir()] == ["a b.nii.gz"]
    found = numbers(place.json)
    assert (found["failed"], found["without_prompts"]) == (0, [])
    write_image(images / "a b.nii", volume.data, volume.grid)
    assert "has several images" in run(*words, status=1).stderr
    (images / "a b.nii").unlink()
    write_labels(prompts / "a b.nii", strokes, volume.grid)
    assert "is for the same image" in run(*words, status=1).stderr


def test_every_command_explains_itself():
    text = run("--help").output
    for name in COMMANDS:
        assert name in text
        assert "Usage: " in run(name, "--help").output
    assert run("--version").output.strip() == f"napari-medgs {__version__}"


@pytest.mark.parametrize("words", [["fly"], ["fit"], ["info"], ["--nonsense"]])
def test_wrong_usage_is_status_2(words):
    assert "Usage" in run(*words, status=2).stderr


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (["--labels", "1", "2", "-o", "x"], ["--labels", "1", "--labels", "2", "-o", "x"]),
        (["--labels", "1,2", "seg.nii"], ["--labels", "1", "--labels", "2", "seg.nii"]),
        (["a", "--labels=3,4"], ["a", "--labels", "3", "--labels", "4"]),
        (["--labels", "1", "--labels", "2"], ["--labels", "1", "--labels", "2"]),
        (["--labels", "seg.nii"], ["--labels", "seg.nii"]),
        (["--labels", "-1"], ["--labels", "-1"]),
        (["--labels"], ["--labels"]),
        (["--spacing", "1", "2", "3"], ["--spacing", "1", "2", "3"]),
    ],
)
def test_lists_are_spread(written, meant):
    assert spread_lists(written) == meant


class TestFit:
    def test_numbers_of_an_image_with_mask(self, place):
        result = run(
            "fit", place.image, "--mask", place.truth, "-o", place.out, "--json", place.json,
            "--gaussians", 150, "--iterations", 40, "--seed", 3, "--threads", 1,
        )  # fmt: skip
        found = numbers(place.json)
        wanted = {"psnr", "ssim", "seconds", "n_gaussians", "bytes", "backend", "iterations"}
        assert wanted <= set(found)
        assert found["n_gaussians"] == pytest.approx(150, abs=3)
        assert found["iterations"] == 40
        assert found["seed"] == 3
        assert found["psnr"] > 20
        assert found["dice"]["1"] > 0.8
        assert "percentile" in found["data_range"]
        field = load_field(place.out)
        assert len(field) == found["n_gaussians"]
        assert field.info.class_names == ("background", "left one", "right one")
        assert field.info.params["threads"] == 1
        assert "Dice of left one" in result.stdout
        assert result.stderr == ""

    def test_heldout_numbers(self, place):
        run("fit", place.image, "-o", place.out, "--json", place.json, "--holdout", "every:2",
            "--gaussians", 100, "--iterations", 20)  # fmt: skip
        found = numbers(place.json)
        for name in ("psnr_heldout", "ssim_heldout", "psnr_heldout_linear", "psnr_heldout_cubic"):
            assert np.isfinite(found[name])

    @pytest.mark.parametrize("text", ["2", "every:1", "every:x", "each:2"])
    def test_holdout_is_every_k(self, place, text):
        run("fit", place.image, "-o", place.out, "--holdout", text, status=2)
        assert not place.out.exists()

    def test_options_reach_the_parameters(self, place):
        run(
            "fit", place.image, "-o", place.out, "--gaussians", 60, "--iterations", 7,
            "--fold", 1, "--blend", "sum", "--slice-axis", 2, "--lambda-img", 0.5,
            "--loss", "l1", "--percentiles", 1, 99, "--backend", "cpu",
        )  # fmt: skip
        params = load_field(place.out).info.params
        expected = {
            "gaussians": 60, "iterations": 7, "fold": 1, "blend": "sum", "slice_axis": 2,
            "lambda_img": 0.5, "loss": "l1", "percentiles": [1, 99], "backend": "cpu",
        }  # fmt: skip
        assert {name: params[name] for name in expected} == expected

    def test_defaults_are_those_of_the_api(self, place):
        run("fit", place.image, "-o", place.out, "--iterations", 3)
        params = load_field(place.out).info.params
        assert params == plain_json(FitParams(iterations=3).to_dict())

    def test_quality_and_time_stop_it(self, place):
        run("fit", place.image, "-o", place.out, "--quality", 15, "--json", place.json)
        assert numbers(place.json)["stopped_by"] == "quality"

    def test_a_quality_that_is_missed_is_said(self, place):
        words = ("fit", place.image, "-o", place.out, "--quality", 90, "--gaussians", 30)
        result = run(*words, "--iterations", 3)
        assert "not 90 dB: 30 Gaussians and 3 steps are too few" in result.stderr
        run("fit", place.image, "-o", place.out, "--time-limit", 0.01, "--json", place.json)
        assert numbers(place.json)["stopped_by"] == "time"

    def test_contrasts(self, place, tiny_volume):
        other = place.folder / "other.nii.gz"
        write_image(other, 500 - tiny_volume.data, tiny_volume.grid)
        run("fit", place.image, other, "-o", place.out, "--iterations", 3)
        assert load_field(place.out).info.image_channels == ("image", "other")

    def test_mask_on_frozen_geometry(self, place):
        image = place.folder / "image.medgs.safetensors"
        run("fit", place.image, "-o", image, "--gaussians", 150, "--iterations", 30)
        run("fit", place.image, "--mask", place.truth, "--from", image, "--freeze-geometry",
            "-o", place.out, "--iterations", 30, "--json", place.json)  # fmt: skip
        assert np.array_equal(load_field(image).centers, load_field(place.out).centers)
        assert numbers(place.json)["dice_mean"] > 0.6
        run("fit", place.image, "-o", place.out, "--freeze-geometry", status=2)

    def test_checkpoint_is_a_field_to_go_on_from(self, place, monkeypatch):
        from napari_medgs.fitting import api as engine

        def broken(*_args, **_kwargs):
            raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(engine, "measure_fit", broken)
            result = run("fit", place.image, "-o", place.out, "--checkpoint-every", 5,
                         "--gaussians", 80, "--iterations", 12, status=1)  # fmt: skip
        assert "out of memory" in result.stderr
        checkpoint = load_field(place.out)
        assert checkpoint.info.metrics["unfinished"]
        assert checkpoint.info.metrics["iterations"] == 10
        run("fit", place.image, "--from", place.out, "-o", place.out, "--iterations", 5)
        assert "unfinished" not in load_field(place.out).info.metrics

    def test_frames_and_medmnist(self, place, tiny_volume, rng):
        frames = place.folder / "frames"
        write_frames(frames, np.clip(tiny_volume.data, 0, 255).astype(np.uint8), tiny_volume.grid)
        run("fit", frames, "--spacing", 3, 1, 1, "-o", place.out, "--iterations", 2)
        assert load_field(place.out).info.grid.spacing == pytest.approx((3, 1, 1))
        images = rng.integers(0, 255, (3, 28, 28)).astype(np.uint8)
        labels = np.zeros((3, 1), np.uint8)
        splits = {f"{s}_{w}": a for s in ("train", "val", "test")
                  for w, a in (("images", images), ("labels", labels))}  # fmt: skip
        np.savez(place.folder / "set.npz", **splits)
        run("fit", f"{place.folder / 'set.npz'}:val:1", "-o", place.out, "--iterations", 2)
        assert load_field(place.out).info.grid.shape == (1, 28, 28)

    def test_labels_of_any_size_come_back(self, place, tiny_labels):
        large = np.where(tiny_labels == 1, 2**40, tiny_labels.astype(np.int64))
        write_labels(place.truth, large, read_volume(place.image).grid)
        run("fit", place.image, "--mask", place.truth, "-o", place.out, "--gaussians", 150,
            "--iterations", 5)  # fmt: skip
        run("render", place.out, "--head", "seg", "-o", place.folder / "seg.nii.gz")
        found = set(np.unique(read_labels(place.folder / "seg.nii.gz")[0]))
        assert 2**40 in found
        assert found <= set(np.unique(large))

    def test_quiet_says_nothing(self, place):
        result = run("fit", place.image, "-o", place.out, "--iterations", 2, "--quiet")
        assert result.output == ""


class TestRender:
    def test_mask_has_the_geometry_of_the_source(self, place, field_file, tiny_volume):
        source = read_volume(place.image)
        save_field(field_file, load_field(field_file).with_info(grid=source.grid))
        out = place.folder / "seg.nii.gz"
        run("render", field_file, "-o", out, "--head", "seg", "--json", place.folder / "seg.json")
        import nibabel

        ours, theirs = nibabel.load(out), nibabel.load(place.image)
        assert np.array_equal(ours.affine, theirs.affine)
        assert ours.shape == theirs.shape
        assert ours.get_data_dtype() == np.uint8
        # The numbers went where the names are: both must be there.
        assert read_label_names(out)[2] == "right one"
        assert numbers(place.folder / "seg.json")["head"] == "seg"

    def test_image_is_in_its_own_units(self, place, field_file, tiny_volume):
        run("render", field_file, "-o", place.folder / "r.nii.gz")
        image = read_volume(place.folder / "r.nii.gz").data[0]
        assert np.abs(image - tiny_volume.data[0]).mean() < 12

    def test_probabilities_sum_to_one(self, place, field_file):
        run("render", field_file, "-o", place.folder / "p.nii.gz", "--head", "probability")
        data = read_volume(place.folder / "p.nii.gz").data
        assert data.shape[0] == 3
        np.testing.assert_allclose(data.sum(axis=0), 1, atol=1e-5)

    def test_interp_keeps_the_slices_that_were_there(self, place, field_file):
        run("render", field_file, "-o", place.folder / "a.nii.gz")
        run("render", field_file, "-o", place.folder / "b.nii.gz", "--interp", 3)
        one, other = (read_volume(place.folder / name) for name in ("a.nii.gz", "b.nii.gz"))
        assert other.shape == (34, 20, 24)
        assert other.spacing == pytest.approx((1, 1, 1))
        np.testing.assert_allclose(other.data[0, ::3], one.data[0], atol=0.05)
        assert np.allclose(one.grid.to_world([0, 0, 0]), other.grid.to_world([0, 0, 0]))

    def test_spacing_and_like(self, place, field_file):
        run("render", field_file, "-o", place.folder / "s.nii.gz", "--spacing", 3, 2, 2)
        assert read_volume(place.folder / "s.nii.gz").shape == (12, 10, 12)
        run("render", field_file, "-o", place.folder / "l.nii.gz",
            "--like", place.folder / "s.nii.gz")  # fmt: skip
        assert read_volume(place.folder / "l.nii.gz").grid.matches(
            read_volume(place.folder / "s.nii.gz").grid
        )
        run("render", field_file, "-o", place.folder / "x.nii.gz", "--interp", 2,
            "--spacing", 1, 1, 1, status=2)  # fmt: skip

    def test_frames(self, place, field_file):
        run("render", field_file, "-o", place.folder / "frames", "--head", "seg")
        files = sorted(p.name for p in (place.folder / "frames").iterdir())
        assert files[0] == "0000.png"
        assert len(files) == 12

    def test_input_is_not_overwritten(self, place, field_file):
        before = place.image.read_bytes()
        result = run("render", field_file, "-o", place.image, "--like", place.image, status=1)
        assert "choose another" in result.stderr
        assert place.image.read_bytes() == before

    def test_too_large_is_refused_beforehand(self, place, field_file):
        out = place.folder / "huge.nii.gz"
        result = run("render", field_file, "-o", out, "--spacing", 1e-4, 1e-4, 1e-4, status=1)
        assert "GiB" in result.stderr
        assert "--spacing" in result.stderr
        assert not out.exists()


class TestEvaluate:
    def test_perfect(self, place):
        run("evaluate", place.truth, place.truth, "--json", place.json)
        found = numbers(place.json)
        assert found["mean"]["dice"] == 1
        assert found["labels"]["1"]["hd95"] == 0
        assert found["names"]["2"] == "right one"
        assert found["labels"]["1"]["volume_ml"] == pytest.approx(
            found["labels"]["1"]["volume_ml_truth"]
        )

    def test_shifted_and_only_some_labels(self, place, tiny_labels, tiny_grid):
        shifted = place.folder / "shifted.nii.gz"
        write_labels(shifted, np.roll(tiny_labels, 2, axis=2), tiny_grid)
        result = run("evaluate", shifted, place.truth, "--labels", 2, "--json", place.json)
        found = numbers(place.json)
        assert set(found["labels"]) == {"2"}
        assert 0.3 < found["labels"]["2"]["dice"] < 0.95
        assert found["labels"]["2"]["hd95"] == pytest.approx(2, abs=0.5)
        assert "right one" in result.stdout

    def test_a_field(self, place, field_file):
        run("evaluate", field_file, place.truth, "--json", place.json)
        assert numbers(place.json)["mean"]["dice"] > 0.8

    def test_names_are_not_overwritten(self, place):
        sidecar = place.folder / "truth.json"
        before = sidecar.read_text()
        run("evaluate", place.truth, place.truth, "--json", sidecar, status=1)
        assert sidecar.read_text() == before


class TestMesh:
    def test_of_a_field_and_a_mask(self, place, field_file):
        run("mesh", field_file, "-o", place.folder / "m.ply", "--labels", 1, 2,
            "--json", place.json)  # fmt: skip
        found = numbers(place.json)["labels"]
        assert set(found) == {"1", "2"}
        assert all(part["closed"] for part in found.values())
        run("mesh", place.truth, "-o", place.folder / "parts", "--labels", 2)
        assert len(list((place.folder / "parts").iterdir())) == 1
        found = numbers(place.json)["labels"]["2"]
        labels, grid = read_labels(place.truth)
        true = np.count_nonzero(labels == 2) * grid.voxel_volume / 1000
        assert found["volume_ml"] == pytest.approx(true, rel=0.1)

    def test_fewer_triangles_and_other_spacing(self, place):
        counts = []
        for options in ([], ["--decimate", 0.3], ["--spacing", 0.7]):
            run("mesh", place.truth, "-o", place.folder / "m.stl", "--json", place.json, *options)
            counts.append(numbers(place.json)["labels"]["1"]["triangles"])
        assert counts[1] < 0.5 * counts[0] < 0.5 * counts[2]

    def test_of_an_image_at_a_level(self, place):
        run("mesh", place.image, "-o", place.folder / "m.obj", "--level", 150)
        assert (place.folder / "m.obj").stat().st_size > 0


class TestInfo:
    def test_every_kind(self, place, field_file):
        mesh = place.folder / "m.ply"
        run("mesh", place.truth, "-o", mesh)
        kinds = []
        for file in (place.image, place.truth, field_file, mesh):
            result = run("info", file, "--json", place.json)
            found = numbers(place.json)
            kinds.append(found["kind"])
            assert found["kind"] in result.stdout
        assert kinds == ["image", "mask", "field", "mesh"]

    def test_mask(self, place):
        result = run("info", place.truth, "--json", place.json)
        found = numbers(place.json)
        labels, grid = read_labels(place.truth)
        count = int(np.count_nonzero(labels == 2))
        assert found["labels"]["2"] == {
            "name": "right one",
            "voxels": count,
            "ml": pytest.approx(count * grid.voxel_volume / 1000),
        }
        assert found["spacing_mm"] == pytest.approx([3, 1, 1])
        assert found["file_orientation"] == "LPS"
        assert "right one" in result.stdout

    def test_not_finite_values_are_counted(self, place, tiny_volume):
        data = tiny_volume.data.copy()
        data[0, 3, 4, 5] = np.nan
        write_image(place.folder / "nan.nii.gz", data, tiny_volume.grid)
        run("info", place.folder / "nan.nii.gz", "--json", place.json)
        assert next(iter(numbers(place.json)["channels"].values()))["not_finite"] == 1


class TestReport:
    def test_json_is_strict(self):
        value = {"a": np.float32(1.5), "b": float("inf"), 3: (np.arange(2), None), "p": Path("x")}
        assert plain_json(value) == {"a": 1.5, "b": None, "3": [[0, 1], None], "p": "x"}

    def test_lines_say_how_many_of_how_many_and_how_long_it_takes(self, capsys):
        show = _Lines()
        show(ProgressEvent("images", 0, 4, 0.5))
        show.last -= 60
        show(ProgressEvent("images", 1, 4, 5.0, remaining=15.2))
        show(ProgressEvent("images", 4, 4, 20.0, remaining=0.0))
        lines = capsys.readouterr().out.splitlines()
        assert lines == ["images 0 of 4  0.5 s", "images 1 of 4  5.0 s, 15 s left",
                         "images 4 of 4  20.0 s"]  # fmt: skip

    def test_output_is_checked_at_once(self, tmp_path):
        with pytest.raises(FileError, match="does not exist"):
            Reporter(json_file=tmp_path / "nowhere" / "x.json")
        with pytest.raises(FileError, match="is a folder"):
            Reporter(json_file=tmp_path)

    def test_lines_are_few(self, capsys):
        show = _Lines()
        for k in range(1, 101):
            show(ProgressEvent("fit", k, 100, k / 1000, 20.0 + k, 1234))
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2
        assert lines[0].startswith("fit 1 of 100")
        assert "120.00 dB" in lines[1]
        assert "1,234 Gaussians" in lines[1]


def test_positions_of_a_running_fit_are_saved(place):
    file = place.folder / "moves.npz"
    words = ("--gaussians", 80, "--iterations", 6, "--positions", file, "--positions-every", 3)
    run("fit", place.image, "-o", place.out, *words)
    with np.load(file) as saved:
        assert sorted(saved) == ["step_00003", "step_00006"]
        assert saved["step_00006"].shape == (len(load_field(place.out)), 3)


def test_what_lies_between_slices_is_fitted_on_request(place):
    words = ("--gaussians", 80, "--iterations", 3, "--json", place.json)
    run("fit", place.image, "-o", place.out, "--interpolate", *words)
    assert "through_plane_targets" in numbers(place.json)
    run("fit", place.image, "-o", place.out, "--no-interpolate", *words)
    assert "through_plane_targets" not in numbers(place.json)


def test_empty_slices_of_a_mask_can_be_unlabelled(place, tiny_volume, tiny_labels):
    painted = tiny_labels.copy()
    painted[1::2] = 0
    sparse = place.folder / "sparse.nii.gz"
    write_labels(sparse, painted, tiny_volume.grid)
    words = ("--mask", sparse, "--gaussians", 300, "--lambda-seg", 5)
    found = []
    for extra in ((), ("--empty-slices-unlabelled",)):
        run("fit", place.image, "-o", place.out, *words, *extra)
        mask = place.folder / "mask.nii.gz"
        run("render", place.out, "--head", "seg", "-o", mask)
        guess, _ = read_labels(mask)
        found.append(int((guess[1::2] > 0).sum()))
    assert found[1] > 2 * found[0]
