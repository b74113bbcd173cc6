"""Options: declared once, honest, completed, printed anywhere, known under earlier names."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from typing import get_args

import numpy as np
import pytest
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs._util.settings import settings_of
from napari_medgs.batch.params import BatchParams
from napari_medgs.classification.gaussians.settings import FitSettings
from napari_medgs.classification.training.params import TrainParams
from napari_medgs.cli import app
from napari_medgs.cli.app import COMMANDS, load_command
from napari_medgs.cli.words import present_name
from napari_medgs.data.phantom import make_phantom
from napari_medgs.errors import ParameterError
from napari_medgs.fitting.params import FitParams
from napari_medgs.io import read_labels, read_volume, write_image, write_labels
from napari_medgs.segmentation import Box
from napari_medgs.segmentation.params import SegmentParams

CLASSES = (FitParams, SegmentParams, TrainParams, FitSettings, BatchParams)
# Options that are written otherwise than their setting, or belong to a file that is written.
SPELLED = {
    ("fit", "checkpoint_every"),
    ("fit", "holdout"),
    ("fit", "positions_every"),
    ("fit-many", "holdout"),
    ("fit-many", "threads"),
    ("train", "model"),
}
OPTIONS_OF = {"fit": FitParams, "fit-many": FitParams, "segment": SegmentParams,
              "train": TrainParams}  # fmt: skip


def run(*words: object, status: int = 0):
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == status, f"{result.output}\n{result.exception}"
    return result


def outside(declared) -> list[object]:
    """Values just out of a setting's range."""
    if declared.choices:
        return ["no such choice"]
    step = 1 if declared.kind is int else 1e-3
    wrong: list[object] = [
        bound + sign * step
        for bound, sign in ((declared.low, -1), (declared.high, 1))
        if bound is not None
    ]
    wrong += [bound for bound in (declared.above, declared.below) if bound is not None]
    return [(w,) * declared.size if declared.kind is tuple else w for w in wrong]


@pytest.mark.parametrize("cls", CLASSES)
def test_values_out_of_the_declared_range_are_refused(cls):
    for name, declared in settings_of(cls).items():
        for wrong in outside(declared):
            with pytest.raises(ParameterError, match=f"^{name} must be"):
                cls(**{name: wrong})


@pytest.mark.parametrize("cls", CLASSES)
def test_what_is_no_number_is_refused(cls):
    for name, declared in settings_of(cls).items():
        if declared.kind in (int, float):
            for wrong in (float("nan"), float("inf"), "3"):
                with pytest.raises(ParameterError, match=f"^{name} must be"):
                    cls(**{name: wrong})


@pytest.mark.parametrize(
    ("command", "cls", "least"),
    [*((c, cls, 9) for c, cls in OPTIONS_OF.items()), ("fit-many", BatchParams, 3)],
)
def test_options_are_the_declared_settings(command, cls, least):
    declared = settings_of(cls)
    module = import_module(f"napari_medgs.cli.{command.replace('-', '_')}")
    parameters = inspect.signature(getattr(module, module.__name__.split(".")[-1])).parameters
    shared = [n for n in declared if n in parameters and (command, n) not in SPELLED]
    assert len(shared) >= least
    for name in shared:
        setting = declared[name]
        kind, option = get_args(parameters[name].annotation)
        # Typer keeps the first name as the default of its declaration; none: by the parameter.
        if option.default is not ...:
            assert option.default.split("/")[0] == setting.option
        assert option.help.startswith(setting.help.removesuffix("."))
        assert parameters[name].default == setting.default
        if setting.choices:
            assert [member.value for member in kind] == list(setting.choices)
        elif setting.kind in (int, float):
            assert (option.min, option.max) == (setting.low, setting.high)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_their_help_pages_say(name):
    assert load_command(name).help.split("\n\n")[0].replace("\n", " ") == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_no_types_of_flags(name):
    for flag in ("-h", "--help"):
        text = run(name, flag).output
        assert "<bool>" not in text
        (usage,) = [line for line in text.splitlines() if "Usage: " in line]
        assert "{" not in usage


def test_earlier_names_still_work():
    options = {"--network", "--unlabeled", "--learning-rate"}
    assert present_name("--unlabelled", options) == "--unlabeled"
    assert present_name("--unlabelled=5", options) == "--unlabeled=5"
    assert present_name("--rate=0.1", options) == "--learning-rate=0.1"
    assert present_name("--rate", {"--rate", *options}) == "--rate"
    assert present_name("--reach", options) == "--reach"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_commands_and_options(shell):
    words = {"bash": "napari-medgs seg", "zsh": "napari-medgs seg", "fish": "napari-medgs seg"}
    environment = {
        **os.environ,
        "_NAPARI_MEDGS_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": words[shell],
        "COMP_WORDS": words[shell],
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(
        [sys.executable, "-m", "napari_medgs"], env=environment, capture_output=True, text=True
    )
    assert "segment" in done.stdout, done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_output_never_fails_on_a_console(tmp_path, tiny_labels, tiny_grid, encoding):
    write_labels(tmp_path / "m.nii.gz", tiny_labels, tiny_grid, {1: "Großhirn ∑", 2: "灰白質"})
    commands = (["evaluate", "m.nii.gz", "m.nii.gz"], ["mesh", "m.nii.gz", "-o", "m.ply"],
                ["-h"], ["info", "灰.nii.gz"])  # fmt: skip
    code = (
        "import sys\n"
        "from napari_medgs.cli import main\n"
        f"for words in {commands!a}:\n"
        "    sys.argv, status = ['napari-medgs', *words], 0\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as ended:\n"
        "        status = ended.code or 0\n"
        "    print('status', status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        cwd=tmp_path,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(rb"^status (\d)", done.stdout, re.MULTILINE) == [b"0", b"0", b"0", b"1"]
    assert b"UnicodeEncodeError" not in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_missing_package_is_one_line_with_the_pip_command(tmp_path, monkeypatch):
    def missing(*_args, **_kwargs):
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    monkeypatch.setattr("napari_medgs.io.reading.read_all_volumes", missing)
    result = run("info", tmp_path / "x.nii", status=1)
    assert "pip install scikit-learn" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.fixture
def replay(tmp_path, tiny_volume, tiny_labels):
    """An image and a session saved with seed 7."""
    write_image(tmp_path / "image.nii.gz", tiny_volume.data, tiny_volume.grid)
    segmenter = mg.InteractiveSegmenter(SegmentParams(seed=7))
    segmenter.set_image(read_volume(tmp_path / "image.nii.gz"))
    for value in (0, 1, 2):
        stroke = np.zeros(tiny_labels.shape, bool)
        stroke[6] = (tiny_labels[6] == value) & (np.arange(24) % 3 == 0)
        segmenter.add_scribble(value, stroke)
    result = segmenter.result()
    segmenter.save(tmp_path / "session.json")
    words = ("segment", tmp_path / "image.nii.gz", "--session", tmp_path / "session.json",
             "-o", tmp_path / "mask.nii.gz")  # fmt: skip
    return words, result


def test_a_replay_records_the_seed_of_the_session(replay, tmp_path):
    words, result = replay
    told = run(*words, "--json", tmp_path / "n.json", "--threads", 1).stderr
    assert "warning" not in told
    found = json.loads((tmp_path / "n.json").read_text())
    assert (found["seed"], found["threads"]) == (7, 1)
    labels, _ = read_labels(tmp_path / "mask.nii.gz")
    assert np.array_equal(labels, result.labels)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", 42), ("--appearance", 3), ("--unlabeled", 5), ("--unlabelled", 5),
     ("--islands", "keep"), ("--fill-holes", None), ("--background-label", 3),
     ("--initial", "x.nii.gz"), ("--refine-voxels", 250_000)],
)  # fmt: skip
def test_a_replay_refuses_what_the_session_sets(replay, tmp_path, option, value):
    words, _ = replay
    text = run(*words, option, *([] if value is None else [value]), status=2).stderr
    assert option.replace("labelled", "labeled") in text
    assert not (tmp_path / "mask.nii.gz").exists()


def test_a_replay_warns_of_prompts_as_the_command_does(tmp_path, tiny_volume, tiny_labels):
    image, session = tmp_path / "image.nii.gz", tmp_path / "session.json"
    write_image(image, tiny_volume.data, tiny_volume.grid)
    segmenter = mg.InteractiveSegmenter(SegmentParams())
    segmenter.set_image(read_volume(image))
    strokes = segmenter.session.strokes
    strokes[6] = np.where(tiny_labels[6] == 2, 2, 1)
    strokes[6, 3, [2, 5]] = segmenter.session.settings.unlabeled
    segmenter.session.record_strokes()
    segmenter.save(session)
    other = tmp_path / "other.medgs.safetensors"
    upside_down = tmp_path / "other.nii.gz"
    write_image(upside_down, tiny_volume.data[:, :, ::-1] ** 2, tiny_volume.grid)
    run("fit", upside_down, "-o", other, "--iterations", 60)
    told = run("segment", image, "--session", session, "--field", other,
               "-o", tmp_path / "m.nii.gz").stderr  # fmt: skip
    assert f"warning: {session}: Not fully labeled: slice 6 along z lacks 2 voxels." in told
    assert f"warning: {session}: the classes divide the whole image" in told
    assert f"warning: {other}: this field does not look like {image}" in told
    segmenter.session.update_settings(fully_labeled=((0, 6),))
    segmenter.save(session)
    told = run("segment", image, "--session", session, "-o", tmp_path / "m.nii.gz").stderr
    assert "warning" not in told
    segmenter.session.update_settings(boxes=(Box((0, 0, 0), (2, 2, 2), 2),))
    segmenter.save(session)
    told = run("segment", image, "--session", session, "-o", tmp_path / "m.nii.gz").stderr
    assert f"warning: {session}: {(tiny_labels[6] == 2).sum()} voxels marked as class 2" in told


def test_sample_files_are_the_same_each_time_and_fit_together(tmp_path):
    for name in ("a", "b"):
        run("sample", "-o", tmp_path / name)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["brain.nii.gz", "brain_t2.nii.gz", "labels.json", "labels.nii.gz",
                     "strokes.json", "strokes.nii.gz"]  # fmt: skip
    first, second = (
        {n: read_volume(tmp_path / folder / n).data for n in names if n.endswith(".gz")}
        for folder in ("a", "b")
    )
    for name, data in first.items():
        assert np.array_equal(data, second[name])
    labels, strokes = first["labels.nii.gz"][0], first["strokes.nii.gz"][0]
    assert np.array_equal(labels, make_phantom(2.0).labels)
    assert np.count_nonzero(strokes.any(axis=(1, 2))) == 3
    for value in (6, 7):
        assert (labels[strokes == value] == value).all()
    run("sample", "-o", tmp_path / "a")  # again into the same folder
    names = (tmp_path / "b" / "strokes.json").read_text().replace("lesion", "tumor")
    (tmp_path / "b" / "strokes.json").write_text(names)
    assert "strokes.json: another" in run("sample", "-o", tmp_path / "b", status=1).stderr
    assert (tmp_path / "b" / "strokes.json").read_text() == names
    (tmp_path / "a" / "brain.nii.gz").write_bytes((tmp_path / "a" / "labels.nii.gz").read_bytes())
    (tmp_path / "a" / "strokes.nii.gz").unlink()
    assert "another file of this name" in run("sample", "-o", tmp_path / "a", status=1).stderr
    assert not (tmp_path / "a" / "strokes.nii.gz").exists()
    assert not np.isin(labels[strokes == 1], (6, 7)).any()
