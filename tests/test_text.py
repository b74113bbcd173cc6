"""Control characters in names from files never reach the terminal."""

from __future__ import annotations

import io as streams
import json
import unicodedata
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs._text import printable
from napari_medgs._util.progress import ProgressEvent
from napari_medgs.cli.app import app
from napari_medgs.cli.command import print_error
from napari_medgs.cli.report import Reporter, _Lines
from napari_medgs.errors import FileError
from napari_medgs.io import read_label_names

EVIL = "liver\x1b[2J\x1b]0;title\x07\u202efdp\x9b31m\x00"
ANY = st.text(st.characters() | st.sampled_from("\x1b\x07\x08\x9b\r\u202e\u2028\u2066\ud800"))


def is_safe(text: str) -> bool:
    return all(
        c in "\n\t\u200c\u200d" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
        for c in text
    )


@given(ANY)
def test_printable(text: str) -> None:
    found = printable(text)
    assert is_safe(found)
    assert "\n" not in found
    assert is_safe(printable(text, lines=True))
    found.encode("utf-8")
    if text.isprintable():
        assert found == text


@given(ANY)
def test_errors(text: str) -> None:
    assert is_safe(str(FileError(f"{text}: no such file.")))


@given(ANY)
def test_all_that_commands_print(text: str) -> None:
    out = streams.StringIO()
    with redirect_stdout(out):
        reporter = Reporter()
        reporter.note(text)
        reporter.pairs(text, [(text, text)])
        reporter.table(text, (text, text), [(text, text)])
        _Lines()(ProgressEvent(text, 1, 2, 0.0))
    assert is_safe(out.getvalue())


@given(ANY)
def test_error_lines(text: str) -> None:
    from contextlib import redirect_stderr

    out = streams.StringIO()
    with redirect_stderr(out):
        print_error(text)
    assert is_safe(out.getvalue())
    assert out.getvalue().count("\n") == 1


@pytest.fixture
def labels() -> np.ndarray:
    array = np.zeros((4, 8, 9), np.uint8)
    array[1:3, 2:6, 2:7] = 1
    return array


def shown(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    text = result.stdout + result.stderr
    assert is_safe(text), repr(text)
    return text


def test_label_names_of_a_sidecar(tmp_path: Path, labels: np.ndarray) -> None:
    grid = mg.Volume.from_array(labels).grid
    mask = mg.write_labels(tmp_path / "mask.nii.gz", labels, grid, {1: EVIL})
    assert "liver\\x1b[2J" in shown("info", mask)
    assert "liver\\x1b[2J" in shown("mesh", mask, "-o", tmp_path / "m.ply")
    assert "liver\\x1b[2J" in shown("evaluate", mask, mask)
    # The name itself is kept for those who read the file.
    assert read_label_names(mask) == {1: EVIL}


def test_names_of_a_field(tmp_path: Path, labels: np.ndarray) -> None:
    volume = mg.Volume.from_array(labels.astype(np.float32), channel_names=[EVIL])
    params = mg.FitParams(gaussians=30, iterations=3, backend="cpu")
    field = mg.fit(volume, params, labels, class_names={1: EVIL}).field
    path = mg.save_field(tmp_path / "f.medgs.safetensors", field)
    assert "liver\\x1b[2J" in shown("info", path)


def test_segments_of_an_nrrd_file(tmp_path: Path, labels: np.ndarray) -> None:
    image = sitk.GetImageFromArray(labels)
    name = "liver\x1b[2J\x07"
    for key, value in {"Name": name, "LabelValue": "1", "Layer": "0", "ID": "a"}.items():
        image.SetMetaData(f"Segment0_{key}", value)
    sitk.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    assert "liver" in shown("info", tmp_path / "a.seg.nrrd")
    shown("convert", tmp_path / "a.seg.nrrd", tmp_path / "b.nii.gz", "--segment", "x\x1b[31m")


def test_file_names(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J.nii"
    assert "a\\x1b[2J.nii: no such file" in shown("info", path)
    path.write_bytes(b"text")
    assert "a\\x1b[2J.nii" in shown("info", path)


def test_damaged_sessions(tmp_path: Path, labels: np.ndarray) -> None:
    image = mg.write_image(
        tmp_path / "a.nii", labels.astype(np.float32), mg.Volume.from_array(labels).grid
    )
    session = tmp_path / "s.json"
    session.write_text(json.dumps({"format": EVIL, "version": EVIL}))
    shown("segment", image, "--session", session, "-o", tmp_path / "m.nii.gz")
    shown("segment", image, "--session", session, "-o", tmp_path / "m.nii.gz", "--debug")
