"""Learned codecs: what they code, keep, refuse; their files and commands."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import napari_medgs as mg
from napari_medgs.cli.app import app
from napari_medgs.compression.learned import (
    CodecParams,
    fit_alike,
    load_codec,
    mean_field,
    save_codec,
    train_codec,
)
from napari_medgs.compression.learned.entropy import (
    bits_of,
    frequencies_of,
    read_latents,
    write_latents,
)
from napari_medgs.compression.learned.files import load_coded, save_coded
from napari_medgs.compression.learned.table import from_ellipses, to_ellipses
from napari_medgs.errors import FileError, GeometryError, ParameterError
from napari_medgs.rendering.parameters import to_parameters

torch = pytest.importorskip("torch")


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def images(count=20, size=16):
    """Return ellipses of two kinds, dark and bright, at random places."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] - size / 2
    found = []
    for k in range(count):
        a, b = random.uniform(-2, 2, 2)
        wide = 2 + 2 * (k % 2)
        inside = np.exp(-(((x - a) / wide) ** 2 + ((y - b) / 3) ** 2))
        found.append(np.round(255 * inside * (0.5 + 0.5 * (k % 2))).astype(np.uint8))
    return np.stack(found)


@pytest.fixture(scope="module")
def cohort():
    volumes = [mg.Volume.from_array(i[None]) for i in images()]
    start = mean_field(volumes, 16, 20, threads=1)
    return volumes, start, fit_alike(volumes, start, 20, threads=1)


@pytest.fixture(scope="module")
def fixed(cohort):
    params = CodecParams(block=16, latents=8, steps=60, threads=1)
    return train_codec(cohort[2], params, start=cohort[1])


def test_fits_made_for_learning_keep_the_order(cohort):
    volumes, start, fields = cohort
    free = mg.fit(volumes[0], mg.FitParams(gaussians=16, iterations=20, threads=1)).field
    moved = [np.abs(f.centers - start.centers).mean() for f in fields]
    assert max(moved) < np.abs(free.centers - start.centers).mean()
    assert min(f.info.metrics["psnr"] for f in fields) > 20
    with pytest.raises(GeometryError, match="one shape"):
        fit_alike([mg.Volume.from_array(np.eye(9)[None])], start)
    with pytest.raises(GeometryError, match="one shape"):
        mean_field([*volumes, mg.Volume.from_array(np.eye(9)[None])])


def test_a_codec_is_better_than_the_mean_and_costs_what_it_says(cohort, fixed):
    fields = cohort[2]
    measured = fixed.card.metrics
    mean = np.mean([mg.render(f) for f in fields], axis=0)
    error = np.mean([np.mean((mg.render(f) - mean) ** 2) for f in fields[4::5]]) / 255**2
    assert measured["psnr_to_field"] > 1 - 10 * np.log10(error)
    assert measured["bytes"] < 20
    assert abs(8 * measured["bytes"] - measured["bits"]) < 10
    data = fixed.compress(fields[0])
    assert data == fixed.compress(fields[0])
    back = fixed.decompress(data, len(fields[0]), fields[0].info, fields[0].background)
    np.testing.assert_array_equal(back.centers, fixed.restored(fields[0]).centers)


def test_latents_tell_kinds_of_images_apart(cohort, fixed):
    from sklearn.linear_model import LogisticRegression

    features = fixed.features(cohort[2])
    kind = np.arange(20) % 2
    assert features.shape == (20, 8)
    found = LogisticRegression(C=0.1).fit(features[:12], kind[:12])
    assert found.score(features[12:], kind[12:]) > 0.8


def test_published_networks_have_their_sizes_and_learn_positions(cohort):
    fields = cohort[2]
    params = CodecParams("conv1d", published=True, block=32, latents=28, steps=40, threads=1)
    codec = train_codec(fields, params)
    assert 1.5e6 < codec.card.weights < 1.8e6
    explained = codec.card.metrics["explained"]
    assert {"log s1", "angle", "log s2"} <= set(explained)
    assert explained["y"] > explained["angle"]
    from napari_medgs.compression.learned.networks import make_network

    large = make_network(replace(codec.card, network="resnet"))
    assert 15e6 < sum(p.numel() for p in large.parameters()) < 17e6


def test_volumes_in_local_blocks():
    random = np.random.default_rng(1)
    place = np.mgrid[:6, :12, :12]
    fields = []
    for _ in range(5):
        away = ((place - random.uniform(2, 9, 3)[:, None, None, None]) ** 2).sum(0)
        volume = mg.Volume.from_array(np.exp(-away / 9).astype(np.float32))
        count = int(random.integers(30, 60))
        fields.append(mg.fit(volume, mg.FitParams(gaussians=count, iterations=10)).field)
    codec = train_codec(fields, CodecParams(block=16, latents=16, steps=10, threads=1))
    assert codec.card.local
    back = codec.restored(fields[0])
    assert len(back) == len(fields[0])
    order = fields[0].morton_order()
    # Blocks lie where they were, whatever the network has learned.
    middles = [f.reshape(-1, 3).mean(0) for f in (fields[0].centers[order][:16],)]
    np.testing.assert_allclose(back.centers[:16].mean(0), middles[0], atol=4)
    assert codec.features(fields).shape == (5, 32)


def test_ellipses_and_back(cohort):
    for field in cohort[2]:
        table = to_parameters(field)
        there = to_ellipses(table)
        assert (there[:, 3] >= there[:, 5] - 1e-5).all()
        back = from_ellipses(torch.from_numpy(there).double()).numpy()
        np.testing.assert_allclose(back, table, atol=2e-3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(-32, 31), min_size=3, max_size=3), min_size=1, max_size=6))
def test_latents_come_back(rows):
    whole = np.array(rows)
    tables = frequencies_of(np.zeros((9, 3), np.int64))
    centers = np.abs(whole) * 100
    data = write_latents(whole, tables, centers, 12)
    back, places = read_latents(data, len(rows), tables, 12)
    np.testing.assert_array_equal(back, whole)
    np.testing.assert_array_equal(places, centers)
    needed = bits_of(whole, tables).sum() + 36 * len(rows)
    assert 8 * len(data) < needed * 1.01 + 16


def test_latents_of_wrong_length():
    whole = np.random.default_rng(0).integers(-9, 9, (50, 4))
    tables = frequencies_of(whole)
    data = write_latents(whole, tables)
    with pytest.raises(ParameterError, match="follow"):
        read_latents(data + b"\x01" * 20, 50, tables)
    with pytest.raises(ParameterError, match="too early"):
        read_latents(data[:20], 50, tables)
    with pytest.raises(ParameterError, match="too early"):
        read_latents(data, 10**9, tables)


def test_files(cohort, fixed, tmp_path):
    path, coded = tmp_path / "c.safetensors", tmp_path / "a.latents.safetensors"
    save_codec(path, fixed)
    codec = load_codec(path)
    field = cohort[2][0]
    size = save_coded(coded, field, codec)
    assert 0 < size < 40
    back = load_coded(coded, codec)
    np.testing.assert_array_equal(back.values, fixed.restored(field).values)
    assert back.info.intensity_scale == field.info.intensity_scale
    other = train_codec(cohort[2], CodecParams(block=16, latents=8, steps=1), start=cohort[1])
    with pytest.raises(FileError, match="another codec"):
        load_coded(coded, other)
    with pytest.raises(FileError, match="must end in"):
        save_coded(tmp_path / "a.bin", field, codec)
    with pytest.raises(FileError, match="must end in"):
        save_codec(tmp_path / "a.bin", codec)
    with pytest.raises(FileError, match="is a codec, not a field"):
        mg.load_field(path)
    with pytest.raises(FileError, match="not a codec"):
        load_codec(coded)


def test_damaged_files_are_refused(cohort, fixed, tmp_path):
    path, coded = tmp_path / "c.safetensors", tmp_path / "a.latents.safetensors"
    save_codec(path, fixed)
    save_coded(coded, cohort[2][0], fixed)
    random = np.random.default_rng(0)
    for file, load in ((path, load_codec), (coded, lambda p: load_coded(p, fixed))):
        good = file.read_bytes()
        head = int.from_bytes(good[:8], "little") + 8
        for k in range(60):
            bad = bytearray(good[: random.integers(1, len(good))] if k % 3 == 0 else good)
            for place in random.integers(0, min(head, len(bad)), 0 if k % 3 == 0 else 2):
                bad[place] = random.integers(256)
            file.write_bytes(bytes(bad))
            with suppress(mg.MedGSError):
                load(file)
        file.write_bytes(good)
    good = coded.read_bytes()
    for place in range(1, 12):  # latents, and the background's value
        bad = bytearray(good)
        bad[-place] ^= 5
        coded.write_bytes(bytes(bad))
        with pytest.raises(FileError, match="damaged"):
            load_coded(coded, fixed)


def test_what_cannot_be_learned(cohort, fixed):
    volumes, start, fields = cohort
    with pytest.raises(ParameterError, match="at least 4"):
        train_codec(fields[:3])
    with pytest.raises(ParameterError, match="fixed order"):
        fixed.check(mg.fit(volumes[0], mg.FitParams(gaussians=20, iterations=1)).field)
    with pytest.raises(ParameterError, match="multiple of 8"):
        CodecParams(block=12)
    with pytest.raises(ParameterError, match="multiple of 4"):
        CodecParams(block=16, latents=6)
    with pytest.raises(ParameterError, match="conv1d"):
        CodecParams(published=True)
    with pytest.raises(ParameterError, match="leave out the loss"):
        CodecParams("conv1d", published=True, loss="render")
    with pytest.raises(ParameterError, match="holds"):
        train_codec(fields, CodecParams(block=8, latents=8), start=start)
    stops = iter([False, True])
    with pytest.raises(mg.errors.Cancelled):
        train_codec(fields, start=start, should_stop=lambda: next(stops, True))


def test_threads_are_those_of_pytorch_too(cohort):
    import torch

    before, seen = torch.get_num_threads(), set()

    def stop():
        seen.add(torch.get_num_threads())
        return 3 in seen

    with pytest.raises(mg.errors.Cancelled):
        train_codec(cohort[2], CodecParams(threads=3), start=cohort[1], should_stop=stop)
    assert torch.get_num_threads() == before != 3


def test_commands(tmp_path):
    stack = images()
    splits = {f"{s}_images": stack for s in ("train", "val", "test")}
    labels = {f"{s}_labels": np.arange(20)[:, None] % 2 for s in ("train", "val", "test")}
    np.savez(tmp_path / "mine.npz", **splits, **labels)
    codec, coded = tmp_path / "codec.safetensors", tmp_path / "a.latents.safetensors"
    text = run(
        "train-codec", tmp_path / "mine.npz", "-o", codec, "--gaussians", 16, "--block", 16,
        "--latents", 8, "--steps", 20, "--iterations", 10, "--json", tmp_path / "n.json",
    )  # fmt: skip
    assert "kept out" in text
    assert json.loads((tmp_path / "n.json").read_text())["training"]["fields"] == 20
    text = run("info", codec)
    assert "loss: render" in text
    assert "shear" in text
    text = run("compress", f"{tmp_path / 'mine.npz'}:test:3", "--model", codec, "-o", coded)
    assert "PSNR to the field" in text
    field = tmp_path / "a.medgs.safetensors"
    run("decompress", coded, "--model", codec, "-o", field)
    assert 10 < len(mg.load_field(field)) <= 16
    run("compress", field, "--model", codec, "-o", coded, "-q")
    assert "no preview" in run(
        "decompress", coded, "--model", codec, "-o", field, "--preview", code=1
    )
    text = run("train-codec", tmp_path / "none", "-o", codec, code=1)
    assert "no folder" in text
    folder = tmp_path / "fields"
    folder.mkdir()
    for k in range(4):
        mg.save_field(folder / f"{k}.medgs.safetensors", mg.load_field(field))
    text = run("train-codec", folder, "-o", codec, "--steps", 2, "--network", "conv1d")
    assert "Morton order" in text
