"""The paths of the nnInteractive protocol, version 2.6, as its clients call them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from napari_medgs import __version__
from napari_medgs.errors import ParameterError
from napari_medgs.server.http import parse_object, read_body, read_json
from napari_medgs.server.leases import Lease, LeaseStore
from napari_medgs.server.packing import PackingError, TooLargeError, pack, read_header, unpack
from napari_medgs.server.settings import MEGABYTE, ServerSettings
from napari_medgs.server.work import Prediction, WorkSession

LEASE, META = "x-lease-token", "X-Meta"
PREDICTION: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The change."}
}
LICENSE = (
    "BSD-3-Clause; no weights. napari-medgs fits Gaussians to your image and learns from your "
    "prompts alone. Research software, no medical device."
)
KINDS = ("points", "bbox2d", "bbox3d", "lasso", "scribble")
SESSION_VERSION = 2
SCRIBBLE_THICKNESS = [3, 3, 3]  # voxels along the axes
Act = Callable[[WorkSession], Any]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class PointBody(_Body):
    """A click."""

    coordinates: list[FiniteFloat] = Field(min_length=3, max_length=3)
    include_interaction: bool = True
    run_prediction: bool = True


class BoxBody(_Body):
    """A box: three [start, stop) pairs."""

    bbox_coords: list[list[FiniteFloat]] = Field(min_length=3, max_length=3)
    include_interaction: bool = True
    run_prediction: bool = True


class BufferBody(_Body):
    """The client's buffer."""

    shape: list[int] = Field(min_length=3, max_length=3)
    dtype: str = Field(max_length=20)


class MaskMeta(_Body):
    """What comes beside a mask."""

    include_interaction: bool = True
    run_prediction: bool = True
    interaction_bbox: list[list[int]] | None = Field(default=None, min_length=3, max_length=3)


class InitialMeta(_Body):
    """What comes beside an initial mask."""

    run_prediction: bool = False


class ImageProperties(_Body):
    """Geometry of an image, in the order of the array's axes."""

    spacing: list[FiniteFloat] | None = Field(default=None, min_length=3, max_length=3)


class ImageMeta(_Body):
    """What comes beside an image."""

    image_properties: ImageProperties = Field(default_factory=ImageProperties)


def answer(prediction: Prediction) -> Response:
    """Return a prediction as clients expect it."""
    labels = prediction.labels
    meta = {
        "ran_prediction": prediction.ran,
        "bbox": prediction.box,
        "dtype": None if labels is None else labels.dtype.name,
        "shape": None if labels is None else list(labels.shape),
    }
    body = b"" if labels is None else pack(labels)
    headers = {META: json.dumps(meta, separators=(",", ":"))}
    return Response(body, media_type="application/octet-stream", headers=headers)


def read_meta(request: Request, model: type[BaseModel]) -> Any:
    """Return what stands beside a binary body.

    Raises
    ------
    MedGSError
        When it is no JSON of that form.
    """
    from pydantic import ValidationError

    record = parse_object(request.headers.get(META, "{}"), f"header {META}")
    try:
        return model.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"])
        raise ParameterError(f"The header {META}, {place}: {first['msg']}.") from None


def pairs(values: list[list[Any]], shape: tuple[int, ...] | None = None) -> list[tuple[int, int]]:
    """Return [start, stop) pairs rounded to voxels, within a shape where one is given.

    Raises
    ------
    ParameterError
        When they are none.

    Examples
    --------
    >>> pairs([[0, 2], [1.2, 3.0], [2.5, 2.7]])
    [(0, 2), (1, 3), (3, 4)]
    """
    found = []
    for axis, pair in enumerate(values):
        if len(pair) != 2 or any(abs(v) > 2**31 for v in pair):
            raise ParameterError("A box is three pairs of voxel indices, start and stop.")
        if pair[1] <= pair[0]:
            raise ParameterError(f"The box is empty along axis {axis}.")
        start = int(np.floor(pair[0] + 0.5))
        stop = max(int(np.floor(pair[1] + 0.5)), start + 1)
        if shape is not None and not (start >= 0 and stop <= shape[axis]):
            raise ParameterError("The box of the mask lies outside of the image.")
        found.append((start, stop))
    return found


class Handler:
    """What the routes share: leases, settings and how a request reaches its session.

    Parameters
    ----------
    settings : ServerSettings
    store : LeaseStore
    """

    def __init__(self, settings: ServerSettings, store: LeaseStore[WorkSession]) -> None:
        self.settings, self.store = settings, store

    async def act(self, request: Request, act: Act, *, acts: bool = True) -> Any:
        """Do something with the session of a request, in a thread, one at a time.

        Parameters
        ----------
        request : Request
        act : callable
            Takes the session.
        acts : bool
            Whether it counts as an action of the user.
        """
        token = request.headers.get(LEASE, "")

        def work() -> Any:
            with self.store.use(token, acts=acts) as lease, lease.held.lock:
                return act(lease.held)

        return await run_in_threadpool(work)

    def check(self, request: Request) -> Lease[WorkSession]:
        """Return the lease of a request without touching its clocks."""
        with self.store.use(request.headers.get(LEASE, ""), quiet=True) as lease:
            return lease

    async def mask_body(self, request: Request) -> bytes:
        """Return a packed mask; it may be as large as the image."""
        shape = self.check(request).held.shape
        if shape is None:
            raise ParameterError("There is no image yet: set one first.")
        voxels = int(np.prod(shape, dtype=np.int64))
        return await read_body(request, min(self.body_bytes, 8 * voxels + MEGABYTE))

    @property
    def body_bytes(self) -> int:
        """Most bytes of a body."""
        return self.settings.max_body_mb * MEGABYTE

    def image_of(self, body: bytes) -> NDArray[Any]:
        """Return the image of a body.

        Raises
        ------
        PackingError, TooLargeError
            When it is none, or larger than allowed; before memory is taken.
        """
        header = read_header(body)
        if len(header.shape) != 4:
            raise PackingError(
                "An image has four axes: channel, then three of space; this one has "
                f"{len(header.shape)}."
            )
        channels, *shape = header.shape
        voxels = int(np.prod(shape, dtype=object))
        if channels > self.settings.max_channels:
            raise TooLargeError(
                f"The image has {channels} channels; at most {self.settings.max_channels} are "
                "allowed."
            )
        if voxels > self.settings.max_voxels:
            raise TooLargeError(
                f"The image has {voxels:,} voxels; at most {self.settings.max_voxels:,} are "
                "allowed."
            )
        from napari_medgs._util.memory import free_bytes

        return unpack(body, max_bytes=free_bytes() // 2)


def mask_of(body: bytes, work: WorkSession, box: list[list[int]] | None = None) -> Any:
    """Return a boolean mask of the image's shape from a packed mask of the image or of a box."""
    shape = work.need().session.grid.shape
    window = None if box is None else pairs(box, shape)
    wanted = shape if window is None else tuple(b - a for a, b in window)
    small = unpack(body, max_bytes=8 * int(np.prod(wanted, dtype=np.int64)), shapes=[wanted])
    if window is None:
        return small != 0
    full = np.zeros(shape, np.bool_)
    full[tuple(slice(a, b) for a, b in window)] = small != 0
    return full


def compat_routes(handler: Handler) -> APIRouter:
    """Return the routes.

    Parameters
    ----------
    handler : Handler
    """
    router, store, settings = APIRouter(tags=["nnInteractive"]), handler.store, handler.settings

    @router.get("/healthz")
    async def healthz() -> dict[str, bool]:
        """Say that the server runs; needs no key."""
        return {"ok": True}

    @router.post("/claim")
    async def claim() -> dict[str, Any]:
        """Begin a session. Its token goes into the header X-Lease-Token of all other requests."""
        lease = store.claim()
        return {
            "lease_token": lease.token,
            "idle_timeout_seconds": settings.idle_timeout,
            "liveness_timeout_seconds": settings.liveness_timeout,
            "max_sessions": settings.max_sessions,
        }

    @router.post("/release")
    async def release(request: Request) -> dict[str, bool]:
        """End the session and free its memory."""
        token = request.headers.get(LEASE, "")
        return {"released": await run_in_threadpool(store.release, token)}

    @router.post("/heartbeat")
    async def heartbeat(request: Request) -> dict[str, float]:
        """Say that the client is alive; the clock of idleness goes on."""
        with store.use(request.headers.get(LEASE, ""), acts=False) as lease:
            return {"remaining_seconds": store.remaining(lease)}

    @router.get("/lease_status")
    async def lease_status(request: Request) -> dict[str, float]:
        """Say how long the session has, without touching its clocks."""
        lease = handler.check(request)
        return {
            "remaining_seconds": store.remaining(lease),
            "idle_timeout_seconds": settings.idle_timeout,
        }

    @router.get("/capabilities")
    async def capabilities(request: Request) -> dict[str, Any]:
        """Say which prompts there are."""
        handler.check(request)
        channels = {kind: [2 * k + 1, 2 * k + 2] for k, kind in enumerate(KINDS)}
        return {
            "supported_interactions": dict.fromkeys(KINDS, True),
            "channel_mapping": {"prev_seg": 0, **channels},
            "num_interaction_channels": 1 + 2 * len(KINDS),
            "supports_initial_label": True,
            "supports_zero_shot_label_refinement": True,
            "preferred_scribble_thickness": SCRIBBLE_THICKNESS,
            "interaction_decay": 1.0,
            "patch_size": None,
            "do_autozoom": True,
            "inference_session_version": SESSION_VERSION,
            "license": LICENSE,
            "supports_undo": True,
            "engine": "napari-medgs",
            "engine_version": __version__,
        }

    @router.post("/set_image")
    async def set_image(request: Request) -> dict[str, Any]:
        """Take an image, a packed (C, X, Y, Z) array; its preparation goes on in the background.

        X-Meta: ``{"image_properties": {"spacing": [x, y, z]}}`` in the order of the axes.
        """
        handler.check(request)
        meta = read_meta(request, ImageMeta)
        body = await read_body(request, handler.body_bytes)

        def act(work: WorkSession) -> dict[str, Any]:
            work.drop_image()
            image = handler.image_of(body)
            work.set_image(image, meta.image_properties.spacing)
            return {"original_image_shape": list(image.shape)}

        return await handler.act(request, act)

    @router.post("/set_target_buffer")
    async def set_target_buffer(request: Request, body: BufferBody) -> dict[str, Any]:
        """Take note of shape and type of the client's buffer."""
        await handler.act(request, lambda work: work.set_target(body.shape, body.dtype))
        return {}

    @router.post("/reset_interactions")
    async def reset_interactions(request: Request) -> dict[str, Any]:
        """Begin with the next object."""
        await read_json(request)
        await handler.act(request, lambda work: work.reset())
        return {}

    @router.post("/set_do_autozoom")
    async def set_do_autozoom(request: Request) -> dict[str, Any]:
        """Take note; the whole image is always looked at."""
        record = await read_json(request)
        value = bool(record.get("do_autozoom", True))
        await handler.act(request, lambda work: setattr(work, "autozoom", value))
        return {}

    @router.post("/predict", responses=PREDICTION)
    async def predict(request: Request) -> Response:
        """Answer the prompts that were added without an answer."""
        await read_json(request)
        return answer(await handler.act(request, lambda work: work.predict()))

    @router.post("/undo", responses=PREDICTION)
    async def undo(request: Request) -> Response:
        """Take the last interaction back."""
        await read_json(request)
        return answer(await handler.act(request, lambda work: work.undo()))

    @router.post("/add_point_interaction", responses=PREDICTION)
    async def add_point(request: Request, body: PointBody) -> Response:
        """Click on a voxel of the object, or of what is not of it."""
        include = body.include_interaction

        def act(work: WorkSession) -> Prediction:
            return work.interact(
                lambda tool: tool.add_point(body.coordinates, include), body.run_prediction
            )

        return answer(await handler.act(request, act))

    @router.post("/add_bbox_interaction", responses=PREDICTION)
    async def add_bbox(request: Request, body: BoxBody) -> Response:
        """Draw a box around the object; one voxel thick along an axis for one in a slice."""
        sides = pairs(body.bbox_coords)
        start, stop = [a for a, _ in sides], [b for _, b in sides]

        def act(work: WorkSession) -> Prediction:
            return work.interact(
                lambda tool: tool.add_box(start, stop, body.include_interaction),
                body.run_prediction,
            )

        return answer(await handler.act(request, act))

    async def mask_prompt(request: Request, kind: str) -> Response:
        meta = read_meta(request, MaskMeta)
        body = await handler.mask_body(request)

        def act(work: WorkSession) -> Prediction:
            mask = mask_of(body, work, meta.interaction_bbox)
            return work.interact(
                lambda tool: getattr(tool, kind)(mask, meta.include_interaction),
                meta.run_prediction,
            )

        return answer(await handler.act(request, act))

    @router.post("/add_scribble_interaction", responses=PREDICTION)
    async def add_scribble(request: Request) -> Response:
        """Mark voxels: a packed mask of the image, or of ``interaction_bbox`` in X-Meta."""
        return await mask_prompt(request, "add_scribble")

    @router.post("/add_lasso_interaction", responses=PREDICTION)
    async def add_lasso(request: Request) -> Response:
        """Draw around the object: a packed mask of all that is inside, as for scribbles."""
        return await mask_prompt(request, "add_lasso")

    @router.post("/add_initial_seg_interaction", responses=PREDICTION)
    async def add_initial_seg(request: Request) -> Response:
        """Begin with a mask, packed, of the image's shape."""
        meta = read_meta(request, InitialMeta)
        body = await handler.mask_body(request)
        return answer(
            await handler.act(
                request, lambda work: work.set_mask(mask_of(body, work), meta.run_prediction)
            )
        )

    return router
