"""Compressed fields: the same numbers everywhere, chunks by place, one sentence for damage."""

from __future__ import annotations

import hashlib
import io
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import napari_medgs as mg
from napari_medgs.errors import FileError, FormatVersionError, MedGSError, ParameterError
from napari_medgs.io.codec.cells import divide
from napari_medgs.io.codec.columns import CELL, Quantization, make_scheme, position_bits, quantize
from napari_medgs.io.codec.container import pack_record, read_header, unpack_record
from napari_medgs.io.codec.decoding import decode
from napari_medgs.io.codec.encoding import encode
from napari_medgs.io.codec.files import bytes_by_part, write_compressed
from napari_medgs.io.codec.symbols import read_chunk, write_chunk
from napari_medgs.io.fields import info_to_json, load_extra, load_field, save_field
from napari_medgs.rendering import render_stack
from tests.test_field import make_field

GOLDEN = Path(__file__).parent / "golden" / "field.medgs"


def same(first, second):
    for name in first.tensor_names():
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def chunks_of(data):
    """Whole numbers and bytes of every chunk of a compressed field, with all that codes them."""
    opened = io.BytesIO(data)
    header = read_header(opened, len(data))
    part = header.main
    for chunk in part.chunks:
        payload = opened.read(chunk.length)
        spent = np.zeros(len(part.scheme.columns) + 3, np.int64)
        classes = max(0, len(header.info.class_names) - 1)
        coded = (np.array(chunk.size), part.scheme, part.model)
        found = read_chunk(payload, chunk.count, *coded, classes, spent)
        yield found, payload, coded


def integers_of(data):
    """All whole numbers of a compressed field, as one array."""
    numbers = []
    for found, _, _ in chunks_of(data):
        numbers += [found.cells, found.fractions, found.columns, found.logits]
    return np.concatenate([array.reshape(-1) for array in numbers])


@given(
    count=st.integers(0, 60),
    classes=st.sampled_from([0, 2, 5]),
    axis=st.integers(0, 2),
    step=st.sampled_from([0.05, 0.5, 3.0]),
    degree=st.integers(0, 3),
    weights=st.booleans(),
    seed=st.integers(0, 5),
)
@settings(max_examples=25, deadline=None)
def test_what_was_encoded_comes_back(count, classes, axis, step, degree, weights, seed):
    field = make_field(count, classes=classes, slice_axis=axis, seed=seed)
    quantization = Quantization(step, degree, weights)
    encoded = encode(field, quantization)
    assert encode(field, quantization).data == encoded.data
    again = decode(encoded.data)
    same(again, encoded.field)
    assert len(again) == count
    assert again.info.degree == degree
    assert again.info.class_names == field.info.class_names
    assert again.info.slice_axis == axis
    assert sum(encoded.parts.values()) == pytest.approx(len(encoded.data), abs=16 + count)
    np.testing.assert_array_equal(again.background, field.background)


@pytest.mark.parametrize("step", [0.1, 1.0])
def test_parameters_are_at_most_half_a_step_away(step):
    field = make_field(500, (20, 40, 40), classes=3)
    quantization = Quantization(step)
    scheme = make_scheme(field, quantization)
    again = decode(encode(field, quantization).data)
    # Gaussians are sorted by place: each has its partner near by.
    steps = dict(zip(scheme.columns, scheme.steps, strict=True))
    order = [int(np.abs(again.centers - center).sum(axis=1).argmin()) for center in field.centers]
    if step < 1:
        assert sorted(order) == list(range(500))
    partners = again.subset(np.array(order))
    bits = position_bits(scheme, quantize(field, scheme).columns)
    assert (np.abs(partners.centers - field.centers) <= CELL / 2.0 ** (bits + 1) + 1e-5).all()
    for axis, name in enumerate(("log_r1", "log_r2", "log_rt")):
        error = np.abs(partners.log_precision - field.log_precision)[:, axis]
        assert error.max() <= steps[name] / 2 + 1e-5
    assert np.abs(partners.values - field.values)[:, 0].max() <= steps["value0"] / 2 + 1e-5
    assert np.abs(partners.log_weight - field.log_weight).max() <= steps["log_weight"] / 2 + 1e-5
    logits, found = (f.values[:, 1:] - f.values[:, 1:2] for f in (field, partners))
    assert np.abs(logits - found).max() <= scheme.logit_step / 2 + 1e-5


def test_fine_steps_hardly_change_the_image():
    field = make_field(800, (8, 40, 40))
    assert np.abs(mg.render(field) - mg.render(decode(encode(field).data))).max() < 0.05 * 200


def test_exact_form_keeps_bits_order_and_record(tmp_path):
    field = make_field(5000, (30, 60, 60), classes=2).with_info(metrics={"psnr": 1 / 3})
    path = write_compressed(tmp_path / "a.medgs", encode(field, exact=True).data)
    again = load_field(path)
    same(again, field)
    assert info_to_json(again.info) == info_to_json(field.info)
    assert path.stat().st_size < field.nbytes
    assert set(bytes_by_part(path)) == {"header", "parameters, exact"}


def test_golden_file_has_the_numbers_that_were_written():
    data = GOLDEN.read_bytes()
    numbers = integers_of(data)
    digest = hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest()
    assert digest == (GOLDEN.parent / "field.sha256").read_text().strip()
    assert len(load_field(GOLDEN)) == 700


def test_the_same_numbers_make_the_golden_bytes():
    for found, payload, coded in chunks_of(GOLDEN.read_bytes()):
        spent = np.zeros(found.columns.shape[1] + 3, np.int64)
        assert write_chunk(found, *coded, spent) == payload


def test_a_box_has_all_that_its_voxels_need():
    field = make_field(12000, (24, 60, 60), slice_axis=1)
    data = encode(field).data
    box = ((2, 5, 8), (9, 20, 30))
    part = decode(data, box=box)
    whole = decode(data)
    assert 0 < len(part) < len(whole)
    view = np.s_[2:9, 5:20, 8:30]
    np.testing.assert_allclose(
        mg.render(part)[0][view], mg.render(whole)[0][view], rtol=1e-4, atol=1e-3
    )


def test_chunks_elsewhere_are_not_read():
    field = make_field(12000, (24, 60, 60))
    data = bytearray(encode(field).data)
    header = read_header(io.BytesIO(bytes(data)), len(data))
    assert len(header.main.chunks) >= 3
    box = ((0, 0, 0), (2, 3, 3))
    wanted = decode(bytes(data), box=box)
    far = max(range(len(header.main.chunks)), key=lambda k: min(header.main.chunks[k].low))
    place = header.offset(False) + sum(chunk.length for chunk in header.main.chunks[:far])
    data[place + 5] ^= 255
    same(decode(bytes(data), box=box), wanted)
    with pytest.raises(ValueError, match="checksum of a chunk"):
        decode(bytes(data))


def test_box_of_an_exact_file(tmp_path):
    field = make_field(300, (24, 60, 60), slice_axis=2)
    path = save_field(tmp_path / "a.medgs.safetensors", field)
    box = ((2, 5, 8), (9, 20, 30))
    part = load_field(path, box=box)
    same(part, decode(encode(field, exact=True).data, box=box))
    view = np.s_[2:9, 5:20, 8:30]
    np.testing.assert_allclose(
        mg.render(part)[0][view], mg.render(field)[0][view], rtol=1e-4, atol=1e-3
    )


def test_wrong_boxes_are_refused():
    data = encode(make_field(20)).data
    for box in (((0, 0), (1, 1)), ((0, 0, 0), (0, 5, 5)), ((5, 5, 5), (1, 1, 1))):
        with pytest.raises(ParameterError, match="first and a last corner"):
            decode(data, box=box)


def test_preview_comes_first(tmp_path):
    field, small = make_field(5000, (20, 60, 60)), make_field(200, (20, 60, 60), seed=9)
    encoded = encode(field, preview=small)
    path = write_compressed(tmp_path / "a.medgs", encoded.data)
    assert len(load_field(path, preview=True)) == 200
    assert len(load_field(path)) == 5000
    same(load_field(path, preview=True), encode(small).field)
    parts = bytes_by_part(path)
    assert list(parts)[:2] == ["header", "preview"]
    assert parts["preview"] == encoded.parts["preview"]
    save_field(path, field)
    with pytest.raises(FileError, match="holds no preview"):
        load_field(path, preview=True)
    with pytest.raises(ParameterError, match="other channels"):
        encode(field, preview=make_field(20, classes=2))


def test_many_classes_and_contrasts():
    rng = np.random.default_rng(0)
    field = make_field(400, (10, 30, 30), classes=60)
    field.values[:, 1:] = 0
    field.values[np.arange(400), 1 + rng.integers(0, 60, 400)] = 8
    encoded = encode(field)
    np.testing.assert_array_equal(
        mg.render_labels(encoded.field) >= 0, mg.render_labels(field) >= 0
    )
    assert encoded.parts["class scores"] < 400 * 3
    values = np.concatenate([field.values, rng.random((400, 2))], axis=1)[:, [0, -1, -2]]
    several = mg.GaussianField(
        **{name: getattr(field, name) for name in field.tensor_names()[:5]},
        values=values,
        background=np.zeros(3),
        info=replace(
            make_field(1).info,
            image_channels=("a", "b", "c"),
            intensity_scale=(1.0,) * 3,
            intensity_offset=(0.0,) * 3,
        ),
    )
    assert decode(encode(several).data).info.image_channels == ("a", "b", "c")


def test_a_single_slice_and_one_gaussian():
    for count in (0, 1, 40):
        field = make_field(count, (1, 20, 24))
        field.centers[:, 2] = 0
        field.log_precision[:, 2] = 0.5
        again = decode(encode(field, Quantization(0.5)).data)
        assert (again.centers[:, 2] == 0).all()
        assert (again.log_precision[:, 2] == 0.5).all()


def test_wild_numbers_are_stored_or_refused():
    field = make_field(50)
    field.centers[0], field.values[0], field.log_precision[1] = 9e5, 3e4, 12
    again = decode(encode(field).data)
    assert np.abs(again.centers).max() > 8.9e5
    field = make_field(500)
    field.values[0] = 1e14
    with pytest.raises(ParameterError, match="coarser step"):
        encode(field, Quantization(0.01))
    with pytest.raises(ParameterError, match="step must be"):
        Quantization(0.0)


def test_groups_are_compact_and_of_bounded_size():
    cells = np.random.default_rng(0).integers(0, 50, (10_000, 3))
    groups = divide(cells, 4096)
    assert sorted(np.concatenate(groups)) == list(range(10_000))
    assert all(1250 <= len(rows) <= 4096 for rows in groups)


def write(tmp_path, content):
    path = tmp_path / "a.medgs"
    path.write_bytes(content)
    return path


def test_damage_is_one_error(tmp_path):
    data = encode(make_field(200, classes=2)).data
    rng = np.random.default_rng(0)
    for cut in (1, 7, 17, 60, len(data) // 2, len(data) - 1):
        with pytest.raises(FileError, match=r"a\.medgs: "):
            load_field(write(tmp_path, data[:cut]))
    with pytest.raises(FileError, match="promises"):
        load_field(write(tmp_path, data + b"more"))
    with pytest.raises(FileError, match="not a compressed field"):
        load_field(write(tmp_path, b"\x89PNG" + data))
    for _ in range(200):
        changed = bytearray(data)
        changed[int(rng.integers(8, len(data)))] ^= 1 << int(rng.integers(8))
        with pytest.raises(FileError, match=r"a\.medgs: "):
            load_field(write(tmp_path, bytes(changed)))


def test_other_versions_and_forms_are_refused(tmp_path):
    data = bytearray(encode(make_field(20)).data)
    data[8:10] = (7).to_bytes(2, "little")
    with pytest.raises(FormatVersionError, match=r"a\.medgs.*version 7.*Update"):
        load_field(write(tmp_path, bytes(data)))
    changed = hostile(lambda main: main.update(form="neural"))
    with pytest.raises(FileError, match="unknown form, 'neural'"):
        load_field(write(tmp_path, changed))


def hostile(change):
    """A file whose header says something else, with fitting checksums."""
    data = encode(make_field(200, classes=2)).data
    record, length = unpack_record(io.BytesIO(data), len(data))
    change(record["main"])
    return pack_record(record) + data[length:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda main: main.update(gaussians=2**31), "another number of Gaussians"),
        (lambda main: main["chunks"][0].__setitem__(0, 4000), "number of Gaussians"),
        (lambda main: main["chunks"][0].__setitem__(0, 2**40), "impossible number"),
        (lambda main: main["chunks"][0].__setitem__(1, 2**50), "promises"),
        (lambda main: main["chunks"][0].__setitem__(6, 2**40), "box of a chunk"),
        (lambda main: main["chunks"][0].__setitem__(6, 0), "box of a chunk"),
        (lambda main: main["chunks"].append([1]), "wrong length"),
        (lambda main: main["scheme"]["steps"].__setitem__(0, 0.0), "make no sense"),
        (lambda main: main["scheme"]["steps"].__setitem__(0, 1e20), "smaller or larger"),
        (lambda main: main["scheme"]["columns"].__setitem__(0, "log_r2"), "named twice"),
        (lambda main: main["scheme"]["columns"].pop(), "missing"),
        (lambda main: main["coefficients"][0].__setitem__(0, 2**60), "out of range"),
        (lambda main: main["coefficients"].pop(), "wrong size"),
        (lambda main: main["starts"].__setitem__(0, [0, 0]), "chances out of range"),
        (lambda main: main.pop("background"), "background"),
    ],
)
def test_hostile_headers_are_refused_before_memory_is_taken(tmp_path, change, words):
    with pytest.raises(FileError, match=words):
        load_field(write(tmp_path, hostile(change)))


def test_a_header_that_inflates_without_end_is_refused(tmp_path):
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(b" " * (70 * 2**20)) + packer.flush()
    start = encode(make_field(3)).data[:10]
    content = start + len(packed).to_bytes(4, "little") + zlib.crc32(packed).to_bytes(4, "little")
    with pytest.raises(FileError, match="larger than it can be"):
        load_field(write(tmp_path, content + packed))


def test_names_and_trees(tmp_path):
    field = make_field(30)
    with pytest.raises(FileError, match=r"must end in \.medgs"):
        write_compressed(tmp_path / "a.bin", encode(field).data)
    with pytest.raises(FileError, match="holds no tree of parts"):
        save_field(tmp_path / "a.medgs", field, extra={"tree.x": np.zeros(3)})
    with pytest.raises(FileError, match="only compressed fields"):
        load_field(save_field(tmp_path / "a.medgs.safetensors", field), preview=True)
    path = save_field(tmp_path / "A.MEDGS", field)
    assert load_extra(path, "tree") == ({}, {})
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    with pytest.raises(FileError, match="no such file"):
        load_field(tmp_path / "missing.medgs")


def test_a_field_with_a_tree_loses_it_with_a_sentence(tmp_path):
    from napari_medgs.hierarchy import has_tree, load_tree

    path = save_field(tmp_path / "a.medgs", make_field(30))
    assert not has_tree(path)
    with pytest.raises(MedGSError, match="holds no tree of parts"):
        load_tree(path)


def test_random_access_is_by_voxels_of_the_canonical_grid():
    field = make_field(3000, (30, 40, 50), slice_axis=2)
    part = decode(encode(field, exact=True).data, box=((0, 0, 0), (5, 40, 50)))
    assert part.voxel_centers()[:, 0].max() < 25
    stack = render_stack(part)
    assert stack.shape[1:] == (50, 30, 40)
