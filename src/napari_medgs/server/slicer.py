"""The paths that the 3D Slicer extension SlicerNNInteractive calls before its version 1.0.

They know no sessions: whoever calls them shares one image. So they exist only where the server
answers its own machine alone, without a key. Errors are answers, which the extension shows.
"""

from __future__ import annotations

import functools
import gzip
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from napari_medgs._util.memory import free_bytes
from napari_medgs.errors import MedGSError, ParameterError
from napari_medgs.server.handler import LEASE, Act, Handler
from napari_medgs.server.http import Receive, Scope, Send, read_body, read_json
from napari_medgs.server.leases import LeaseGoneError
from napari_medgs.server.packing import PackingError
from napari_medgs.server.uploads import field, gunzip, npy_header, read_form, read_npy
from napari_medgs.server.work import WorkSession

log = logging.getLogger("napari_medgs.server")

PREFIX = "/slicer"
SHARED_PATHS = frozenset(
    f"/add_{kind}_interaction" for kind in ("point", "bbox", "lasso", "scribble")
)
"""Paths that the protocol has too: requests without a session are the extension's."""
OWN_PATHS = frozenset(("/upload_image", "/upload_segment"))
NO_IMAGE = "No image uploaded"  # these words make the extension send it once more
COMPRESSION = 1  # of gzip
Voxel = Field(min_length=3, max_length=3)


class SlicerPoint(BaseModel):
    """A click."""

    voxel_coord: list[int] = Voxel
    positive_click: bool


class SlicerBox(BaseModel):
    """A box by two opposite corners, which are in it."""

    outer_point_one: list[int] = Voxel
    outer_point_two: list[int] = Voxel
    positive_click: bool


class SlicerPaths:
    """Sends requests of the extension to their routes: those that name no session.

    Parameters
    ----------
    app : ASGI application
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        path = scope.get("path", "")
        if path in OWN_PATHS or (
            path in SHARED_PATHS and LEASE.encode() not in dict(scope["headers"])
        ):
            scope["path"] = PREFIX + path
            scope["raw_path"] = scope["path"].encode()
        await self._app(scope, receive, send)


class Desk:
    """The one session of all requests that name none.

    Parameters
    ----------
    handler : Handler
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._lock = threading.Lock()
        self._token = ""

    def token(self, *, begin: bool = False) -> str:
        """Return the session's token.

        Parameters
        ----------
        begin : bool
            Whether to begin one where there is none.

        Raises
        ------
        LeaseGoneError, FullError
        """
        with self._lock:
            try:
                self._handler.check_token(self._token)
            except LeaseGoneError:
                if not begin:
                    raise
                self._token = self._handler.store.claim(beats=False).token
            return self._token

    async def mask(self, act: Act) -> Response:
        """Do something with the session, and answer its mask: a bit a voxel, compressed."""

        def work(session: WorkSession) -> bytes:
            act(session)
            labels = session.need().labels
            return gzip.compress(np.packbits(labels != 0).tobytes(), COMPRESSION)

        body = await self._handler.act_with(self.token(), work)
        return Response(
            body, media_type="application/octet-stream", headers={"Content-Encoding": "gzip"}
        )


def answered(route: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Make errors into answers, as the extension expects them."""

    @functools.wraps(route)
    async def wrapped(request: Request) -> Any:
        try:
            return await route(request)
        except LeaseGoneError:
            return {"status": "error", "message": NO_IMAGE}
        except ValidationError as error:
            first = error.errors()[0]
            place = " ".join(str(part) for part in first["loc"])
            return {"status": "error", "message": f"{place}: {first['msg']}."}
        except MedGSError as error:
            log.info("refused: %s", error)
            return {"status": "error", "message": str(error)}

    return wrapped


def slicer_routes(handler: Handler) -> APIRouter:
    """Return the routes.

    Parameters
    ----------
    handler : Handler
    """
    router = APIRouter(prefix=PREFIX, tags=["SlicerNNInteractive before 1.0"])
    desk = Desk(handler)

    def image_of(body: bytes, content_type: str) -> NDArray[Any]:
        most = min(8 * handler.settings.max_voxels, free_bytes() // 2)
        data = gunzip(field(read_form(body, content_type), "file"), most)
        shape = npy_header(data)[0]
        if len(shape) != 3:
            raise PackingError(f"An image has three axes; this one has {len(shape)}.")
        handler.check_image((1, *shape))
        return read_npy(data, most)[None]

    @router.post("/upload_image")
    @answered
    async def upload_image(request: Request) -> dict[str, str]:
        """Take an image, a NumPy file in a form; it has no spacing."""
        token = desk.token(begin=True)
        body = await read_body(request, handler.body_bytes)
        kind = request.headers.get("content-type", "")

        def act(work: WorkSession) -> None:
            work.drop_image()
            work.set_image(image_of(body, kind), None)

        await handler.act_with(token, act)
        return {"status": "ok"}

    async def form_of(request: Request) -> tuple[NDArray[np.bool_], bool]:
        token = desk.token()
        voxels = handler.voxels(token)
        body = await handler.mask_body(request, token)
        form = read_form(body, request.headers.get("content-type", ""))
        mask = read_npy(field(form, "file"), 8 * voxels) != 0
        sign = bytes(form.get("positive_click", memoryview(b"true"))[:10]).lower()
        return mask, sign in (b"true", b"1", b"yes")

    @router.post("/upload_segment")
    @answered
    async def upload_segment(request: Request) -> dict[str, str]:
        """Begin with a mask; an empty one begins the next object."""
        mask, _ = await form_of(request)

        def act(work: WorkSession) -> None:
            if mask.shape != work.shape:
                raise ParameterError(f"The mask has shape {mask.shape}, the image {work.shape}.")
            work.reset()
            if mask.any():
                work.set_mask(mask, False)

        await handler.act_with(desk.token(), act)
        return {"status": "ok"}

    @router.post("/add_point_interaction")
    @answered
    async def add_point(request: Request) -> Response:
        """Click on a voxel."""
        body = SlicerPoint.model_validate(await read_json(request))
        return await desk.mask(
            lambda work: work.interact(
                lambda tool: tool.add_point(body.voxel_coord, body.positive_click), True
            )
        )

    @router.post("/add_bbox_interaction")
    @answered
    async def add_box(request: Request) -> Response:
        """Draw a box."""
        body = SlicerBox.model_validate(await read_json(request))
        corners = np.clip([body.outer_point_one, body.outer_point_two], -(2**31), 2**31)
        start, stop = corners.min(axis=0), corners.max(axis=0) + 1
        return await desk.mask(
            lambda work: work.interact(
                lambda tool: tool.add_box(start, stop, body.positive_click), True
            )
        )

    async def add_mask(request: Request, kind: str) -> Response:
        mask, positive = await form_of(request)
        return await desk.mask(
            lambda work: work.interact(lambda tool: getattr(tool, kind)(mask, positive), True)
        )

    @router.post("/add_lasso_interaction")
    @answered
    async def add_lasso(request: Request) -> Response:
        """Draw around the object: a mask of all that is inside."""
        return await add_mask(request, "add_lasso")

    @router.post("/add_scribble_interaction")
    @answered
    async def add_scribble(request: Request) -> Response:
        """Mark voxels."""
        return await add_mask(request, "add_scribble")

    return router
