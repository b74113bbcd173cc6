"""Inputs as words or with -i, synonyms of options, and what was renamed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from typer.testing import CliRunner

from napari_medgs.cli import app
from napari_medgs.cli.app import COMMANDS, load_command
from napari_medgs.io import read_labels, read_volume, write_image, write_labels

WITHOUT_INPUTS = ("sample", "demo", "serve")


def run(*words: object, status: int = 0):
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == status, f"{result.output}\n{result.stderr}\n{result.exception}"
    return result


def said(result) -> str:
    """Return what a usage error says, without its frame."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())


@pytest.fixture
def place(tmp_path, tiny_volume, tiny_labels):
    write_image(tmp_path / "a.nii.gz", tiny_volume.data, tiny_volume.grid)
    write_image(tmp_path / "b.nii.gz", 2 * tiny_volume.data, tiny_volume.grid)
    write_labels(tmp_path / "m.nii.gz", tiny_labels, tiny_volume.grid)
    return tmp_path


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in WITHOUT_INPUTS])
def test_every_command_with_inputs_takes_them_as_options(name):
    names = {o for p in load_command(name).params for o in p.opts}
    assert {"-i", "--input"} <= names


@pytest.mark.parametrize("option", ["-i", "--input"])
def test_an_input_as_option_is_that_as_word(place, option):
    words = run("info", place / "a.nii.gz").output
    assert run("info", option, place / "a.nii.gz").output == words
    assert run("info", f"--input={place / 'a.nii.gz'}").output == words


def test_several_inputs_keep_their_order(place):
    out = place / "f.medgs.safetensors"
    run("fit", "-i", place / "b.nii.gz", "-o", out, "-i", place / "a.nii.gz",
        "--gaussians", 20, "--iterations", 1)  # fmt: skip
    assert "b, a" in run("info", out).output.replace("image channels", "")
    text = run("evaluate", "-i", place / "m.nii.gz", "--input", place / "m.nii.gz").output
    assert "1.000" in text


@pytest.mark.parametrize(
    "words",
    [("a.nii.gz", "-o", "c.nrrd"), ("-i", "a.nii.gz", "c.nrrd"), ("c.nrrd", "-i", "a.nii.gz"),
     ("-i", "a.nii.gz", "--output", "c.nrrd"), ("a.nii.gz", "c.nrrd")],
)  # fmt: skip
def test_convert_takes_words_and_options(place, monkeypatch, words):
    monkeypatch.chdir(place)
    run("convert", *words)
    assert np.array_equal(read_volume("c.nrrd").data, read_volume("a.nii.gz").data)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("info", "a", "-i", "b"), "a is given as a word beside -i b"),
        (("fit", "a", "-i", "b", "-o", "f.medgs.safetensors"), "a is given as a word beside -i b"),
        (("info", "-i", "a", "-i", "b"), "-i was given 2 times; this command has 1 input."),
        (("evaluate", "-i", "a"), "Missing argument 'TRUTH'"),
        (("convert", "a", "b", "-o", "c.nrrd"), "b: one word too many beside -o c.nrrd"),
        (("info",), "Missing argument 'FILE'"),
        (("info", "a", "b"), "unexpected extra argument"),
    ],
)
def test_contradictions_are_usage_errors(words, says):
    assert says in said(run(*words, status=2))


def test_an_output_option_may_not_be_an_input(place):
    text = run("convert", "-i", place / "a.nii.gz", "-o", place / "a.nii.gz", status=1).stderr
    assert "would overwrite the input" in text


@pytest.mark.parametrize(
    "name",
    [n for n in COMMANDS if "--backend" in {o for p in load_command(n).params for o in p.opts}],
)
def test_device_is_backend(name):
    assert "--device" in {o for p in load_command(name).params for o in p.opts}
    assert "--device" in run(name, "--help").output


def test_device_chooses_the_engine(place):
    out = place / "f.medgs.safetensors"
    result = run("fit", place / "a.nii.gz", "-o", out, "--device", "cpu", "--gaussians", 20,
                 "--iterations", 1)  # fmt: skip
    assert "on cpu" in result.output
    run("render", out, "-o", place / "r.nii.gz", "--device", "reference")


@pytest.mark.parametrize("words", [("--model", "edge"), ("--model=edge",)])
def test_the_kind_of_network_is_no_model(tmp_path, words):
    text = said(run("train", "x.npz", "-o", tmp_path / "m.safetensors", *words, status=2))
    assert "--model names a file in every command" in text
    assert "--network edge" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--batch-size", "1"), "Invalid value for '--batch-size'"),
        (("--batch", "1"), "Invalid value for '--batch-size'"),
        (("--learning-rate", "2"), "Invalid value for '--learning-rate'"),
        (("--rate=2",), "Invalid value for '--learning-rate'"),
    ],
)
def test_training_options_have_their_usual_names(words, says):
    assert says in said(run("train", "no.npz", "-o", "m.safetensors", *words, status=2))


def test_a_set_that_cannot_be_downloaded_says_that_the_network_is_missing(tmp_path, monkeypatch):
    import pooch
    import requests

    def offline(*_args, **_kwargs):
        raise requests.exceptions.ConnectionError("Max retries exceeded with url: /records/1")

    monkeypatch.setattr(pooch, "retrieve", offline)
    text = run("train", "breastmnist", "-o", tmp_path / "m.safetensors", status=1).stderr
    assert len(text.splitlines()) == 1
    assert "breastmnist" in text
    assert "no network connection" in text
    assert "Max retries" not in text


@pytest.mark.parametrize("command", ["classify", "evaluate-classifier"])
def test_a_model_of_another_kind_is_refused(place, command):
    field = place / "f.medgs.safetensors"
    run("fit", place / "a.nii.gz", "-o", field, "--gaussians", 20, "--iterations", 1)
    text = run(command, place / "a.nii.gz", "--model", field, status=1).stderr
    assert len(text.splitlines()) == 1
    assert "f.medgs.safetensors" in text
    assert "field" in text
    assert "classifier" in text


def test_masks_stay_as_they_are(place):
    run("convert", "-i", place / "m.nii.gz", "-o", place / "n.nrrd")
    first, second = (read_labels(place / n)[0] for n in ("m.nii.gz", "n.nrrd"))
    assert np.array_equal(first, second)
