"""The paths of the nnInteractive protocol, version 2.6, as its clients call them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from napari_medgs import __version__
from napari_medgs.server.handler import (
    LEASE,
    PREDICTION,
    Handler,
    answer,
    mask_of,
    pairs,
    read_meta,
)
from napari_medgs.server.http import read_body, read_json
from napari_medgs.server.work import Prediction, WorkSession

LICENSE = (
    "BSD-3-Clause; no weights. napari-medgs fits Gaussians to your image and learns from your "
    "prompts alone. Research software, no medical device."
)
KINDS = ("points", "bbox2d", "bbox3d", "lasso", "scribble")
SESSION_VERSION = 2
SCRIBBLE_THICKNESS = [3, 3, 3]  # voxels along the axes


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
