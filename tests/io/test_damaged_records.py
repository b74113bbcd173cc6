"""Fields, sessions, manifests, models and sidecars that say something else than they should.

Whatever a file says, reading and using it ends well or in an error of the package.
"""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from napari_medgs._util.records import checked, parse_json
from napari_medgs.batch.manifest import FORMAT, FORMAT_VERSION, Manifest
from napari_medgs.cli.describe.field import describe_field
from napari_medgs.data.field import LIMITS, FieldInfo
from napari_medgs.data.grid import Grid
from napari_medgs.errors import FileError, MedGSError, ParameterError
from napari_medgs.io import read_label_names, write_image
from napari_medgs.io.fields import FORMAT as FIELD
from napari_medgs.io.fields import info_to_json, load_field, save_field
from napari_medgs.rendering import render, render_labels
from napari_medgs.segmentation import load_session
from tests.strategies import damaged
from tests.test_field import make_field

FUZZ = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
AFFINE = np.array([[0.1, 0.2, -0.7, 5], [0, -0.9, 0.1, 7], [3.3, 0, 0, 9], [0, 0, 0, 1]])
SOURCE = {
    "kind": "nifti", "order": [0, 1, 2], "flip": [False, False, False], "shape": [3, 6, 7],
    "affine": AFFINE.tolist(), "assumed": False, "dtype": "uint8", "names": ["a", "b", "c"],
    "header": {
        "version": 1, "dims": 3, "sform_code": 1, "qform_code": 0, "xyzt_units": 2,
        "quatern_b": 0.0, "quatern_c": 0.0, "quatern_d": 0.0, "qoffset_x": 0.0, "qoffset_y": 0.0,
        "qoffset_z": 0.0, "srow_x": AFFINE[0].tolist(), "srow_y": AFFINE[1].tolist(),
        "srow_z": AFFINE[2].tolist(), "pixdim": [1.0, 1, 1, 1, 0, 0, 0, 0],
    },
}  # fmt: skip


def small_field():
    field = make_field(12, (3, 6, 7), classes=2)
    return field.with_info(
        grid=Grid((3, 6, 7), AFFINE, SOURCE), params={"fold": 3}, metrics={"psnr": 31.5}
    )


@contextmanager
def only_our_errors():
    """Let errors of the package pass, if they are of one line that is not too long."""
    said = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MedGSError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1500


def write_field(path, field, info=None, **tensors):
    """Write a field without any of the writer's checks."""
    header = FIELD.header(info=info_to_json(field.info) if info is None else info)
    arrays = {name: getattr(field, name) for name in field.tensor_names()}
    path.write_bytes(save({**arrays, **tensors}, metadata=header))
    return path


def use_field(path, folder):
    """Read a field, and do with it what commands do; only the package's errors are allowed."""
    with only_our_errors():
        describe_field(path)
        field = load_field(path)
        if np.prod(field.info.grid.shape, dtype=float) > 1e5 or len(field.info.class_names) > 9:
            return
        image = render(field, backend="cpu")
        assert np.isfinite(image).all()
        render_labels(field, backend="cpu")
        write_image(folder / "out.nii.gz", image, field.info.grid)
        save_field(folder / "again.medgs.safetensors", field)


@settings(max_examples=250, **FUZZ)
@given(record=damaged(json.loads(info_to_json(small_field().info))))
def test_fields_whose_json_is_damaged(tmp_path, record):
    path = write_field(tmp_path / "f.medgs.safetensors", small_field(), json.dumps(record))
    use_field(path, tmp_path)


@settings(max_examples=120, **FUZZ)
@given(data=st.data())
def test_fields_whose_tensors_are_damaged(tmp_path, data):
    field = small_field()
    name = data.draw(st.sampled_from(field.tensor_names()))
    array = getattr(field, name).copy()
    change = data.draw(st.sampled_from(["scale", "set", "all", "cast", "shape"]))
    wild = data.draw(
        st.sampled_from([0.0, 1e4, -1e4, 1e6, 1e-30, 3e38, -3e38, np.nan, np.inf])
        | st.sampled_from([LIMITS[name], -LIMITS[name]])
    )
    if change == "scale":
        with np.errstate(over="ignore", invalid="ignore"):
            array *= np.float32(wild)
    elif change == "set":
        array.reshape(-1)[data.draw(st.integers(0, array.size - 1))] = wild
    elif change == "all":
        array[:] = wild
    elif change == "cast":
        array = array.astype(data.draw(st.sampled_from([np.int8, bool, np.float64, np.float16])))
    else:
        array = data.draw(st.sampled_from([array[:0], array[None], array[:-1], array.reshape(-1)]))
    array = np.ascontiguousarray(array)
    use_field(write_field(tmp_path / "f.medgs.safetensors", field, **{name: array}), tmp_path)


@settings(max_examples=120, **FUZZ)
@given(data=st.data())
def test_fields_whose_bytes_are_damaged(tmp_path, data):
    path = save_field(tmp_path / "f.medgs.safetensors", small_field())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 16))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    path.write_bytes(bytes(content[:cut]))
    use_field(path, tmp_path)


def test_what_is_wrong_with_a_field_is_named(tmp_path):
    field = small_field()
    good = json.loads(info_to_json(field.info))

    def said(**changes):
        text = changes.pop("text", None) or json.dumps({**good, **changes})
        path = write_field(tmp_path / "f.medgs.safetensors", field, text)
        with pytest.raises(FileError, match=r"f\.medgs\.safetensors") as caught:
            load_field(path)
        return str(caught.value)

    assert "degree must be a whole number, not 2.5" in said(degree=2.5)
    assert "cutoff must be above 0 and at most 10,000.0" in said(cutoff=1e308)
    assert "eps must be from 0 to 1,000,000.0" in said(eps=1e300)
    assert "intensity_scale must be a finite number" in said(intensity_scale=[float("nan")])
    assert "metrics must be an object" in said(metrics="x")
    assert "grid.shape must be a list of 3 entries" in said(grid={**good["grid"], "shape": [3, 4]})
    source = {**SOURCE, "affine": [[1.0]]}
    assert "grid.source.affine must be" in said(grid={**good["grid"], "source": source})
    source = {**SOURCE, "header": [1]}
    assert "grid.source.header must be" in said(grid={**good["grid"], "source": source})
    assert "nested too deeply" in said(text="[" * 100_000 + "]" * 100_000)
    assert "too many digits" in said(text='{"degree": ' + "1" * 5000 + "}")
    wide = np.full((len(field), 3), -1e4, np.float32)
    path = write_field(tmp_path / "f.medgs.safetensors", field, log_precision=wide)
    with pytest.raises(FileError, match="log_precision hold values beyond 40"):
        load_field(path)


def session_record(tmp_path):
    from napari_medgs.segmentation import Box, Point, Session, save_session
    from napari_medgs.segmentation.session.settings import Settings

    points = (Point((1.0, 2.0, 3.0), 1),)
    session = Session(Grid((4, 5, 6)), Settings(background=9, points=points), names={1: "liver"})
    session.paint(np.s_[1, 2, 3], 1)
    session.paint(np.s_[1, 4], 9)
    session.update_settings(boxes=(Box((0, 0, 0), (2, 3, 4), 1),), locked=frozenset({1}))
    session.set_initial(np.ones((4, 5, 6), np.int32))
    session.undo()
    return json.loads(save_session(session, tmp_path / "s.json").read_text())


@pytest.fixture(scope="module")
def good_session(tmp_path_factory):
    return session_record(tmp_path_factory.mktemp("session"))


@settings(max_examples=250, **FUZZ)
@given(data=st.data())
def test_sessions_whose_json_is_damaged(tmp_path, good_session, data):
    path = tmp_path / "s.json"
    path.write_text(json.dumps(data.draw(damaged(good_session))))
    with only_our_errors():
        session, _ = load_session(path)
        session.prompts().check(session.grid.shape)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("radius", float("nan"), "radius must be"),
        ("radius", 1e9, "radius must be"),
        ("position", [float("nan"), 1, 1], "position must be"),
        ("label", 10**30, "too many digits"),
        ("positive", "no", "positive must be true or false"),
    ],
)
def test_points_of_a_session_are_checked(tmp_path, good_session, key, value, message):
    record = json.loads(json.dumps(good_session))
    record["start"]["points"][0][key] = value
    path = tmp_path / "s.json"
    path.write_text(json.dumps(record))
    with pytest.raises(FileError, match=message):
        load_session(path)


def test_integers_of_5000_digits_and_deep_nesting_in_a_session(tmp_path):
    path = tmp_path / "s.json"
    for text in ('{"format": ' + "1" * 5000 + "}", "[" * 100_000, "\udcff"):
        path.write_text(text, errors="surrogateescape")
        with pytest.raises(FileError, match="not a session file"):
            load_session(path)


def test_seeds_of_a_session_are_numbers(tmp_path, good_session):
    record = json.loads(json.dumps(good_session))
    record["start"]["params"]["seed"] = "a"
    path = tmp_path / "s.json"
    path.write_text(json.dumps(record))
    with pytest.raises(FileError, match="seed must be"):
        load_session(path)


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("graph", "neighbors", "a", "graph.neighbors must be a whole number"),
        ("graph", "neighbors", 10**9, "neighbors must be from 1 to 64"),
        ("features", "coarse_sigmas", [1, None], "features.coarse_sigmas must be a finite number"),
        ("features", "guide_sigma", -1, "guide_sigma must be from 0 to 20"),
        ("graph", "speed", 1, "Unknown segmentation setting 'speed'"),
    ],
)
def test_hyper_parameters_of_a_session_are_checked(
    tmp_path, good_session, group, name, value, message
):
    record = json.loads(json.dumps(good_session))
    record["start"]["params"]["advanced"] = {group: {name: value}}
    path = tmp_path / "s.json"
    path.write_text(json.dumps(record))
    with pytest.raises(FileError, match=message):
        load_session(path)
    for wrong in (5, {"graph": 5}, [], {"extent_percentile": "a"}):
        record["start"]["params"]["advanced"] = wrong
        path.write_text(json.dumps(record))
        with pytest.raises(FileError, match="must be"):
            load_session(path)


MANIFEST = {
    "format": FORMAT,
    "format_version": FORMAT_VERSION,
    "counts": {"done": 1},
    "cases": {
        "a": {
            "status": "done",
            "images": ["a.nii"],
            "mask": None,
            "digest": "00",
            "settings": {"gaussians": 5},
            "metrics": {"psnr": 30.0, "seconds": 1.0},
            "output_bytes": 5,
            "stamps": [[1, 2, 3]],
        }
    },
}


@settings(max_examples=100, **FUZZ)
@given(record=damaged(MANIFEST))
def test_manifests_whose_json_is_damaged(tmp_path, record):
    from napari_medgs.io.cases import Case

    (tmp_path / "manifest.json").write_text(json.dumps(record))
    (tmp_path / "a.medgs.safetensors").write_bytes(b"12345")
    with only_our_errors():
        manifest = Manifest(tmp_path)
        manifest.finished(Case("a", ("a.nii",)), {"gaussians": 5})
        manifest.set(Case("b", ("b.nii",)), {"status": "failed", "error": "x"})
        manifest.save()
        Manifest(tmp_path)


def test_a_deeply_nested_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(FileError, match="move it away"):
        Manifest(tmp_path)


@settings(max_examples=50, **FUZZ)
@given(record=damaged({"labels": {"1": "liver", "2": "spleen"}}))
def test_damaged_label_names_are_a_warning(tmp_path, record):
    (tmp_path / "mask.json").write_text(json.dumps(record))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = read_label_names(tmp_path / "mask.nii.gz")
    assert all(isinstance(k, int) and isinstance(v, str) for k, v in names.items())
    "".join(names.values()).encode("utf-8")


def test_checked_refuses_what_only_looks_right():
    for hint, value in [
        (int, True), (int, "1"), (int, 2.5), (float, "1"), (float, 10**400), (float, True),
        (bool, 1), (str, 1), (tuple[int, int], [1]), (tuple[int, ...], "12"), (dict, []),
        (dict[str, str], {"a": 1}), (str, "\ud800"),
    ]:  # fmt: skip
        with pytest.raises(ParameterError, match=r"^it"):
            checked(hint, value, "it")
    assert checked(tuple[int, ...] | None, None, "it") is None
    assert checked(int, np.int64(3), "it") == 3
    assert checked(FieldInfo, {"grid": Grid((1, 2, 3)).to_dict()}, "it").grid.shape == (1, 2, 3)


def test_json_of_our_own_files_is_read_as_it_was(tmp_path):
    text = json.dumps({"a": [1, 2.5, None, True, "ü"], "b": {"c": [[1, 2], [3, 4]]}})
    assert parse_json(text) == json.loads(text)
    assert np.isnan(parse_json("[NaN, Infinity]")[0])
    path = save_field(tmp_path / "f.medgs.safetensors", small_field())
    assert load_field(path).info.grid.source == SOURCE
    assert set(load_file(path)) == set(small_field().tensor_names())
