"""The server's application, and how it is run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from fastapi import FastAPI

from napari_medgs import __version__
from napari_medgs.errors import FileError
from napari_medgs.server.compat import compat_routes
from napari_medgs.server.handler import Handler
from napari_medgs.server.http import Gate, add_error_answers
from napari_medgs.server.itksnap import itksnap_routes
from napari_medgs.server.leases import LeaseStore
from napari_medgs.server.own import own_routes
from napari_medgs.server.preparation import Model
from napari_medgs.server.settings import ServerSettings
from napari_medgs.server.slicer import SlicerPaths, slicer_routes
from napari_medgs.server.work import WorkSession

log = logging.getLogger("napari_medgs.server")

REAP_SECONDS = 1.0
DESCRIPTION = (
    "Interactive segmentation without weights: the nnInteractive protocol 2.6, what ITK-SNAP and "
    "the older extension of 3D Slicer call, and paths of our own under /v1. Research software, no "
    "medical device."
)


def make_app(settings: ServerSettings, model: Model | None = None) -> FastAPI:
    """Return the application of a server.

    Parameters
    ----------
    settings : ServerSettings
    model : Model, optional
        Segments every image before any prompt, such as a trained segmenter.

    Returns
    -------
    FastAPI
        With the leases as ``state.leases``.

    Examples
    --------
    >>> app = make_app(ServerSettings())
    >>> "/claim" in app.openapi()["paths"]
    True
    """
    store: LeaseStore[WorkSession] = LeaseStore(
        lambda: WorkSession(settings.threads, model),
        settings.max_sessions,
        settings.idle_timeout,
        settings.liveness_timeout,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async def reap() -> None:
            while True:
                await asyncio.sleep(REAP_SECONDS)
                count = await asyncio.to_thread(store.reap)
                if count:
                    log.info("%d session(s) ended for want of requests", count)

        task = asyncio.create_task(reap())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.to_thread(store.close)

    app = FastAPI(
        title="napari-medgs", version=__version__, description=DESCRIPTION, lifespan=lifespan
    )
    app.state.leases = store
    handler = Handler(settings, store)
    app.include_router(compat_routes(handler))
    app.include_router(own_routes(handler))
    app.include_router(itksnap_routes(handler))
    if not settings.api_key:
        app.include_router(slicer_routes(handler))
        app.add_middleware(SlicerPaths)
    add_error_answers(app)
    paths = frozenset(app.openapi()["paths"])
    app.add_middleware(Gate, settings=settings, paths=paths)
    return app


class Server:
    """A server that runs in a thread of its own; a context manager.

    Parameters
    ----------
    settings : ServerSettings
    model : Model, optional
        See :func:`make_app`.

    Attributes
    ----------
    app : FastAPI
    url : str
        Where it listens, once it runs.

    Examples
    --------
    >>> from urllib.request import urlopen
    >>> with Server(ServerSettings(port=0)) as server:
    ...     print(urlopen(server.url + "/healthz").read().decode())
    {"ok":true}
    """

    def __init__(self, settings: ServerSettings, model: Model | None = None) -> None:
        import uvicorn

        self.settings, self.app, self.url = settings, make_app(settings, model), ""
        config = uvicorn.Config(
            self.app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None

    def listen(self) -> str:
        """Take the address, and return it; :meth:`run` answers.

        Raises
        ------
        FileError
            When the address or the port cannot be taken.
        """
        if self._socket is None:
            host, port = self.settings.host, self.settings.port
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            found = socket.socket(family)
            try:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                found.bind((host, port))
            except OSError as error:
                found.close()
                raise FileError(
                    f"The server cannot listen on {host}, port {port} ({error.strerror}); choose "
                    "another one."
                ) from None
            self._socket = found
            name = f"[{host}]" if family == socket.AF_INET6 else host
            self.url = f"http://{name}:{found.getsockname()[1]}"
        return self.url

    def run(self) -> None:
        """Serve until the process is told to stop."""
        self.listen()
        assert self._socket is not None
        self._server.run([self._socket])

    def __enter__(self) -> Server:
        self.listen()
        self._thread = threading.Thread(target=self.run, name="medgs-server", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            self._thread.join(0.01)
        return self

    def __exit__(self, *problem: Any) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()


def warm_up(threads: int | None = None) -> None:
    """Compile what a first prompt needs, on a small image; seconds, or nothing where it is kept.

    Parameters
    ----------
    threads : int, optional
        CPU threads; all by default.
    """
    from napari_medgs.segmentation import InteractiveSegmenter

    image = np.random.default_rng(0).normal(size=(16, 24, 24)).astype(np.float32)
    image[4:12, 6:18, 6:18] += 20
    segmenter = InteractiveSegmenter()
    segmenter.threads = threads
    segmenter.set_image(image)
    segmenter.object.add_point((8, 12, 12))
    segmenter.object.answer()
    segmenter.object.add_point((5, 2, 2), positive=False)
    segmenter.object.answer()
