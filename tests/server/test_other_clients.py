"""Requests in the form of ITK-SNAP and of the older extension of 3D Slicer, as their sources."""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging

import httpx
import numpy as np
import pytest

from napari_medgs.server.app import Server
from napari_medgs.server.packing import PackingError, TooLargeError
from napari_medgs.server.settings import ServerSettings
from napari_medgs.server.uploads import gunzip, npy_header, read_form, read_npy
from tests.server.conftest import BLOCK, SHAPE, make_image, make_truth


def overlap(mask: np.ndarray) -> float:
    truth = make_truth()
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def npy(array: np.ndarray, pack: bool = True) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return gzip.compress(file.getvalue()) if pack else file.getvalue()


@pytest.fixture
def http(server: Server):
    with httpx.Client(base_url=server.url, timeout=60) as http:
        yield http


class Snap:
    """Calls as ITK-SNAP makes them: x, y, z order, float32, x fastest in memory."""

    def __init__(self, http: httpx.Client, version: str = "v2/") -> None:
        self.http, self.version = http, version
        path = "start_session/napari-medgs" if version else "start_session"
        self.session = http.get(f"/{version}{path}").json()["session_id"]

    def form(self, array: np.ndarray, **more) -> dict:
        meta = {
            "dimensions": list(array.shape[::-1]), "spacing": [1.0, 1.0, 2.0],
            "origin": [0.0, 0.0, 0.0], "direction": np.eye(3).ravel().tolist(),
            "components_per_pixel": 1, "component_type": "float32", **more,
        }  # fmt: skip
        data = gzip.compress(array.astype("<f4").tobytes())
        return {
            "file": ("image.gz", data, "application/gzip"),
            "metadata": (None, json.dumps(meta), "application/json"),
        }

    def upload(self, array: np.ndarray, **more) -> httpx.Response:
        path = f"/upload_raw/{self.session}?filename=upload.nii.gz"
        return self.http.post(path, files=self.form(array, **more))

    def mask(self, answer: httpx.Response) -> np.ndarray:
        record = answer.raise_for_status().json()
        assert record["status"] == "success"
        data = gzip.decompress(base64.b64decode(record["result"]))
        return np.frombuffer(data, np.int8).reshape(SHAPE) > 0

    def point(self, x: int, y: int, z: int, foreground: bool = True) -> np.ndarray:
        place = f"point={x}&point={y}&point={z}" if self.version else f"x={x}&y={y}&z={z}"
        return self.mask(
            self.http.get(
                f"/{self.version}process_point_interaction/{self.session}?{place}"
                f"&foreground={str(foreground).lower()}"
            )
        )

    def draw(self, kind: str, array: np.ndarray, foreground: bool = True) -> np.ndarray:
        path = f"/process_{kind}_interaction/{self.session}?foreground={str(foreground).lower()}"
        return self.mask(self.http.post(path, files=self.form(array)))

    def end(self) -> str:
        path = f"/{self.version}end_session/{self.session}"
        return self.http.get(path).json()["message"]


@pytest.mark.parametrize("version", ["v2/", ""])
def test_itksnap(http, server, version):
    status = http.get("/status").json()
    assert tuple(map(int, status["version"].split("."))) >= (0, 1, 0)
    (model,) = http.get("/v2/models").json()["models"]
    assert (model["id"], model["dimensions"]) == ("napari-medgs", 3)
    assert {"point", "scribble", "lasso"} <= set(model["interactions"])
    snap = Snap(http, version)
    assert snap.upload(make_image()[0]).status_code == 200
    work = server.app.state.leases._leases[snap.session].held
    assert work.segmenter.session.grid.spacing == pytest.approx((2, 1, 1))
    mask = snap.point(14, 12, 6)
    assert overlap(mask) > 0.95
    assert not snap.point(8, 12, 6, False)[6, 12, 8]
    assert http.get(f"/reset_interactions/{snap.session}").json() == {"status": "success"}
    drawn = np.zeros(SHAPE)
    drawn[6, 5:19, 7:21] = 3  # the number of a label
    assert overlap(snap.draw("lasso", drawn)) > 0.9
    drawn[:] = 0
    drawn[6, 16:18, 8:20] = 1
    assert not snap.draw("scribble", drawn, False)[6, 16:18, 8:20].any()
    assert snap.end() == "Session ended"
    assert snap.end() == "Invalid session"


def test_itksnap_is_told_what_is_wrong(http):
    snap = Snap(http)
    session = snap.session
    point = f"/v2/process_point_interaction/{session}"
    assert "no image" in http.get(point, params={"point": [1, 2, 3]}).json()["detail"]
    image = make_image()[0]
    for meta, says in (
        ({"dimensions": [2, 2, 2]}, "as many voxels"),
        ({"dimensions": [2**20] * 3}, "voxels"),
        ({"dimensions": [0, 2, 2]}, "dimensions"),
        ({"components_per_pixel": 99}, "channels"),
        ({"spacing": [-1, 1, 1]}, "spacing"),
    ):
        answer = snap.upload(image, **meta)
        assert answer.status_code in (400, 413)
        assert says in answer.json()["detail"]
    assert http.post(f"/upload_raw/{session}", content=b"x").status_code == 400
    snap.upload(image)
    assert http.get(point, params={"point": [1, 2]}).status_code == 400
    assert http.get(point, params={"point": [1, 2, 99]}).status_code == 400
    assert (
        http.get("/v2/process_point_interaction/nobody?point=1&point=2&point=3").status_code == 410
    )
    snap.end()


class OldSlicer:
    """Calls as the extension makes them before 1.0."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def upload(self, image: np.ndarray) -> dict:
        files = {"file": ("volume.npy", npy(image, False), "application/octet-stream")}
        return self.http.post("/upload_image", files=files).json()

    def segment(self, mask: np.ndarray) -> dict:
        files = {"file": ("volume.npy.gz", npy(mask), "application/octet-stream")}
        return self.http.post("/upload_segment", files=files).json()

    def mask(self, answer: httpx.Response) -> np.ndarray:
        assert answer.headers["content-type"] == "application/octet-stream", answer.text
        bits = np.unpackbits(np.frombuffer(answer.content, np.uint8))
        return bits[: np.prod(SHAPE)].reshape(SHAPE) > 0

    def point(self, zyx: list[int], positive: bool) -> httpx.Response:
        body = {"voxel_coord": zyx, "positive_click": positive}
        return self.http.post("/add_point_interaction", json=body)

    def box(self, one: list[int], two: list[int], positive: bool = True) -> httpx.Response:
        body = {"outer_point_one": one, "outer_point_two": two, "positive_click": positive}
        return self.http.post("/add_bbox_interaction", json=body)

    def draw(self, kind: str, mask: np.ndarray, positive: bool) -> httpx.Response:
        # The header is there though the form as a whole is not compressed.
        return self.http.post(
            f"/add_{kind}_interaction",
            files={"file": ("volume.npy.gz", npy(mask), "application/octet-stream")},
            data={"positive_click": str(positive)},
            headers={"Content-Encoding": "gzip"},
        )


def test_slicer_before_1_0(http, server):
    slicer = OldSlicer(http)
    assert slicer.point([6, 12, 14], True).json() == {
        "status": "error", "message": "No image uploaded",
    }  # fmt: skip
    assert slicer.upload(make_image()[0].astype(np.float64)) == {"status": "ok"}
    assert slicer.segment(np.zeros(SHAPE, bool)) == {"status": "ok"}
    assert overlap(slicer.mask(slicer.point([6, 12, 14], True))) > 0.95
    assert not slicer.mask(slicer.point([6, 12, 8], False))[6, 12, 8]
    slicer.segment(np.zeros(SHAPE, bool))
    assert overlap(slicer.mask(slicer.box([3, 6, 8], [8, 17, 19]))) > 0.85
    slicer.segment(np.zeros(SHAPE, bool))
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[6, 5:19, 7:21] = 1
    assert overlap(slicer.mask(slicer.draw("lasso", drawn, True))) > 0.9
    drawn[:] = 0
    drawn[6, 16:18, 8:20] = 1
    assert not slicer.mask(slicer.draw("scribble", drawn, False))[6, 16:18, 8:20].any()
    start = np.zeros(SHAPE, bool)
    start[4:9, 6:18, 8:16] = True
    slicer.segment(start)
    mask = slicer.mask(slicer.point([6, 12, 18], True))
    assert mask[6, 12, 18]
    assert overlap(mask) > overlap(start)
    # An image that comes again begins anew; a session that has ended is asked for again.
    assert slicer.upload(make_image(2)[0]) == {"status": "ok"}
    assert slicer.mask(slicer.point([6, 12, 14], True))[BLOCK].mean() > 0.9
    leases = server.app.state.leases
    (token,) = [lease.token for lease in leases._leases.values() if not lease.beats]
    leases.release(token)
    assert slicer.segment(start)["message"] == "No image uploaded"


def test_slicer_shows_errors(http, server):
    slicer = OldSlicer(http)
    four = slicer.upload(np.zeros((2, 2, 2, 2)))
    assert "three axes" in four["message"]
    assert "constant" in slicer.upload(np.zeros(SHAPE))["message"]
    assert "numbers" in slicer.upload(np.zeros(SHAPE, complex))["message"]
    slicer.upload(make_image()[0])
    assert "shape" in slicer.segment(np.zeros((2, 3, 4), bool))["message"]
    for answer in (
        slicer.point([1, 2], True), slicer.point([1, 2, 99], True), slicer.box([90] * 3, [95] * 3),
        slicer.draw("scribble", np.zeros(SHAPE, bool), True),
        http.post("/upload_image", content=b"nothing"),
        http.post("/add_lasso_interaction", files={"other": b"x"}),
    ):  # fmt: skip
        assert answer.status_code == 200
        assert answer.json()["status"] == "error", answer.json()
    server.app.state.leases.close()


def test_with_a_key_there_is_no_session_without_a_name():
    with Server(ServerSettings(port=0, api_key="secret")) as server:
        headers = {"Authorization": "Bearer secret"}
        with httpx.Client(base_url=server.url, headers=headers) as http:
            slicer = OldSlicer(http)
            assert slicer.point([1, 2, 3], True).status_code in (400, 410)
            assert http.post("/upload_image", content=b"").status_code == 404
            assert http.get("/status").status_code == 200
        assert httpx.get(f"{server.url}/status").status_code == 401


def test_no_web_page_gets_in(http):
    for site in ("cross-site", "same-site"):
        assert http.get("/start_session", headers={"Sec-Fetch-Site": site}).status_code == 403


def test_the_log_names_no_session(http, caplog):
    with caplog.at_level(logging.DEBUG, "napari_medgs.server"):
        snap = Snap(http)
        snap.end()
        http.get("/a/path/of/their/own")
    assert snap.session not in caplog.text
    assert "/v2/end_session/{session_id}" in caplog.text
    assert "their/own" not in caplog.text


def test_broken_uploads():
    with pytest.raises(TooLargeError, match="more than"):
        gunzip(gzip.compress(bytes(10**6)), 1000)
    for data in (gzip.compress(bytes(100))[:-9], gzip.compress(bytes(100))[:9] + b"x" * 30):
        with pytest.raises(PackingError):
            gunzip(data, 1000)
    good = npy(np.arange(24, dtype=np.int16).reshape(2, 3, 4, order="F"), False)
    assert npy_header(good)[0] == (2, 3, 4)
    with pytest.raises(PackingError, match="cut off"):
        read_npy(good[:-1], 1000)
    with pytest.raises(TooLargeError):
        read_npy(good, 40)
    for header in (b"{'descr': (", b"{'descr': '<i2', 'fortran_order': 0", b"[" * 60, b"1" * 60):
        start = good.index(b"{")
        with pytest.raises(PackingError):
            read_npy(good[:start] + header + good[start + len(header) :], 1000)
    rng = np.random.default_rng(0)
    form = httpx.Request("POST", "http://x/", files={"file": ("a", good)})
    body, kind = form.read(), form.headers["content-type"]
    assert np.array_equal(read_npy(read_form(body, kind)["file"], 1000), read_npy(good, 1000))
    refused = 0
    for _ in range(500):
        damaged = bytearray(body)
        for _ in range(rng.integers(1, 6)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            fields = read_form(bytes(damaged[: rng.integers(20, len(body) + 1)]), kind)
            read_npy(fields.get("file", b""), 1000)
        except (PackingError, TooLargeError):
            refused += 1
    assert refused > 300
    with pytest.raises(PackingError, match="form"):
        read_form(body, "text/plain")
