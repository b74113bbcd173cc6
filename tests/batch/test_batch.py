"""Batches: their images, restarts, failures, cancellation, processes and Dask."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from typer.testing import CliRunner

from napari_medgs.batch import BatchParams, Case, find_cases, fit_many
from napari_medgs.batch.executors import LocalProcesses, check_versions, dask_client
from napari_medgs.batch.manifest import remove_partial_files
from napari_medgs.batch.plan import Plan, make_plan
from napari_medgs.batch.run import LOCK
from napari_medgs.batch.task import fit_case
from napari_medgs.cli import app
from napari_medgs.errors import BackendError, FileError, ParameterError
from napari_medgs.fitting import FitParams
from napari_medgs.io import write_image, write_labels
from napari_medgs.io.fields import load_field

QUICK = FitParams(gaussians=40, iterations=5, backend="cpu")


@pytest.fixture
def folder(tmp_path, tiny_volume, tiny_labels):
    """images/{a,b,c}.nii.gz, of which c is damaged, and labels/ of the others."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for k, name in enumerate("ab"):
        write_image(tmp_path / f"images/{name}.nii.gz", tiny_volume.data + k, tiny_volume.grid)
        write_labels(tmp_path / f"labels/{name}_seg.nii.gz", tiny_labels, tiny_volume.grid)
    (tmp_path / "images/c.nii.gz").write_bytes(b"no image")
    return tmp_path


@pytest.fixture(scope="module")
def client():
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as c:
        yield c


def run(*words, status=0):
    result = CliRunner().invoke(app, ["fit-many", *map(str, words)])
    assert result.exit_code == status, f"{result.output}\n{result.exception}"
    return result


def fit(folder, client, params=QUICK, batch=None, **options):
    cases = find_cases(folder / "images", mask="../labels/{name}_seg.nii.gz")
    return fit_many(cases, folder / "out", params, batch, executor=client, **options)


def names(folder):
    """All there is in an output folder, but for the lock, which stays on some systems."""
    return sorted(p.name for p in folder.iterdir() if p.name != LOCK)


def test_one_bad_file_stops_nothing_and_a_second_run_skips_the_others(folder, client):
    events = []
    result = fit(folder, client, progress=events.append)
    assert result.done == ["a", "b"] or result.done == ["b", "a"]
    assert list(result.failed) == ["c"]
    assert "c.nii.gz" in result.failed["c"]
    assert "\n" not in result.failed["c"]
    assert (events[-1].done, events[-1].total) == (3, 3)
    field = load_field(folder / "out/a.medgs.safetensors")
    assert field.info.params["gaussians"] == 40
    assert len(field.info.class_names) == 3
    manifest = json.loads((folder / "out/manifest.json").read_text())
    assert manifest["counts"] == {"done": 2, "failed": 1}
    assert manifest["cases"]["a"]["metrics"]["psnr"] > 10
    stamp = (folder / "out/a.medgs.safetensors").stat().st_mtime_ns
    again = fit(folder, client)
    assert (sorted(again.skipped), again.done, list(again.failed)) == (["a", "b"], [], ["c"])
    assert (folder / "out/a.medgs.safetensors").stat().st_mtime_ns == stamp
    assert again.totals()["n_gaussians"] == result.totals()["n_gaussians"] > 0


def test_files_that_were_not_fetched_fail_as_any_other(folder, client):
    """DataLad and git-annex leave links to nowhere in their place."""
    (folder / "images/d.nii.gz").symlink_to("../.git/annex/objects/d.nii.gz")
    result = fit(folder, client)
    assert sorted(result.failed) == ["c", "d"]
    assert "a link to ../.git/annex/objects/d.nii.gz, which does not exist" in result.failed["d"]


def test_what_changed_is_fitted_again(folder, client, tiny_volume, tiny_labels):
    fit(folder, client)
    # Touched, but the same: looked into and left alone.
    os.utime(folder / "images/a.nii.gz", ns=(1, 1))
    assert sorted(fit(folder, client).skipped) == ["a", "b"]
    write_image(folder / "images/a.nii.gz", tiny_volume.data * 2, tiny_volume.grid)
    assert fit(folder, client).done == ["a"]
    write_labels(folder / "labels/b_seg.nii.gz", tiny_labels % 2, tiny_volume.grid)
    assert fit(folder, client).done == ["b"]
    (folder / "out/b.medgs.safetensors").write_bytes(b"cut off")
    assert fit(folder, client).done == ["b"]
    other = FitParams(gaussians=40, iterations=6, backend="cpu")
    assert sorted(fit(folder, client, other).done) == ["a", "b"]
    assert sorted(fit(folder, client, other, BatchParams(overwrite=True)).done) == ["a", "b"]
    # Threads change nothing of the result.
    same = FitParams(gaussians=40, iterations=6, backend="cpu", threads=2)
    assert fit(folder, client, same).done == []


def test_a_cancel_leaves_whole_files_only_and_goes_on_later(folder, client):
    slow = FitParams(gaussians=40, iterations=100_000, backend="cpu")
    asked = []
    result = fit(folder, client, slow, should_stop=lambda: len(asked) > 3 or asked.append(1))
    assert result.left >= 2
    assert names(folder / "out") == ["manifest.json"]
    assert sorted(fit(folder, client).done) == ["a", "b"]


def test_processes_from_the_command_line(folder):
    numbers = folder / "totals.json"
    result = run(
        folder / "images", "-o", folder / "out", "--mask", "../labels/{name}_seg.nii.gz",
        "--workers", 2, "--gaussians", 40, "--iterations", 5, "--json", numbers, status=1,
    )  # fmt: skip
    found = json.loads(numbers.read_text())
    assert (found["cases"], found["done"], found["failed"]) == (3, 2, 1)
    assert (found["workers"], list(found["failures"])) == (2, ["c"])
    assert "c: " in result.stderr
    assert names(folder / "out") == [
        "a.medgs.safetensors", "b.medgs.safetensors", "manifest.json",
    ]  # fmt: skip


def test_a_scheduler_elsewhere(folder):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        batch = BatchParams(scheduler=cluster.scheduler_address)
        result = fit(folder, None, QUICK, batch)
    assert (sorted(result.done), result.workers) == (["a", "b"], 1)


@pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")
def test_ctrl_c_is_130_and_leaves_no_half_written_file(folder):
    command = [sys.executable, "-m", "napari_medgs", "fit-many", str(folder / "images"), "-o",
               str(folder / "out"), "--iterations", "100000", "--workers", "1"]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in process.stdout:
        if line.startswith("images 0 of 3"):
            break
    # To the whole group, as a terminal does: the workers must not die of it.
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "are left" in err
    assert "Traceback" not in err
    assert names(folder / "out") == ["manifest.json"]


def die_on_b(task, event=""):
    """Stand in for a fit whose process is killed for lack of memory."""
    if task.case.name == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    return fit_case(task, event)


@pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")
def test_a_process_that_dies_fails_its_own_case_only(folder, monkeypatch):
    monkeypatch.setattr("napari_medgs.batch.executors.fit_case", die_on_b)
    result = fit(folder, None, batch=BatchParams(workers=2))
    assert result.done == ["a"]
    assert sorted(result.failed) == ["b", "c"]
    assert "process died" in result.failed["b"]
    assert "c.nii.gz" in result.failed["c"]


@pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")
@pytest.mark.parametrize("broken", [1, 2])
def test_processes_that_died_before_a_fit_begins_are_started_again(folder, monkeypatch, broken):
    submit, calls = LocalProcesses.submit, []

    def submit_or_not(self, task):
        calls.append(task)
        if len(calls) == broken:  # as a pool does of which a process has died
            if broken == 2:
                os.kill(next(iter(self._executor._processes)), signal.SIGKILL)
            raise BrokenProcessPool("A child process terminated abruptly")
        return submit(self, task)

    monkeypatch.setattr(LocalProcesses, "submit", submit_or_not)
    result = fit(folder, None, batch=BatchParams(workers=1))
    assert (sorted(result.done), list(result.failed)) == (["a", "b"], ["c"])


def test_an_executor_of_the_caller(folder):
    with ThreadPoolExecutor(1) as executor:
        result = fit(folder, executor, batch=BatchParams(workers=1))
    assert (sorted(result.done), list(result.failed)) == (["a", "b"], ["c"])


def test_a_manifest_of_an_earlier_version_is_read(folder, client):
    fit(folder, client)
    manifest = folder / "out/manifest.json"
    manifest.write_text(manifest.read_text().replace("napari-medgs batch", "napari-medgs cohort"))
    assert sorted(fit(folder, client).skipped) == ["a", "b"]


def test_lists_and_tables(folder):
    listed = folder / "list.txt"
    listed.write_text("# two of them\nimages/a.nii.gz\n\nimages/b.nii.gz\n")
    assert [c.name for c in find_cases(listed)] == ["a", "b"]
    table = folder / "table.csv"
    table.write_text(
        "image,mask,name\nimages/a.nii.gz,labels/a_seg.nii.gz,first\n"
        "images/a.nii.gz; images/b.nii.gz,,both\n"
    )
    first, both = find_cases(table)
    assert first == Case("first", (str(folder / "images/a.nii.gz"),),
                         str(folder / "labels/a_seg.nii.gz"))  # fmt: skip
    assert len(both.images) == 2
    assert both.mask is None
    found = find_cases(folder, pattern="**/*.nii.gz", mask="../labels/{name}_seg.nii.gz")
    assert [c.name for c in found] == ["images/a", "images/b", "images/c"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_spreadsheets(tmp_path, encoding, delimiter):
    rows = (("Image", "mask", "name"), ("ä 1.nii.gz", "m 1.nii.gz", ""), ('"b;c"', "", "both"))
    text = "\r\n".join(delimiter.join(row) for row in rows)
    (tmp_path / "table.csv").write_bytes(text.encode(encoding))
    first, both = find_cases(tmp_path / "table.csv")
    assert first == Case("ä 1", (str(tmp_path / "ä 1.nii.gz"),), str(tmp_path / "m 1.nii.gz"))
    assert both.images == (str(tmp_path / "b"), str(tmp_path / "c"))


def test_quoted_paths_and_other_encodings(tmp_path):
    (tmp_path / "list.txt").write_text('"a b.nii.gz"\r\n')
    assert find_cases(tmp_path / "list.txt")[0].images == (str(tmp_path / "a b.nii.gz"),)
    (tmp_path / "list.txt").write_bytes("ä.nii.gz".encode("latin-1"))
    with pytest.raises(FileError, match="save it as UTF-8"):
        find_cases(tmp_path / "list.txt")


def test_medmnist_splits(tmp_path, client):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 3), ("val", 2), ("test", 2)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (count, 1), np.uint8)
    np.savez(tmp_path / "mine.npz", **arrays)
    assert len(find_cases(tmp_path / "mine.npz")) == 7
    cases = find_cases(f"{tmp_path / 'mine.npz'}:val")
    result = fit_many(cases, tmp_path / "out", QUICK, executor=client)
    assert sorted(result.done) == ["val/00000", "val/00001"]
    assert (tmp_path / "out/val/00001.medgs.safetensors").exists()


@pytest.mark.parametrize(
    ("file", "text", "error", "word"),
    [
        ("a.csv", "file,mask\nx.nii,y.nii\n", FileError, "image"),
        ("a.csv", "", FileError, "nothing"),
        ("a.csv", "image,Image,mask\nx.nii,y.nii,\n", FileError, "'image' 2 times"),
        ("a.csv", "image,mask\n,y.nii\n", FileError, "line 2"),
        ("a.txt", "\n# nothing\n", FileError, "no image"),
        ("a.txt", "x.nii\nx.nii.gz\n", ParameterError, "both"),
        ("a.csv", "image,name\nx.nii,../up\n", ParameterError, "name"),
        ("a.doc", "x.nii", FileError, "folder"),
        (None, "", FileError, "no such"),
    ],
)
def test_what_is_no_batch(tmp_path, file, text, error, word):
    place = tmp_path / (file or "missing")
    if file:
        place.write_text(text)
    with pytest.raises(error, match=word):
        find_cases(place)
    assert word in run(place, "-o", tmp_path / "out", status=1).stderr
    assert not (tmp_path / "out").exists()


def test_settings_that_make_no_sense(folder, client):
    with pytest.raises(ParameterError, match="mask"):
        find_cases(folder / "images", mask="labels/seg.nii.gz")
    with pytest.raises(ParameterError, match="pattern"):
        find_cases(_list(folder), pattern="*.nii")
    with pytest.raises(ParameterError, match="workers"):
        BatchParams(workers=0)
    with pytest.raises(ParameterError, match="one of the two"):
        BatchParams(workers=1, scheduler="tcp://x:1")
    with pytest.raises(ParameterError, match="single fits"):
        fit(folder, client, FitParams(positions_every=1))
    (folder / "file").write_text("")
    with pytest.raises(FileError, match="is a file, not a folder"):
        fit_many([], folder / "file")
    (folder / "out").mkdir()
    (folder / "out/manifest.json").write_text("[]")
    with pytest.raises(FileError, match="manifest"):
        fit(folder, client)


def _list(folder):
    path = folder / "list.txt"
    path.write_text("images/a.nii.gz\n")
    return path


def test_nobody_at_the_scheduler(monkeypatch):
    monkeypatch.setattr("napari_medgs.batch.executors.CONNECT_SECONDS", 0.5)
    with pytest.raises(BackendError, match="answers"), dask_client("tcp://127.0.0.1:9"):
        pass
    with pytest.raises(ParameterError, match="address"), dask_client("no://such"):
        pass
    with pytest.raises(BackendError, match="no napari-medgs"):
        check_versions({"tcp://w": ""})


def test_plans_follow_cpus_and_memory(folder):
    cases = find_cases(folder / "images", pattern="[ab].nii.gz")
    giga = 2**30
    assert make_plan(cases * 4, QUICK, cpus=4, free=64 * giga, gpus=0) == Plan(4, 1)
    assert make_plan(cases[:1], QUICK, cpus=4, free=64 * giga, gpus=0).threads == 4
    assert make_plan(cases * 4, QUICK, cpus=16, free=giga // 2, gpus=0).workers == 1
    assert make_plan(cases * 4, QUICK, workers=3, cpus=9, free=giga, gpus=0).threads == 3
    assert make_plan(cases * 4, QUICK, cpus=16, free=64 * giga, gpus=2).workers == 2


def test_two_runs_in_one_folder_are_kept_apart(folder, client):
    errors = []

    def second(event):
        try:
            fit(folder, client)
        except FileError as error:
            errors.append(str(error))

    result = fit(folder, client, progress=second)
    assert len(result.done) == 2
    assert errors
    assert all("another run is writing here" in error for error in errors)
    assert fit(folder, client).skipped == ["a", "b"]


def test_left_overs_of_killed_processes_go(tmp_path):
    output = tmp_path / "a.b.medgs.safetensors"
    mine = tmp_path / ".a.b.medgs.safetensors.0123456789ab.tmp.medgs.safetensors"
    other = tmp_path / ".c.medgs.safetensors.0123456789ab.tmp.medgs.safetensors"
    for path in (output, mine, other):
        path.write_bytes(b"")
    remove_partial_files([output])
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == [other.name, output.name]


def test_fields_can_be_compressed(folder, client):
    batch = BatchParams(compress="small")
    result = fit(folder, client, batch=batch)
    assert sorted(result.done) == ["a", "b"]
    entry = json.loads((folder / "out/manifest.json").read_text())["cases"]["a"]
    assert entry["output"] == "a.medgs"
    assert entry["output_bytes"] == (folder / "out/a.medgs").stat().st_size
    assert entry["metrics"]["compression"]["profile"] == "small"
    assert load_field(folder / "out/a.medgs").info.metrics["psnr"] == pytest.approx(
        entry["metrics"]["psnr"], rel=1e-5
    )
    assert sorted(fit(folder, client, batch=batch).skipped) == ["a", "b"]
    assert sorted(fit(folder, client, batch=BatchParams(compress="exact")).done) == ["a", "b"]
    assert sorted(fit(folder, client).done) == ["a", "b"]  # beside them, as plain numbers
    assert (folder / "out/a.medgs.safetensors").exists()


def test_masks_beside_images_are_no_images(tmp_path):
    """A pattern alone can choose them."""
    names = ["a.nii.gz", "a_seg.nii.gz", "a-label.nrrd", "b.nii", "c_mask.nii.gz", "a_t2.nii.gz"]
    for name in names:
        (tmp_path / name).touch()
    assert [case.name for case in find_cases(tmp_path)] == ["a", "a_t2", "b", "c_mask"]
    assert [case.name for case in find_cases(tmp_path, pattern="*_seg*")] == ["a_seg"]
