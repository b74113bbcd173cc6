"""The official client of the nnInteractive protocol drives a real server over loopback."""

from __future__ import annotations

import threading

import httpx
import numpy as np
import pytest

from napari_medgs.segmentation import InteractiveSegmenter
from napari_medgs.server.app import Server
from napari_medgs.server.settings import ServerSettings
from tests.server.conftest import BLOCK, SHAPE, make_image, make_truth, remote


def dice(buffer: np.ndarray) -> float:
    truth = make_truth()
    mask = np.asarray(buffer) > 0
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def test_what_the_client_learns(connect):
    client = connect()
    assert client.ping()
    assert all(client.supported_interactions.values())
    numbers = [n for v in client.channel_mapping.values() for n in np.atleast_1d(v).tolist()]
    assert sorted(numbers) == list(range(client.num_interaction_channels))
    assert client.license.startswith("BSD-3-Clause; no weights")
    assert client.supports_undo
    assert len(client.preferred_scribble_thickness) == 3  # napari's panel takes one an axis
    assert client.supports_initial_label
    assert client.idle_timeout_seconds == 600
    assert client.liveness_timeout_seconds == 60
    assert 590 < client.heartbeat() <= 600
    assert client.lease_status()["remaining_seconds"] <= 600


def test_one_click_gives_the_object_and_its_box_alone(client):
    box = client.add_point_interaction((6, 12, 14), True)
    assert dice(client.target_buffer) > 0.95
    assert client.original_image_shape == (1, *SHAPE)
    within = np.zeros(SHAPE, bool)
    within[tuple(slice(*side) for side in box)] = True
    assert not client.target_buffer[~within].any()
    assert box == [[s.start, s.stop] for s in BLOCK]


def test_clicks_correct_and_undo_brings_back(client):
    client.add_point_interaction((6, 12, 14), True)
    first = client.target_buffer.copy()
    client.add_point_interaction((6, 12, 22), True)
    assert client.target_buffer[6, 12, 22] == 1
    client.add_point_interaction((6, 12, 8), False)
    assert client.target_buffer[6, 12, 8] == 0
    assert client.undo()
    assert client.undo()
    assert np.array_equal(client.target_buffer, first)
    assert client.undo()
    assert not client.target_buffer.any()
    assert not client.undo()


def test_next_object(client):
    client.add_point_interaction((6, 12, 14), True)
    client.reset_interactions()
    assert not client.target_buffer.any()
    client.add_point_interaction((6, 2, 2), True)
    assert client.target_buffer[6, 2, 2] == 1
    assert client.target_buffer[6, 12, 14] == 0


@pytest.mark.parametrize("dtype", [bool, np.int16, np.uint32])
def test_types_of_the_buffer(connect, dtype):
    client = connect(make_image())
    client.set_target_buffer(np.zeros(SHAPE, dtype))
    client.add_point_interaction((6, 12, 14), True)
    assert client.target_buffer.dtype == dtype
    assert dice(client.target_buffer) > 0.95


@pytest.mark.parametrize("box", [[[6, 7], [6, 18], [8, 20]], [[3, 9], [6, 18], [8, 20]]])
def test_boxes(client, box):
    client.add_bbox_interaction(box, True)
    assert dice(client.target_buffer) > 0.85
    client.reset_interactions()
    client.add_point_interaction((6, 12, 14), True)
    client.add_bbox_interaction([[3, 9], [6, 18], [16, 20]], False)
    assert not client.target_buffer[3:9, 6:18, 16:20].any()
    assert client.target_buffer[6, 12, 10] == 1


def test_lasso_and_scribbles(client):
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[6, 5:19, 7:21] = 1
    client.add_lasso_interaction(drawn, True)
    assert dice(client.target_buffer) > 0.9
    client.reset_interactions()
    drawn[:] = 0
    drawn[6, 12, 10:18] = 1
    client.add_scribble_interaction(drawn, True)
    assert dice(client.target_buffer) > 0.9
    part = np.zeros((1, 24, 28), bool)
    part[0, 16:18, 8:20] = True
    client.add_scribble_interaction(part, False, interaction_bbox=[[7, 8], [0, 24], [0, 28]])
    assert not client.target_buffer[7, 16:18, 8:20].any()
    assert client.target_buffer[6, 12, 14] == 1
    lasso = np.zeros(SHAPE, bool)
    lasso[6, 6:10, 8:20] = True
    client.add_lasso_interaction(lasso, False)
    assert not client.target_buffer[6, 6:10, 8:20].any()


def test_initial_mask_is_kept_then_corrected(client):
    start = np.zeros(SHAPE, np.uint8)
    start[4:9, 6:18, 8:16] = 1
    client.add_point_interaction((1, 1, 1), True)
    client.add_initial_seg_interaction(start)
    assert np.array_equal(client.target_buffer, start)
    client.add_point_interaction((6, 12, 18), True)
    assert client.target_buffer[6, 12, 18] == 1
    assert dice(client.target_buffer) > dice(start)
    client.undo()
    assert np.array_equal(client.target_buffer, start)
    client.add_initial_seg_interaction(start, run_prediction=True)
    assert client.target_buffer[6, 12, 12] == 1
    assert not client.target_buffer[0].any()


def test_prompts_without_an_answer_wait_for_it(client):
    assert client.add_point_interaction((6, 12, 14), True, run_prediction=False) is None
    assert not client.target_buffer.any()
    assert client._predict() == [[s.start, s.stop] for s in BLOCK]
    client.set_do_autozoom(False)


def test_nothing_positive_gives_nothing(client):
    client.add_point_interaction((1, 1, 1), False)
    assert not client.target_buffer.any()


def test_the_same_as_through_python(client, server):
    clicks = [((6, 12, 14), True), ((6, 12, 22), True), ((4, 7, 9), False)]
    segmenter = InteractiveSegmenter()
    segmenter.threads = 1
    segmenter.set_image(make_image(), spacing=(2.0, 1.0, 1.0))
    for place, positive in clicks:
        client.add_point_interaction(place, positive)
        segmenter.object.add_point(place, positive)
        segmenter.object.answer()
        assert np.array_equal(client.target_buffer, segmenter.labels)


def test_contrasts_count(connect):
    first, second = make_image()[0], make_image(1)[0]
    first[6:] = np.random.default_rng(5).normal(size=first[6:].shape)
    second[:6] = np.random.default_rng(6).normal(size=second[:6].shape)
    client = connect(np.stack([first, second]))
    client.add_point_interaction((4, 12, 14), True)
    assert client.target_buffer[4, 12, 14] == 1
    assert client.target_buffer[6:, 20:].sum() == 0


def test_two_at_a_time(connect):
    clients = [connect(make_image()), connect(make_image()[:, ::-1].copy())]
    places = [(6, 12, 14), (5, 12, 14)]
    threads = [
        threading.Thread(target=c.add_point_interaction, args=(p, True))
        for c, p in zip(clients, places, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dice(clients[0].target_buffer) > 0.95
    assert dice(clients[1].target_buffer[::-1]) > 0.95


def test_full_and_free_again(connect):
    clients = [connect() for _ in range(3)]
    with pytest.raises(remote.ServerAtCapacityError, match="All 3 sessions"):
        connect()
    clients[0].close()
    connect()


def test_ended_sessions_say_so(server, connect):
    client = connect(make_image())
    assert server.app.state.leases.release(client._lease_token)
    with pytest.raises(remote.SessionExpiredError, match="connect again"):
        client.add_point_interaction((6, 12, 14), True)


def test_keys():
    with Server(ServerSettings(port=0, api_key="secret key")) as server:
        for wrong in ("", "secret", "Secret key", "secret key2"):
            with pytest.raises(httpx.HTTPStatusError, match="401"):
                remote.nnInteractiveRemoteInferenceSession(server.url, api_key=wrong)
        with remote.nnInteractiveRemoteInferenceSession(server.url, "secret key") as client:
            assert client.ping()
        assert httpx.get(f"{server.url}/healthz").json() == {"ok": True}
        assert httpx.get(f"{server.url}/openapi.json").status_code == 401
