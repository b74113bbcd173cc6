"""Cohorts: many fields in one file, each of which comes back bit for bit."""

from __future__ import annotations

import copy
import io
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs.cli.app import app
from napari_medgs.compression import CompressParams, pack, unpack
from napari_medgs.errors import (
    Cancelled,
    FileError,
    FormatVersionError,
    MedGSError,
    ParameterError,
)
from napari_medgs.io.codec.archive import MAGIC, FieldArchive, check_name
from napari_medgs.io.codec.archive_writer import write_archive
from napari_medgs.io.codec.columns import Quantization
from napari_medgs.io.codec.container import pack_record, unpack_record
from napari_medgs.io.codec.encoding import encode
from tests.test_field import make_field


def contents():
    """Files of several kinds: alike, with classes, exact, and empty."""
    files = {f"case {k}": encode(make_field(300 + 40 * k, seed=k)).data for k in range(5)}
    files["other step"] = encode(make_field(80), Quantization(2.0, 1, weights=False)).data
    files["classes"] = encode(make_field(90, classes=4)).data
    files["exact"] = encode(make_field(60), exact=True).data
    files["empty"] = encode(make_field(0)).data
    return files


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    files = contents()
    return write_archive(tmp_path_factory.mktemp("cohort") / "a.medgsz", files), files


def test_fields_come_back_bit_for_bit_in_any_order(cohort):
    path, files = cohort
    assert FieldArchive(path).names == tuple(sorted(files))
    for name in ("case 4", "exact", "case 0", "classes", "other step", "case 2", "empty"):
        archive = FieldArchive(path)
        assert archive.extract(name) == files[name]
        wanted = mg.decompress(files[name])
        for tensor in wanted.tensor_names():
            np.testing.assert_array_equal(
                getattr(archive.load(name), tensor), getattr(wanted, tensor)
            )


def test_shared_tables_make_it_smaller(cohort):
    path, files = cohort
    assert path.stat().st_size < 0.95 * sum(map(len, files.values()))
    archive = FieldArchive(path)
    assert sum(archive.sizes().values()) + archive.header_bytes == path.stat().st_size
    assert archive.gaussians()["case 1"] == 340


def test_the_same_fields_make_the_same_file(cohort, tmp_path):
    path, files = cohort
    again = write_archive(tmp_path / "b.medgsz", dict(reversed(files.items())))
    assert again.read_bytes() == path.read_bytes()


def test_a_box_of_one_field(cohort):
    path, files = cohort
    box = ((0, 0, 0), (3, 6, 6))
    part = FieldArchive(path).load("case 3", box=box)
    assert 0 < len(part) < 420
    np.testing.assert_array_equal(
        part.centers, mg.decompress(files["case 3"]).centers[_within(files["case 3"], box)]
    )


def _within(data, box):
    from napari_medgs.io.codec.region import in_stack, within

    field = mg.decompress(data)
    return within(field, in_stack(box, field.info))


def test_names_that_are_not_there(cohort):
    path, _ = cohort
    with pytest.raises(FileError, match="holds no field 'case 9'; it has case 0, case 1"):
        FieldArchive(path).load("case 9")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../up",
        "a/b",
        "a\\b",
        "C:x",
        "nul",
        "CON.txt",
        "a\nb",
        " a",
        "a.",
        "x" * 300,
    ],
)
def test_unsafe_names_are_refused(name, tmp_path):
    with pytest.raises(ParameterError, match="no safe name"):
        check_name(name)
    with pytest.raises(ParameterError, match="no safe name"):
        write_archive(tmp_path / "a.medgsz", {name: encode(make_field(3)).data})


def rewritten(path, change, tmp_path):
    data = path.read_bytes()
    record, length = unpack_record(io.BytesIO(data), len(data), MAGIC)
    change(record)
    made = tmp_path / "b.medgsz"
    made.write_bytes(pack_record(record, MAGIC) + data[length:])
    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["fields"][0].update(name="../../etc/passwd"),
        lambda r: r["fields"][0].update(name=r["fields"][1]["name"].upper()),
        lambda r: r["fields"][0].update(bytes=2**50),
        lambda r: r["fields"][0].update(bytes=-5),
        lambda r: r["fields"][0].update(group=99),
        lambda r: r["fields"][0].update(scheme=-1),
        lambda r: r["groups"][0].update(primer="nobody"),
        lambda r: r["groups"][0].update(primer="exact"),
        lambda r: r["groups"][0].update(coefficients=[[0]]),
        lambda r: r.update(fields=3),
        lambda r: r.pop("schemes"),
    ],
)
def test_hostile_directories_are_refused(cohort, tmp_path, change):
    path, _ = cohort
    made = rewritten(path, change, tmp_path)
    with pytest.raises(FileError, match=r"b\.medgsz: "):
        FieldArchive(made).load("case 0")


def extract_all(path, names):
    archive = FieldArchive(path)
    for name in names:
        archive.extract(name)


def test_damage_is_one_error(cohort, tmp_path):
    path, files = cohort
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    made = tmp_path / "b.medgsz"
    for k in range(25):
        changed = bytearray(data)
        changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        made.write_bytes(bytes(changed) if k % 5 else data[: int(rng.integers(len(data)))])
        with pytest.raises(MedGSError, match=r"b\.medgsz"):
            extract_all(made, files)
    made.write_bytes(data[:8] + b"\x09\x00" + data[10:])
    with pytest.raises(FormatVersionError, match="cohort of fields version 9"):
        FieldArchive(made)
    made.write_bytes(files["case 0"])
    with pytest.raises(FileError, match="not a cohort of fields"):
        FieldArchive(made)


def folder_of(tmp_path):
    folder = tmp_path / "fields"
    folder.mkdir()
    for name in ("case 0", "case 1"):
        (folder / f"{name}.medgs").write_bytes(contents()[name])
    mg.save_field(folder / "plain.medgs.safetensors", make_field(50))
    (folder / "notes.txt").write_text("no field")
    return folder


def test_pack_and_unpack(tmp_path):
    folder = folder_of(tmp_path)
    events = []
    path = pack(
        folder, tmp_path / "c.medgsz", CompressParams(iterations=0), progress=events.append
    )
    assert events[-1].done == events[-1].total == 3
    assert FieldArchive(path).names == ("case 0", "case 1", "plain")
    made = unpack(path, tmp_path / "out")
    assert [p.name for p in made] == ["case 0.medgs", "case 1.medgs", "plain.medgs"]
    assert made[0].read_bytes() == (folder / "case 0.medgs").read_bytes()
    (exact,) = unpack(path, tmp_path / "exact", ["plain"], exact=True)
    assert exact.name == "plain.medgs.safetensors"
    with pytest.raises(FileError, match="exists already"):
        unpack(path, tmp_path / "out")
    with pytest.raises(FileError, match="no field 'x'"):
        unpack(path, tmp_path / "new", ["x"])
    with pytest.raises(Cancelled, match="nothing was written"):
        pack(folder, tmp_path / "d.medgsz", should_stop=lambda: True)
    assert not (tmp_path / "d.medgsz").exists()


def test_folders_that_cannot_be_packed(tmp_path):
    folder = folder_of(tmp_path)
    mg.save_field(folder / "case 0.medgs.safetensors", make_field(5))
    with pytest.raises(FileError, match="has the name of"):
        pack(folder, tmp_path / "c.medgsz")
    with pytest.raises(FileError, match="is no folder"):
        pack(tmp_path / "missing", tmp_path / "c.medgsz")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(FileError, match="holds no fields"):
        pack(empty, tmp_path / "c.medgsz")
    with pytest.raises(FileError, match=r"must end in \.medgsz"):
        pack(folder, tmp_path / "c.zip")
    (empty / "bad.medgs").write_bytes(b"something else")
    with pytest.raises(FileError, match="bad: damaged"):
        pack(empty, tmp_path / "c.medgsz")


def test_commands(tmp_path):
    folder, out = folder_of(tmp_path), tmp_path / "c.medgsz"

    def run(*words, code=0):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result.output

    numbers = tmp_path / "n.json"
    assert "3 fields" in run("pack", folder, "-o", out, "--iterations", 0, "--json", numbers)
    assert json.loads(numbers.read_text())["bytes"] == out.stat().st_size
    assert "case 1" in run("info", out)
    run("unpack", out, "-o", tmp_path / "some", "--name", "case 1")
    assert [p.name for p in (tmp_path / "some").iterdir()] == ["case 1.medgs"]
    assert "exists already" in run("unpack", out, "-o", tmp_path / "some", code=1)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A folder of small fields and a codec that has learned from them, in a file."""
    pytest.importorskip("torch")
    from napari_medgs.compression.learned import CodecParams, train_codec
    from napari_medgs.compression.learned.files import save_codec

    place = tmp_path_factory.mktemp("learned")
    (place / "fields").mkdir()
    fields = [make_field(40 + k, seed=k) for k in range(5)]
    for k, field in enumerate(fields):
        mg.save_field(place / f"fields/case {k}.medgs.safetensors", field)
    codec = train_codec(fields, CodecParams(block=16, latents=4, steps=2, threads=1))
    save_codec(place / "codec.safetensors", codec)
    return place, codec, fields


def test_fields_of_a_learned_codec_in_one_file(learned, tmp_path):
    place, codec, fields = learned
    out = tmp_path / "c.medgsz"

    def run(*words, code=0):
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result.output

    model = ("--model", place / "codec.safetensors")
    run("pack", place / "fields", "-o", out, *model)
    latents = sum(len(codec.compress(field)) for field in fields)
    archive = FieldArchive(out)
    assert out.stat().st_size == latents + archive.header_bytes
    assert archive.gaussians()["case 3"] == 43
    assert "case 3" in run("info", out)
    run("unpack", out, "-o", tmp_path / "one", "--name", "case 3", *model)
    (made,) = (tmp_path / "one").iterdir()
    wanted = codec.restored(fields[3])
    for tensor in wanted.tensor_names():
        np.testing.assert_array_equal(
            getattr(mg.load_field(made), tensor), getattr(wanted, tensor)
        )
    assert "unpack --model" in run("unpack", out, "-o", tmp_path / "none", code=1)
    assert "exists already" in run("unpack", out, "-o", tmp_path / "one", *model, code=1)


def test_another_codec_and_damage_are_refused(learned, cohort, tmp_path):
    from napari_medgs.compression.learned.cohort import pack_coded, unpack_coded

    place, codec, _ = learned
    other = copy.deepcopy(codec)
    other.model.scale.mul_(2)
    path = pack_coded(place / "fields", tmp_path / "c.medgsz", codec)
    with pytest.raises(FileError, match="another codec wrote it"):
        unpack_coded(path, tmp_path / "out", other)
    with pytest.raises(FileError, match="no learned codec wrote it"):
        unpack_coded(cohort[0], tmp_path / "out", codec)
    with pytest.raises(FileError, match="no learned codec has coded 'exact'"):
        FieldArchive(cohort[0]).coded("exact")
    data = path.read_bytes()
    assert data[8:10] == b"\x02\x00"  # earlier versions of the package refuse it
    rng = np.random.default_rng(0)
    made = tmp_path / "b.medgsz"
    for k in range(30):
        changed = bytearray(data)
        changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        made.write_bytes(bytes(changed) if k % 5 else data[: int(rng.integers(len(data)))])
        with pytest.raises(MedGSError, match=r"b\.medgsz"):
            unpack_coded(made, tmp_path / f"out{k}", codec)
    for number in (0, -1, 2**40):
        changed = rewritten_as(path, 2, lambda r, n=number: r["fields"][0].update(gaussians=n))
        made.write_bytes(changed)
        with pytest.raises(FileError, match="impossible number"):
            FieldArchive(made)


def rewritten_as(path, version, change):
    data = path.read_bytes()
    record, length = unpack_record(io.BytesIO(data), len(data), MAGIC, versions=(version,))
    change(record)
    return pack_record(record, MAGIC, version) + data[length:]
