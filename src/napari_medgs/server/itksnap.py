"""The paths that ITK-SNAP calls from version 4.4 on: those of its deep-learning service.

Its older builds call the paths without ``/v2``. Sessions are named in the path. Axes of masks and
images are x, y, z there, x being the fastest in memory: the arrays are ours, (z, y, x).
"""

from __future__ import annotations

import base64
import gzip
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, PositiveFloat, PositiveInt, ValidationError

from napari_medgs import __version__
from napari_medgs._util.memory import free_bytes
from napari_medgs.errors import ParameterError
from napari_medgs.server.handler import Act, Handler
from napari_medgs.server.http import read_body
from napari_medgs.server.packing import PackingError, TooLargeError
from napari_medgs.server.uploads import Form, field, gunzip, read_form
from napari_medgs.server.work import WorkSession

SERVICE_VERSION = "0.1.0"  # of the protocol: ITK-SNAP asks for this one at least
MODEL = "napari-medgs"
COMPRESSION = 1  # of gzip
Session = Annotated[str, "names the session"]


class Metadata(BaseModel):
    """Geometry of an image, in the order x, y, z."""

    dimensions: list[PositiveInt] = Field(min_length=3, max_length=3)
    spacing: list[PositiveFloat] | None = Field(default=None, min_length=3, max_length=3)
    components_per_pixel: int = Field(default=1, ge=1, le=100)


def read_image(form: Form, handler: Handler, most: int) -> tuple[NDArray[Any], Metadata]:
    """Return the array of a form, (C, Z, Y, X), and its geometry.

    Parameters
    ----------
    form : dict
        With the fields "file" and "metadata".
    handler : Handler
    most : int
        Bytes of the array.

    Raises
    ------
    PackingError, TooLargeError
        When it is damaged, or larger than allowed.
    """
    try:
        meta = Metadata.model_validate_json(bytes(field(form, "metadata")))
    except ValidationError as error:
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"])
        raise PackingError(f"The metadata, {place}: {first['msg']}.") from None
    shape = (*meta.dimensions[::-1], meta.components_per_pixel)
    handler.check_image((shape[3], *shape[:3]))
    nbytes = 4 * int(np.prod(shape, dtype=object))
    if nbytes > most:
        raise TooLargeError(f"The image is larger than {most / 1e6:.1f} MB.")
    says = "The image has not as many voxels as its metadata say."
    try:
        data = gunzip(field(form, "file"), nbytes)
    except TooLargeError:
        raise PackingError(says) from None
    if len(data) != nbytes:
        raise PackingError(says)
    array = np.frombuffer(data, "<f4").reshape(shape)
    return np.moveaxis(array, 3, 0), meta


def itksnap_routes(handler: Handler) -> APIRouter:
    """Return the routes.

    Parameters
    ----------
    handler : Handler
    """
    router = APIRouter(tags=["ITK-SNAP"])

    @router.get("/status")
    async def status() -> dict[str, str]:
        """Say that the server runs, and which version of the protocol it speaks."""
        return {
            "status": "ok",
            "version": SERVICE_VERSION,
            "engine": "napari-medgs",
            "engine_version": __version__,
        }

    @router.get("/v2/models")
    async def models() -> dict[str, Any]:
        """List the one engine."""
        kinds = ["point", "box", "scribble", "lasso"]
        return {"models": [{"id": MODEL, "dimensions": 3, "channels": [1], "interactions": kinds}]}

    async def begin() -> dict[str, str]:
        lease = await run_in_threadpool(handler.store.claim, beats=False)
        return {"session_id": lease.token}

    @router.get("/start_session")
    async def start() -> dict[str, str]:
        """Begin a session."""
        return await begin()

    @router.get("/v2/start_session/{model_id}")
    async def start_with(model_id: str) -> dict[str, str]:
        """Begin a session; there is one engine, whatever the name."""
        return await begin()

    @router.post("/upload_raw/{session_id}")
    @router.post("/v2/upload_raw/{session_id}")
    async def upload(request: Request, session_id: Session) -> dict[str, str]:
        """Take an image: float32 values, compressed, with a JSON of its geometry, in a form."""
        handler.check_token(session_id)
        body = await read_body(request, handler.body_bytes)
        kind = request.headers.get("content-type", "")

        def act(work: WorkSession) -> None:
            work.drop_image()
            image, meta = read_image(read_form(body, kind), handler, free_bytes() // 2)
            work.set_image(image, None if meta.spacing is None else meta.spacing[::-1])

        await handler.act_with(session_id, act)
        return {"message": "The image is being prepared."}

    async def result(session_id: str, act: Act) -> dict[str, str]:
        def work(session: WorkSession) -> str:
            act(session)
            mask = (session.need().labels != 0).astype(np.int8)
            return base64.b64encode(gzip.compress(mask.tobytes(), COMPRESSION)).decode()

        return {"status": "success", "result": await handler.act_with(session_id, work)}

    async def click(session_id: str, place: list[float], foreground: bool) -> dict[str, str]:
        return await result(
            session_id,
            lambda work: work.interact(lambda tool: tool.add_point(place, foreground), True),
        )

    @router.get("/process_point_interaction/{session_id}")
    async def point(
        session_id: Session, x: FiniteFloat, y: FiniteFloat, z: FiniteFloat,
        foreground: bool = False,
    ) -> dict[str, str]:  # fmt: skip
        """Click on a voxel."""
        return await click(session_id, [z, y, x], foreground)

    @router.get("/v2/process_point_interaction/{session_id}")
    async def point_of(
        session_id: Session, point: Annotated[list[FiniteFloat], Query()], foreground: bool = False
    ) -> dict[str, str]:
        """Click on a voxel: ``point`` three times, x, y and z."""
        if len(point) != 3:
            raise ParameterError("A place is three numbers.")
        return await click(session_id, point[::-1], foreground)

    async def drawn(
        request: Request, session_id: str, kind: str, foreground: bool
    ) -> dict[str, str]:
        voxels = handler.voxels(session_id)
        body = await handler.mask_body(request, session_id)
        form = read_form(body, request.headers.get("content-type", ""))
        values, _ = await run_in_threadpool(read_image, form, handler, 4 * voxels)
        return await result(
            session_id,
            lambda work: work.interact(
                lambda tool: getattr(tool, kind)(values[0] != 0, foreground), True
            ),
        )

    @router.post("/process_scribble_interaction/{session_id}")
    async def scribble(
        request: Request, session_id: Session, foreground: bool = False
    ) -> dict[str, str]:
        """Mark voxels: an image as for the upload, not 0 where it is marked."""
        return await drawn(request, session_id, "add_scribble", foreground)

    @router.post("/process_lasso_interaction/{session_id}")
    async def lasso(
        request: Request, session_id: Session, foreground: bool = False
    ) -> dict[str, str]:
        """Draw around the object: an image as for the upload, not 0 where it is inside."""
        return await drawn(request, session_id, "add_lasso", foreground)

    @router.get("/reset_interactions/{session_id}")
    @router.get("/v2/reset_interactions/{session_id}")
    async def reset(session_id: Session) -> dict[str, str]:
        """Begin with the next object."""
        await handler.act_with(session_id, lambda work: work.reset())
        return {"status": "success"}

    @router.get("/end_session/{session_id}")
    @router.get("/v2/end_session/{session_id}")
    async def end(session_id: Session) -> dict[str, str]:
        """End the session and free its memory."""
        ended = await run_in_threadpool(handler.store.release, session_id)
        return {"message": "Session ended" if ended else "Invalid session"}

    return router
