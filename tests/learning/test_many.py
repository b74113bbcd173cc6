"""Masks of many images: in this process, on Dask, and what happens to those that fail."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from typer.testing import CliRunner

from napari_medgs.batch import segmenting
from napari_medgs.batch.executors import unheard_interrupts
from napari_medgs.batch.segmenting import segment_many
from napari_medgs.cli import app
from napari_medgs.errors import Cancelled, FileError
from napari_medgs.io import write_image, write_labels
from napari_medgs.io.cases import find_cases
from napari_medgs.learning import Segmenter, save_segmenter, summary
from tests.corpus import dicom
from tests.learning.cases import phantom
from tests.learning.test_training import untrained


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for k in range(3):
        image, _, grid = phantom(k)
        (tmp_path / "images" / "more").mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "images" / f"{k}.nii.gz", image, grid)
    return tmp_path / "images"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_segmenter(tmp_path / "m.safetensors", untrained())


def test_in_this_process(images: Path, model: Path, tmp_path: Path):
    told = []
    found = segment_many(
        find_cases(images), model, tmp_path / "masks", done=lambda name, _: told.append(name)
    )
    assert list(found) == told == ["0", "1", "2"]
    image = nib.load(images / "1.nii.gz")
    mask = nib.load(found["1"]["output"])
    assert np.allclose(mask.affine, image.affine)
    data = np.asarray(mask.dataobj)
    assert found["1"]["voxels"] == {str(v): int((data == v).sum()) for v in (2, 5)}


def test_on_dask(images: Path, model: Path, tmp_path: Path):
    """Also a case that fails, and one in a folder below."""
    distributed = pytest.importorskip("distributed")
    (images / "more" / "bad.nii.gz").write_bytes(b"nothing")
    cases = find_cases(images, pattern="**/*.nii.gz")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        found = segment_many(cases, model, tmp_path / "masks", scheduler=cluster.scheduler_address)
    assert list(found) == [case.name for case in cases]
    assert "bad.nii.gz" in found["more/bad"]["error"]
    here = segment_many(cases[:1], model, tmp_path / "here")
    one, other = (np.asarray(nib.load(f["0"]["output"]).dataobj) for f in (found, here))
    assert (one == other).all()


def test_in_two_processes(images: Path, model: Path, tmp_path: Path):
    """The same masks as here, in the order of the cases; one that fails stops no other."""
    (images / "bad.nii.gz").write_bytes(b"nothing")
    words = ("segment", images, "--model", model, "-o", tmp_path / "masks", "--workers", 2)
    result = CliRunner().invoke(app, [*map(str, words), "--json", str(tmp_path / "n.json")])
    assert result.exit_code == 1
    assert "1 of 4 cases failed" in result.output
    numbers = json.loads((tmp_path / "n.json").read_text())["cases"]
    assert list(numbers) == ["0", "1", "2", "bad"]
    assert "bad.nii.gz" in numbers["bad"]["error"]
    here = segment_many(find_cases(images)[:1], model, tmp_path / "here")
    one, other = (np.asarray(nib.load(f["0"]["output"]).dataobj) for f in (numbers, here))
    assert (one == other).all()
    assert numbers["0"]["voxels"] == here["0"]["voxels"]


def test_refused(images: Path, model: Path, tmp_path: Path):
    cases = find_cases(images)
    with pytest.raises(Cancelled, match="0 of 3 masks"):
        segment_many(cases, model, tmp_path / "a", should_stop=lambda: True)
    with pytest.raises(FileError, match="no such"):
        segment_many(cases, tmp_path / "none.safetensors", tmp_path / "a")
    result = CliRunner().invoke(
        app, ["segment", str(images / "0.nii.gz"), "--model", str(model), "-o", "x.nii.gz",
              "--workers", "2"],
    )  # fmt: skip
    assert result.exit_code == 2


@pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")
def test_workers_do_not_hear_an_interrupt():
    """A terminal sends it to them, too, and they may not have a handler yet."""
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(0.1,))
    with unheard_interrupts():
        process.start()
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_canceled_in_the_midst(images: Path, model: Path, tmp_path: Path, workers: int):
    """What is through counts."""
    done = []
    asked = []

    def should_stop():
        asked.append(len(done))
        return bool(done) and asked.count(len(done)) > (workers == 1)

    with pytest.raises(Cancelled) as caught:
        segment_many(
            find_cases(images), model, tmp_path / "masks", workers=workers, agreement=False,
            should_stop=should_stop, done=lambda name, _: done.append(name),
        )  # fmt: skip
    assert str(caught.value) == f"Canceled; {len(done)} of 3 masks were written."
    assert len(done) >= 1
    assert len(done) == len(list((tmp_path / "masks").glob("*.nii.gz")))


def test_no_masks_among_the_slices_of_an_image(images: Path, model: Path, tmp_path: Path):
    """A list may name folders that are one image each."""
    dicom.series(tmp_path, name="slices")
    (tmp_path / "list.csv").write_text("image\nimages/0.nii.gz\nslices\n")
    before = sorted((tmp_path / "slices").iterdir())
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "slices", target_is_directory=True)
    words = ["segment", str(tmp_path / "list.csv"), "--model", str(model), "--no-agreement"]
    for folder in (tmp_path / "slices", link):
        answer = CliRunner().invoke(app, [*words, "-o", str(folder)])
        assert answer.exit_code == 1
        assert "is the folder of an image" in answer.output.replace("\n", " ")
    assert sorted((tmp_path / "slices").iterdir()) == before


@pytest.mark.parametrize("prompted", [False, True])
def test_images_and_truths_are_not_overwritten(
    images: Path, model: Path, tmp_path: Path, prompted: bool
):
    """A list may lie anywhere; labels beside images are what segmenters learn from."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "masks").mkdir()
    for k in range(3):
        _, labels, grid = phantom(k)
        write_labels(tmp_path / "labels" / f"{k}.nii.gz", labels, grid)
        write_labels(tmp_path / "masks" / f"{k}.nii.gz", labels, grid)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.nii.gz")}
    table = tmp_path / "list.txt"
    table.write_text("".join(f"images/{k}.nii.gz\n" for k in range(3)))
    if prompted:
        start = ["segment", str(images), "--prompts", str(tmp_path / "masks")]
        refused = [tmp_path / "labels"]
    else:
        start = ["segment", str(table), "--model", str(model), "--no-agreement"]
        refused = [images, tmp_path / "labels"]
    for folder in refused:
        answer = CliRunner().invoke(app, [*start, "-o", str(folder)])
        assert answer.exit_code == 1
        assert "choose another output folder" in answer.output.replace("\n", " ")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.nii.gz")} == before
    answer = CliRunner().invoke(app, [*start, "-o", str(tmp_path / "out.nii.gz")])
    assert answer.exit_code == 1
    assert "go into a folder" in answer.output
    if not prompted:  # an earlier output may be written anew
        assert CliRunner().invoke(app, [*start, "-o", str(tmp_path / "masks")]).exit_code == 0


def threads_of_networks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets PyTorch's threads whenever a network of a segmenter runs."""
    seen, run = [], Segmenter._run

    def noted(self, *args):
        seen.append(torch.get_num_threads())
        return run(self, *args)

    monkeypatch.setattr(Segmenter, "_run", noted)
    return seen


def test_threads_are_those_of_networks_too(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One image, a folder, and the start of prompts; the program's own number comes back."""
    seen = threads_of_networks(monkeypatch)
    before = torch.get_num_threads()
    wanted = before + 1
    one, out = str(images / "0.nii.gz"), tmp_path / "m.nii.gz"
    use = ["--model", str(model), "--threads", str(wanted)]
    for place, more in (
        (one, ["-o", str(out)]),
        (str(images), ["-o", str(tmp_path / "out")]),
        (one, ["--point", "2", "8", "8", "8", "-o", str(out)]),
    ):
        answer = CliRunner().invoke(app, ["segment", place, *use, *more])
        assert answer.exit_code == 0, answer.output
    assert seen == [wanted] * 5
    assert torch.get_num_threads() == before


def test_processes_share_the_cpus(images: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    given = []

    @contextmanager
    def submitter(scheduler, workers):
        yield lambda task: given.append((workers, task.threads)) or Future(), None

    monkeypatch.setattr(segmenting, "_submitter", submitter)
    monkeypatch.setattr(segmenting, "default_threads", lambda: 7)
    for threads in (None, 2):
        with pytest.raises(Cancelled):
            segment_many(
                find_cases(images), model, images.parent / "masks", workers=9, threads=threads,
                should_stop=lambda: True,
            )  # fmt: skip
    assert given == [(3, 2)] * 6


def test_doubts_are_warnings(
    images: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Quiet runs and runs of a folder are told, too, that a mask is probably wrong."""

    def doubtful(*_):
        return {"agreement": 0.3, "trust": "below", "unlike_training": 2.0, "voxels": {},
                "volume_ml": {}, "seconds": 0.1, "calibration": ""}  # fmt: skip

    monkeypatch.setattr(summary, "summarize", doubtful)
    for place, out in ((images / "0.nii.gz", "m.nii.gz"), (images, "out")):
        start = ["segment", str(place), "--model", str(model), "-o", str(tmp_path / out)]
        told = " ".join(CliRunner().invoke(app, [*start, "--quiet"]).stderr.split())
        assert told.count("expect a wrong mask") == told.count("unlike the 0 cases")
        assert told.count("agree less (0.300)") == (3 if place == images else 1)
