"""The paths under /v1: several classes, sizes, uncertainty, surfaces, saved sessions."""

from __future__ import annotations

import io
import json
import time
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
import trimesh
from nnInteractive.inference.remote.serialization import pack_array, unpack_array
from scipy.ndimage import label

from napari_medgs.errors import ImageError
from napari_medgs.server.app import Server
from napari_medgs.server.settings import ServerSettings
from tests.learning.cases import phantom, write_nnunet
from tests.server.conftest import SHAPE, make_image


@pytest.fixture
def http(client) -> httpx.Client:
    """The client's own connection, its lease included."""
    return client._http


def test_progress_until_ready(connect):
    http = connect()._http
    assert http.get("/v1/progress").json()["stage"] == "none"
    client = connect(make_image())
    client.add_point_interaction((6, 12, 14), True)
    for _ in range(200):
        stage = client._http.get("/v1/progress").json()
        if stage["stage"] == "ready":
            return
        time.sleep(0.05)
    pytest.fail(f"not ready: {stage}")


def test_sizes_up_and_down(client, http):
    assert http.get("/v1/levels").status_code == 400
    client.add_point_interaction((6, 12, 14), True)
    before = client.target_buffer.copy()
    sizes = http.get("/v1/levels").json()
    assert sizes["milliliters"] == sorted(sizes["milliliters"])
    steps = 1 if sizes["level"] == 0 else -1
    answer = http.post("/v1/level", json={"steps": steps})
    assert http.get("/v1/levels").json()["level"] == sizes["level"] + (
        steps if len(sizes["milliliters"]) > 1 else 0
    )
    client._apply_prediction_response(answer)
    http.post("/v1/level", json={"steps": -steps})
    assert np.array_equal(unpack_array(http.get("/v1/labels").content), before)
    assert client.undo()
    assert not unpack_array(http.get("/v1/labels").content).any()
    assert http.post("/v1/level", json={"steps": 1}).status_code == 400


def test_several_classes_uncertainty_and_suggestions(client, http):
    assert http.post("/v1/solve").status_code == 400
    http.post("/v1/points", json={"label": 1, "coordinates": [6, 12, 14]}).raise_for_status()
    http.post("/v1/points", json={"label": 0, "coordinates": [6, 2, 2]}).raise_for_status()
    mask = np.zeros(SHAPE, np.uint8)
    mask[1, 2:4, 20:26] = 1
    meta = {"X-Meta": json.dumps({"label": 2})}
    http.post("/v1/scribbles", content=pack_array(mask), headers=meta).raise_for_status()
    answer = http.post("/v1/solve")
    client._apply_prediction_response(answer)
    labels = unpack_array(http.get("/v1/labels").content)
    assert np.array_equal(client.target_buffer, labels)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert labels[6, 12, 14] == 1
    uncertainty = unpack_array(http.get("/v1/uncertainty").content)
    assert uncertainty.shape == SHAPE
    assert 0 <= uncertainty.min() <= uncertainty.max() <= 1
    found = http.get("/v1/suggestions", params={"count": 2}).json()
    assert len(found) == 2
    assert all(0 <= s["index"] < SHAPE[s["axis"]] for s in found)
    assert np.array_equal(unpack_array(http.get("/v1/labels").content), labels)


@pytest.mark.parametrize("form", ["stl", "ply"])
def test_surface(client, http, form):
    assert http.get("/v1/mesh").status_code == 400
    client.add_point_interaction((6, 12, 14), True)
    data = http.get("/v1/mesh", params={"form": form}).content
    surface = trimesh.load_mesh(io.BytesIO(data), file_type=form)
    assert surface.is_watertight
    # Millimeters along the array's axes, whose spacing is 2, 1, 1.
    assert surface.volume == pytest.approx(2 * (client.target_buffer > 0).sum(), rel=0.02)
    assert surface.bounds.mean(axis=0) == pytest.approx([11, 11.5, 13.5], abs=0.5)


def test_saved_and_loaded(client, http, connect):
    client.add_point_interaction((6, 12, 14), True)
    client.add_point_interaction((6, 12, 8), False)
    saved = http.get("/v1/session").json()
    other = connect(make_image())
    answer = other._http.put("/v1/session", json=saved)
    answer.raise_for_status()
    other._apply_prediction_response(answer)
    assert np.array_equal(other.target_buffer, client.target_buffer)
    for one in (client, other):
        one.add_point_interaction((6, 12, 19), True)
    assert np.array_equal(other.target_buffer, client.target_buffer)


@pytest.mark.parametrize(
    "damage",
    [
        {"events": [{"do": "prior", "classes": 2, "digest": "../../etc/passwd"}]},
        {"events": [{"do": "strokes", "runs": [0, 10**15, 1]}]},
        {"events": "none"},
        {"grid": {"shape": [10**6, 10**6, 10**6], "affine": np.eye(4).tolist()}},
        {"format": "something else"},
        {"mask": [0, 5, 10**12]},
        {"mask": [-5, 5, 1]},
        {"mask": "all"},
    ],
)
def test_damaged_sessions_are_refused(clicked, damage):
    http, before = clicked._http, clicked.target_buffer
    answer = http.put("/v1/session", json={**http.get("/v1/session").json(), **damage})
    assert answer.status_code == 400
    assert "medgs-" not in answer.json()["detail"]
    assert np.array_equal(unpack_array(http.get("/v1/labels").content), before)


def test_described_by_openapi(server):
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    for path in ("solve", "points", "scribbles", "level", "levels", "uncertainty", "suggestions",
                 "mesh", "session", "progress", "labels"):  # fmt: skip
        assert all(way["description"] for way in paths[f"/v1/{path}"].values())


class Halves:
    """A model that finds two classes wherever the image is bright."""

    def segment(self, volume, *, should_stop):
        labels = (volume.data[0] > 10).astype(np.uint8)
        labels[:, :, 14:] *= 2
        return SimpleNamespace(labels=labels, names={1: "left", 2: "right"})


class Unfit:
    def segment(self, volume, *, should_stop):
        raise ImageError("The model needs two contrasts.")


@pytest.mark.parametrize(("model", "fits"), [(Halves(), True), (Unfit(), False)])
def test_a_model_before_any_prompt(connect, model, fits):
    with Server(ServerSettings(port=0, threads=1), model) as server:
        client = connect(make_image(), url=server.url)
        http = client._http
        while http.get("/v1/progress").json()["stage"] != "ready":
            time.sleep(0.02)
        answer = http.get("/v1/presegmentation")
        client.add_point_interaction((6, 12, 10), True)
        assert answer.status_code == (200 if fits else 400)
        assert client.target_buffer[6, 12, 10] == 1
        if fits:
            assert json.loads(answer.headers["X-Meta"])["names"] == {"1": "left", "2": "right"}
            found = unpack_array(answer.content)
            assert np.array_equal(client.target_buffer == 1, found == 1)
        client.close()


def prepared(client) -> dict:
    while (stage := client._http.get("/v1/progress").json())["stage"] != "ready":
        time.sleep(0.02)
    return stage


def test_a_trained_segmenter(connect, tmp_path):
    """Its mask begins every object, clicks correct it, and it says what it cannot read."""
    pytest.importorskip("torch")
    from napari_medgs.learning import (
        LearnParams,
        find_training_cases,
        load_segmenter,
        save_segmenter,
        train_segmenter,
    )

    params = LearnParams(
        steps=40, folds=0, width=8, levels=2, workers=0, precision="32", threads=1,
        learning_rate=0.02, ema=0.9,
    )  # fmt: skip
    trained = train_segmenter(find_training_cases(write_nnunet(tmp_path, 3)), params)
    save_segmenter(tmp_path / "ball.safetensors", trained.segmenter)
    image, truth, _ = phantom(77)
    ball, box = truth == 2, truth == 5
    model = load_segmenter(tmp_path / "ball.safetensors")
    with Server(ServerSettings(port=0, threads=1), model) as server:
        client = connect(image[None], (1.0, 1.0, 1.0), server.url)
        assert prepared(client)["detail"] == ""
        answer = client._http.get("/v1/presegmentation")
        found = unpack_array(answer.content)
        assert json.loads(answer.headers["X-Meta"])["names"] == {"2": "ball", "5": "box"}
        assert overlap(found == 2, ball) > 0.7
        for wanted, value in ((ball, 2), (box, 5)):
            pieces, _ = label(found == value)
            place = tuple(map(int, np.argwhere(wanted & (found == value))[0]))
            client.reset_interactions()
            client.add_point_interaction(place, True)
            assert np.array_equal(client.target_buffer > 0, pieces == pieces[place])
        wrong = tuple(map(int, np.argwhere(client.target_buffer > 0)[0]))
        client.add_point_interaction(wrong, False)
        assert client.target_buffer[wrong] == 0
        assert overlap(client.target_buffer > 0, box) > 0.5
        client.close()
        two = connect(np.stack([image, image + 1]), (1.0, 1.0, 1.0), server.url)
        says = "The image has 2 contrasts, the model reads 1"
        assert says in prepared(two)["detail"]
        assert says in two._http.get("/v1/presegmentation").json()["detail"]
        two.add_point_interaction(place, True)
        assert two.target_buffer[place] == 1
        two.close()


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
