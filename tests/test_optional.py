"""What works, and what is said, where torch, Lightning, torch-geometric and Dask are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from napari_medgs.io import write_image, write_labels

BLOCKED = ("torch", "lightning", "torch_geometric", "torchmetrics", "distributed", "dask")
RUN = f"""
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from napari_medgs.cli import main
for words in json.loads(sys.argv[1]):
    print(*words)
    sys.argv = ["napari-medgs", *words]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""
"""Runs commands one after the other, in one process, up to the first that fails."""


@pytest.fixture
def folder(tmp_path, tiny_volume, tiny_labels):
    (tmp_path / "images").mkdir()
    write_image(tmp_path / "images/a.nii.gz", tiny_volume.data, tiny_volume.grid)
    write_labels(tmp_path / "labels.nii.gz", tiny_labels, tiny_volume.grid)
    return tmp_path


def run(folder, *commands) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    words = json.dumps([[str(word) for word in command] for command in commands])
    return subprocess.run(
        [sys.executable, "-c", RUN, words], cwd=folder, env=environment,
        capture_output=True, encoding="utf-8", timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("classify", "images/a.nii.gz", "--model", "breastmnist"),
         "classify needs torch, which is not installed: pip install torch"),
        (("train", "labels.npz", "-o", "m.safetensors"),
         "train needs torch and lightning, which are not installed: pip install torch lightning"),
        (("fit-many", "images", "-o", "out", "--scheduler", "tcp://127.0.0.1:9"),
         "fit-many --scheduler needs distributed, which is not installed: "
         "pip install distributed"),
    ],
)  # fmt: skip
def test_commands_that_need_them_say_what_to_install(folder, words, sentence):
    done = run(folder, words)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines() == [f"napari-medgs: {sentence}"]


def test_all_other_commands_work_without_them(folder):
    field = "out/a.medgs.safetensors"
    done = run(
        folder,
        ("fit-many", "images", "-o", "out", "--gaussians", 40, "--iterations", 5),
        ("fit", "images/a.nii.gz", "--mask", "labels.nii.gz", "-o", field, "--gaussians", 40,
         "--iterations", 5),
        ("info", field),
        ("render", field, "-o", "image.nii.gz"),
        ("segment", "images/a.nii.gz", "--prompts", "labels.nii.gz", "-o", "mask.nii.gz"),
        ("evaluate", "mask.nii.gz", "labels.nii.gz"),
        ("mesh", "labels.nii.gz", "-o", "mesh.ply"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
