"""Broken and hostile requests: one 4xx each, and nothing of them in memory or in the log."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import struct
import threading
import time
import tracemalloc
import weakref

import httpx
import numpy as np
import psutil
import pytest
from nnInteractive.inference.remote.serialization import pack_array

from napari_medgs.cli.app import load_command
from napari_medgs.errors import ParameterError
from napari_medgs.server.app import Server
from napari_medgs.server.http import Gate
from napari_medgs.server.leases import FullError, LeaseGoneError, LeaseStore
from napari_medgs.server.packing import PackingError, TooLargeError, pack, unpack
from napari_medgs.server.settings import ServerSettings
from napari_medgs.server.work import WorkSession
from tests.server.conftest import SHAPE, make_image


def broken(rng: np.random.Generator) -> bytes:
    """Return a packed array with something wrong with it, or rarely nothing."""
    kind = rng.integers(6)
    array = (rng.random(SHAPE) < 0.1).astype(rng.choice(["uint8", "bool", "float32", "int64"]))
    data = bytearray(pack_array(array))
    if kind == 0:  # cut off
        return bytes(data[: rng.integers(len(data))])
    if kind == 1:  # another shape, perhaps a huge one
        axis, size = rng.integers(3), int(rng.choice([0, -1, 2**40, 2**62, 7]))
        struct.pack_into("<q", data, 8 + data[7] + 8 * int(axis), size)
    elif kind == 2:  # lengths of the chunk
        place = 8 + data[7] + 24 + int(rng.choice([0, 4, 12]))
        struct.pack_into("<I", data, place, int(rng.integers(2**32)))
    elif kind == 3:  # sizes in the frame
        place = 8 + data[7] + 24 + 20 + int(rng.choice([4, 8, 12]))
        struct.pack_into("<i", data, place, int(rng.integers(-(2**31), 2**31)))
    elif kind == 4:  # noise
        return rng.integers(0, 256, rng.integers(200), np.uint8).tobytes()
    for _ in range(rng.integers(1, 8)):
        data[rng.integers(len(data))] = rng.integers(256)
    return bytes(data)


def test_a_thousand_broken_arrays():
    rng = np.random.default_rng(8)
    refused = 0
    for _ in range(1000):
        try:
            unpack(broken(rng), max_bytes=10**6)
        except (PackingError, TooLargeError):
            refused += 1
    assert refused > 700


def test_broken_arrays_through_the_server(client):
    """Every answer is an error of the user, and memory stays."""
    client.add_point_interaction((6, 12, 14), True)
    rng, http, before = np.random.default_rng(7), client._http, psutil.Process().memory_info().rss
    found: dict[int, int] = {}
    for k in range(100):
        path = ("/add_scribble_interaction", "/add_initial_seg_interaction")[k % 2]
        meta = {"X-Meta": '{"run_prediction": false}'}
        status = http.post(path, content=broken(rng), headers=meta).status_code
        found[status] = found.get(status, 0) + 1
    assert set(found) <= {200, 400, 413}, found
    assert found[400] > 70
    assert psutil.Process().memory_info().rss - before < 50_000_000
    client.reset_interactions()
    client.add_point_interaction((6, 12, 14), True)
    assert client.target_buffer[6, 12, 14] == 1


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "float16", "float64"])
@pytest.mark.parametrize("shape", [(5,), (1, 4, 5, 6), (40, 50, 60)])
def test_packed_arrays_of_the_client(dtype, shape, rng):
    array = (rng.random(shape) * 2).astype(dtype)
    for values in (array, np.zeros(shape, dtype)):
        assert np.array_equal(unpack(pack_array(values), max_bytes=10**6), values)
        assert np.array_equal(unpack(pack(values), max_bytes=10**6), values)


def test_claims_are_checked_before_memory_is_taken():
    data = bytearray(pack_array(np.zeros((4, 4, 4), np.float64)))
    struct.pack_into("<3q", data, 8 + data[7], 2**20, 2**20, 2**20)
    with pytest.raises(TooLargeError, match="at most 1 MB"):
        unpack(bytes(data), max_bytes=10**6)
    with pytest.raises(PackingError, match="unknown type"):
        unpack(pack_array(np.zeros(3, np.complex64)), max_bytes=10**6)
    with pytest.raises(PackingError, match="4 x 4 is needed"):
        unpack(pack(np.zeros((3, 4))), max_bytes=10**6, shapes=[(4, 4)])
    with pytest.raises(PackingError, match="not begin with NNIA"):
        unpack(b"\x80\x04pickle of something", max_bytes=10**6)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("add_point_interaction", {"coordinates": [1, 2]}, "coordinates"),
        ("add_point_interaction", {"coordinates": [1, 2, 99]}, "outside"),
        ("add_point_interaction", {}, "coordinates"),
        ("add_bbox_interaction", {"bbox_coords": [[1, 1], [0, 2], [0, 2]]}, "empty"),
        ("add_bbox_interaction", {"bbox_coords": [[1], [0, 2], [0, 2]]}, "three pairs"),
        ("add_bbox_interaction", {"bbox_coords": [[90, 95], [0, 2], [0, 2]]}, "no voxel"),
        ("set_target_buffer", {"shape": [1, 2, 3], "dtype": "uint8"}, "the image"),
        ("set_target_buffer", {"shape": list(SHAPE), "dtype": "object"}, "numbers or bool"),
        ("v1/points", {"label": -1, "coordinates": [1, 2, 3]}, "label"),
        ("v1/level", {"steps": 10**9}, "steps"),
    ],
)
def test_wrong_json(clicked, path, body, says):
    answer = clicked._http.post(f"/{path}", json=body)
    assert answer.status_code == 400
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    "text", [b"{", b"[1]", b"\xff", b'{"coordinates": [1, 2, NaN]}', b"[" * 5000]
)
@pytest.mark.parametrize("path", ["add_point_interaction", "undo"])
def test_no_json(clicked, path, text):
    head = {"Content-Type": "application/json"}
    answer = clicked._http.post(f"/{path}", content=text, headers=head)
    assert answer.status_code in ({400} if path != "undo" or b"NaN" not in text else {200, 400})


def test_refused_requests_change_nothing(clicked):
    before = clicked._http.get("/v1/labels").content
    clicked._http.post("/v1/points", json={"label": -1, "coordinates": [1, 2, 3]})
    clicked._http.post("/add_point_interaction", content=b"[1]")
    clicked._http.post("/v1/level", json={"steps": 10**9})
    assert clicked._http.get("/v1/labels").content == before


@pytest.mark.parametrize(
    ("image", "meta", "status"),
    [
        (np.zeros((4, 5, 6), np.float32), "{}", 400),
        (np.zeros((1, 4, 5, 6), np.float32), "{}", 400),  # all the same
        (np.full((1, 4, 5, 6), np.nan, np.float32), "{}", 400),
        (np.ones((9, 4, 5, 6), np.float32), "{}", 413),
        (make_image(), '{"image_properties": {"spacing": [1, 2]}}', 400),
        (make_image(), '{"image_properties": {"spacing": [0, 1, 1]}}', 400),
        (make_image(), '{"image_properties": {"spacing": [1e999, 1, 1]}}', 400),
        (make_image(), '{"image_properties": 5}', 400),
        (make_image(), "no json", 400),
    ],
)
def test_unusable_images(connect, image, meta, status):
    http = connect()._http
    answer = http.post("/set_image", content=pack_array(image), headers={"X-Meta": meta})
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)
    assert http.post("/add_point_interaction", json={"coordinates": [1, 1, 1]}).status_code == 400


def test_limits_of_body_and_voxels():
    with Server(ServerSettings(port=0, max_body_mb=1, max_voxels=1000)) as server:
        token = httpx.post(f"{server.url}/claim").json()["lease_token"]
        http = httpx.Client(base_url=server.url, headers={"X-Lease-Token": token})
        assert http.post("/set_image", content=b"0" * 1_100_000).status_code == 413
        assert http.post("/set_image", content=iter([b"0" * 600_000] * 2)).status_code == 413
        answer = http.post("/set_image", content=pack_array(np.zeros((1, 11, 10, 10), np.uint8)))
        assert answer.status_code == 413
        assert "1,100 voxels" in answer.json()["detail"]
        assert http.post("/undo", content=b" " * 1_100_000).status_code == 413
        # Paths whose body is a form of their own have the limit, too.
        long = b'{"coordinates": [1, 1, 1], "more": "' + b"0" * 1_100_000 + b'"}'
        kind = {"Content-Type": "application/json"}
        answer = http.post("/add_point_interaction", content=long, headers=kind)
        assert answer.status_code == 413
        assert answer.json() == {"detail": "The body is larger than 1.0 MB."}
        answer = http.post("/add_point_interaction", content=iter([long]), headers=kind)
        assert "parsing the body" in answer.json()["detail"]


def test_without_a_lease(server):
    for path in ("heartbeat", "undo", "set_image", "add_initial_seg_interaction", "v1/solve"):
        assert httpx.post(f"{server.url}/{path}").status_code == 410
    for path in ("lease_status", "capabilities", "v1/progress"):
        assert httpx.get(f"{server.url}/{path}").status_code == 410
    assert httpx.post(f"{server.url}/release").json() == {"released": False}
    assert httpx.get(f"{server.url}/nothing").status_code == 404


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Origin": "https://evil.example"}],
)
def test_web_pages_are_kept_out(server, headers):
    assert httpx.post(f"{server.url}/claim", headers=headers).status_code == 403


def test_open_to_others_only_with_a_key(monkeypatch):
    with pytest.raises(ParameterError, match="set a key"):
        ServerSettings(host="0.0.0.0")
    assert "topsecret" not in repr(ServerSettings(host="0.0.0.0", api_key="topsecret"))
    monkeypatch.delenv("MEDGS_API_KEY", raising=False)
    with pytest.raises(ParameterError, match="MEDGS_API_KEY"):
        load_command("serve").main(["--host", "0.0.0.0", "--debug"], standalone_mode=False)


def test_log_holds_neither_keys_nor_images(caplog):
    caplog.set_level(logging.DEBUG)
    with Server(ServerSettings(port=0, api_key="topsecret")) as server:
        httpx.post(f"{server.url}/claim", headers={"Authorization": "Bearer wrongkey"})
        head = {"Authorization": "Bearer topsecret"}
        token = httpx.post(f"{server.url}/claim", headers=head).json()["lease_token"]
        head["X-Lease-Token"] = token
        httpx.post(f"{server.url}/set_image", headers=head, content=b"12345" * 100)
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("napari_medgs"))
    assert "POST /claim 401" in ours
    assert "POST /set_image 400" in ours
    for secret in ("topsecret", "wrongkey", token, "12345"):
        assert secret not in ours


def test_a_client_that_dies_in_the_midst_of_a_call(server, connect, caplog):
    caplog.set_level(logging.INFO)
    client = connect(make_image())
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(
            f"POST /set_image HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Lease-Token: {client._lease_token}"
            "\r\nContent-Length: 100000\r\n\r\nNNIA".encode()
        )
        time.sleep(0.1)
    client.add_point_interaction((6, 12, 14), True)
    assert client.target_buffer[6, 12, 14] == 1
    assert "refused: The client left before all of its request had come." in caplog.messages
    assert not [record for record in caplog.records if record.exc_info]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Held:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_both_clocks_end_a_session():
    clock = Clock()
    store: LeaseStore[Held] = LeaseStore(Held, 2, 600.0, 60.0, clock)
    quiet, busy = store.claim(), store.claim()
    with pytest.raises(FullError):
        store.claim()
    for clock.now in np.arange(0.0, 661.0, 30.0):
        store.reap()
        if not busy.held.closed:
            with store.use(busy.token, acts=False):
                pass
    assert quiet.held.closed
    assert busy.held.closed  # heartbeats alone do not help for more than ten minutes
    with pytest.raises(LeaseGoneError), store.use(busy.token):
        pass


def test_programs_without_heartbeats_keep_their_session_for_longer():
    clock = Clock()
    store: LeaseStore[Held] = LeaseStore(Held, 2, 600.0, 60.0, clock)
    first, second = store.claim(beats=False), store.claim(beats=False)
    clock.now = 500.0
    with store.use(second.token):
        pass
    clock.now = 700.0
    assert store.reap() == 0
    store.claim()  # needs a place: the one that did nothing for ten minutes goes
    assert first.held.closed
    assert not second.held.closed
    with pytest.raises(FullError):
        store.claim()
    clock.now = 4101.0
    store.reap()
    assert second.held.closed


def test_no_session_ends_while_it_works():
    clock = Clock()
    store: LeaseStore[Held] = LeaseStore(Held, 1, 600.0, 60.0, clock)
    lease = store.claim()
    with store.use(lease.token):
        clock.now = 10_000.0
        assert store.reap() == 0
    assert store.remaining(lease) == 600.0
    with store.use(lease.token, quiet=True):
        clock.now = 10_030.0
    assert lease.seen == 10_000.0


def test_memory_of_an_ended_session_is_free():
    image = np.random.default_rng(0).normal(size=(1, 24, 64, 64)).astype(np.float32)

    def work() -> None:
        session = WorkSession(1)
        session.set_image(image, [1.0, 1.0, 1.0])
        preparation, held = session.preparation, weakref.ref(session.segmenter)
        preparation.finished.wait()
        session.close()
        preparation.join()
        del preparation
        gc.collect()
        assert held() is None

    work()  # what stays in any case
    tracemalloc.start()
    try:
        work()
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        work()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < image.nbytes < (peak - before) / 3


def test_memory_of_ended_sessions_goes_back_to_the_system(monkeypatch):
    freed = threading.Event()
    monkeypatch.setattr("napari_medgs.server.work.give_back", freed.set)
    image = np.random.default_rng(0).normal(size=(1, 6, 20, 20)).astype(np.float32)
    session = WorkSession(1)
    session.set_image(image, [1.0, 1.0, 1.0])
    preparation = session.preparation
    assert not freed.is_set()
    session.close()
    assert freed.wait(60)
    assert not preparation._thread.is_alive()


def test_many_prompts_take_no_more_memory(client):
    client.add_point_interaction((6, 12, 14), True)
    rng, process = np.random.default_rng(0), psutil.Process()
    sizes = []
    for k in range(30):
        z, y, x = (int(rng.integers(n)) for n in SHAPE)
        inside = 3 <= z < 9 and 6 <= y < 18 and 8 <= x < 20
        client.add_point_interaction((z, y, x), inside)
        if k % 4 == 3:
            client.undo()
        if k % 10 == 9:
            client.reset_interactions()
            client.add_point_interaction((6, 12, 14), True)
            sizes.append(process.memory_info().rss)
    assert sizes[-1] - sizes[0] < 50_000_000


def test_a_request_that_the_end_cuts_off_is_answered():
    """And not told as a failure of the program, with a traceback in the log."""
    sent = []

    async def long(scope, receive, send):
        await asyncio.sleep(60)

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    async def cut_off():
        gate = Gate(long, ServerSettings(port=0), frozenset())
        scope = {"type": "http", "method": "POST", "path": "/undo",
                 "headers": [(b"host", b"127.0.0.1:1527")]}  # fmt: skip
        task = asyncio.create_task(gate(scope, receive, send))
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    asyncio.run(cut_off())
    assert sent[0]["status"] == 503
    assert b"was stopped" in sent[1]["body"]
