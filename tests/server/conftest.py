"""A server over loopback, and the official client."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("blosc2")
remote = pytest.importorskip("nnInteractive.inference.remote")

from napari_medgs.server.app import Server  # noqa: E402
from napari_medgs.server.settings import ServerSettings  # noqa: E402

SHAPE = (12, 24, 28)
BLOCK = np.s_[3:9, 6:18, 8:20]


def make_image(seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).normal(size=(1, *SHAPE)).astype(np.float32)
    image[0][BLOCK] += 20
    return image


def make_truth() -> np.ndarray:
    truth = np.zeros(SHAPE, bool)
    truth[BLOCK] = True
    return truth


@pytest.fixture(scope="package", autouse=True)
def modules_apart() -> None:
    """Keep the modules out of garbage collection, which runs at the end of every session."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    with Server(ServerSettings(port=0, max_sessions=3, threads=1)) as running:
        yield running


@contextlib.contextmanager
def connections(server: Server) -> Iterator[Callable]:
    """Give a function that connects one more client; all are closed at the end."""
    made = []

    def connect(image: np.ndarray | None = None, spacing=(2.0, 1.0, 1.0), url=server.url, **more):
        client = remote.nnInteractiveRemoteInferenceSession(url, **more)
        made.append(client)
        if image is not None:
            client.set_image(image, {"spacing": list(spacing)})
            client.set_target_buffer(np.zeros(image.shape[1:], np.uint8))
        return client

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def connect(server: Server) -> Iterator[Callable]:
    """Return a function that connects one more client, with an image where one is wanted."""
    with connections(server) as connect:
        yield connect


@pytest.fixture
def client(connect: Callable):
    return connect(make_image())


@pytest.fixture(scope="module")
def clicked(server: Server):
    """A client with an image and a click, for requests that must leave both as they are."""
    with connections(server) as connect:
        client = connect(make_image())
        client.add_point_interaction((6, 12, 14), True)
        yield client
