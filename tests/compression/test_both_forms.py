"""Every command that takes a field takes both forms of it, and does the same with both."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs.cli.app import app
from napari_medgs.io.fields import SUFFIXES
from tests.compression.test_compression import scene

BOX = ("--box", "1", "2", "4", "4", "8", "30", "30")
COMMANDS = {
    "info": ("{field}", "--json", "{out}/a.json"),
    "render": ("{field}", "-o", "{out}/a.nii.gz"),
    "render --head": ("{field}", "--head", "seg", "-o", "{out}/a.nii.gz"),
    "mesh": ("{field}", "-o", "{out}/a.stl"),
    "parts": ("{field}", "-o", "{out}/a.nii.gz", "--count", "4"),
    "parts --field": ("{scan}", "--field", "{field}", "-o", "{out}/a.nii.gz", "--count", "4"),
    "tissues": ("{field}", "-o", "{out}/a.nii.gz", "--classes", "2"),
    "tissues --field": ("{scan}", "--field", "{field}", "-o", "{out}/a.nii.gz", "--classes", "2"),
    "evaluate": ("{field}", "{mask}", "--json", "{out}/a.json"),
    "segment --field": ("{scan}", "--field", "{field}", *BOX, "-o", "{out}/a.nii.gz"),
    "fit --from": ("{scan}", "--from", "{field}", "-o", "{out}/a.medgs.safetensors",
                   "--iterations", "1", "--threads", "1"),
    "compress": ("{field}", "-o", "{out}/a.medgs", "--iterations", "1", "--threads", "1"),
    "compress FOLDER": ("{folder}", "-o", "{out}/a", "--iterations", "1", "--threads", "1"),
    "pack": ("{folder}", "-o", "{out}/a.medgsz", "--profile", "exact"),
    "train-codec": ("{folder}", "-o", "{out}/a.safetensors", "--steps", "1", "--block", "16",
                    "--threads", "1", "--json", "{out}/a.json"),
    "classify": ("{flat}", "-m", "breastmnist", "--json", "{out}/a.json"),
}  # fmt: skip
"""By command and, where several take a field, the option; all outputs are compared."""
ONE_FORM = {"decompress"}  # from one form to the other
OWN = re.compile(r"second|bytes|output|input|path|file|kind|duration|form")
"""Numbers of a run that need not be the same."""


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """scan and mask; a folder for either form, with a field of both, a flat one and a cohort."""
    folder = tmp_path_factory.mktemp("forms")
    volume, mask = scene()
    mg.write_image(folder / "scan.nii.gz", volume.data, volume.grid)
    mg.write_labels(folder / "mask.nii.gz", mask, volume.grid, {3: "blob"})
    quick = mg.FitParams(gaussians=120, iterations=10, threads=1)
    picture = mg.Volume.from_array(volume.data[:, 2:3, :28, :28])
    fields = {
        "field": mg.fit(volume, quick, mask, class_names={3: "blob"}).field,
        "flat": mg.fit(picture, mg.FitParams(gaussians=32, iterations=5, threads=1)).field,
    }
    for suffix in SUFFIXES:
        form = folder / suffix.strip(".")
        (form / "cohort").mkdir(parents=True)
        for name, field in fields.items():
            kept(form / f"{name}{suffix}", field)
        for k in range(5):
            shutil.copy(form / f"flat{suffix}", form / f"cohort/{k}{suffix}")
    return folder


def kept(path, field):
    """Write a field bit for bit in either form."""
    if path.name.endswith(SUFFIXES[0]):
        mg.save_field(path, field)
    else:
        mg.compress(field, mg.CompressParams(profile="exact")).save(path)


def plain(record):
    """Return what must not depend on the form."""
    if isinstance(record, dict):
        return {key: plain(value) for key, value in record.items() if not OWN.search(key)}
    return record


def contents(folder):
    """Return what a command wrote, by name."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name, value = str(path.relative_to(folder)), path.read_bytes()
        if name.endswith((".medgs", ".medgs.safetensors")):
            field = mg.load_field(path)
            value = [getattr(field, tensor).tobytes() for tensor in field.tensor_names()]
        elif name.endswith(".medgsz"):
            from napari_medgs.io.codec.archive import FieldArchive

            value = [FieldArchive(path).load(n).centers.tobytes() for n in map(str, range(5))]
        elif name.endswith(".json"):
            value = plain(json.loads(value))
        elif name.endswith(".nii.gz"):
            value = mg.read_volume(path).data.tobytes()
        elif name.endswith(".safetensors"):
            from safetensors.numpy import load

            value = {key: array.tobytes() for key, array in load(value).items()}
        found[name] = value
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_both_forms_give_the_same(place, tmp_path, command):
    if command in ("train-codec", "classify"):
        pytest.importorskip("torch")
    made = []
    for suffix in SUFFIXES:
        form, out = place / suffix.strip("."), tmp_path / suffix.strip(".")
        out.mkdir()
        files = {
            "scan": place / "scan.nii.gz",
            "mask": place / "mask.nii.gz",
            "field": form / f"field{suffix}",
            "flat": form / f"flat{suffix}",
            "folder": form / "cohort",
            "out": out,
        }
        words = COMMANDS[command]
        if command == "pack" and suffix != SUFFIXES[0]:
            words = words[:-2]  # what is compressed already is packed as it is
        run(command.split()[0], *(word.format(**files) for word in words))
        made.append(contents(out))
    assert made[0]
    assert made[0].keys() == made[1].keys()
    for name, value in made[0].items():
        assert made[1][name] == value, name


def test_no_command_is_left_out():
    """A new command whose help speaks of a FIELD belongs into the table above."""
    from typer.main import get_command

    names = list(get_command(app).list_commands(None))
    takes = {name for name in names if re.search(r"FIELD", run(name, "--help"))}
    tried = {command.split()[0] for command in COMMANDS}
    assert takes - ONE_FORM <= tried
    assert tried <= set(names)


def test_the_forms_hold_the_same_bits(place):
    exact, small = (mg.load_field(place / s.strip(".") / f"field{s}") for s in SUFFIXES)
    for tensor in exact.tensor_names():
        np.testing.assert_array_equal(getattr(exact, tensor), getattr(small, tensor))
