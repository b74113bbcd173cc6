"""Our own paths beside those of the protocol, under /v1: what clients of it do not know."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from napari_medgs.errors import MedGSError, ParameterError
from napari_medgs.server.compat import MaskMeta
from napari_medgs.server.handler import (
    META,
    PREDICTION,
    Handler,
    answer,
    mask_of,
    read_meta,
)
from napari_medgs.server.http import parse_object, read_body, read_json
from napari_medgs.server.packing import pack
from napari_medgs.server.settings import MEGABYTE
from napari_medgs.server.work import Prediction, WorkSession

MOST_LABEL = 250
SESSION_BYTES = 64 * MEGABYTE
PACKED: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LevelBody(_Body):
    """Sizes up or down."""

    steps: int = Field(ge=-100, le=100)


class ClassPoint(_Body):
    """A click on a class."""

    label: int = Field(ge=0, le=MOST_LABEL)
    coordinates: list[FiniteFloat] = Field(min_length=3, max_length=3)


class ClassMeta(MaskMeta):
    """What comes beside a scribble of a class."""

    label: int = Field(ge=0, le=MOST_LABEL)


class ProgressAnswer(BaseModel):
    """How far an image is prepared."""

    stage: Literal["none", "waiting", "coarse", "fine", "model", "ready", "failed"]
    detail: str
    done: int
    total: int


class SuggestionAnswer(BaseModel):
    """A slice where one more scribble helps most."""

    axis: int
    index: int
    position: list[int]
    score: float


class LevelAnswer(BaseModel):
    """The sizes of the part under the first click."""

    level: int
    milliliters: list[float]


def own_routes(handler: Handler) -> APIRouter:
    """Return the routes.

    Parameters
    ----------
    handler : Handler
    """
    router = APIRouter(prefix="/v1", tags=["napari-medgs"])

    @router.get("/progress", response_model=ProgressAnswer)
    async def progress(request: Request) -> dict[str, Any]:
        """Say how far the image is prepared; leaves the clocks alone."""
        work = handler.check(request).held
        if work.preparation is None:
            return {"stage": "none", "detail": "", "done": 0, "total": 0}
        stage = work.preparation.stage
        return {
            "stage": stage.name, "detail": stage.detail, "done": stage.done, "total": stage.total
        }  # fmt: skip

    @router.get("/levels", response_model=LevelAnswer)
    async def levels(request: Request) -> dict[str, Any]:
        """List the sizes that the place of the first click has."""
        return await handler.act(request, _levels, acts=False)

    @router.post("/level", responses=PREDICTION)
    async def level(request: Request, body: LevelBody) -> Response:
        """Take a larger or a smaller part at the place of the first click."""

        def act(work: WorkSession) -> Prediction:
            return work.resize(body.steps)

        return answer(await handler.act(request, act))

    @router.post("/points")
    async def points(request: Request, body: ClassPoint) -> dict[str, Any]:
        """Click on a class; 0 is background. Solved by /v1/solve."""

        def act(work: WorkSession) -> dict[str, Any]:
            place = body.coordinates
            work.record(lambda segmenter: segmenter.add_point(body.label, place))
            return {}

        return await handler.act(request, act)

    @router.post("/scribbles")
    async def scribbles(request: Request) -> dict[str, Any]:
        """Mark voxels of a class, ``label`` in X-Meta, with a packed mask as for scribbles."""
        meta = read_meta(request, ClassMeta)
        body = await handler.mask_body(request)

        def act(work: WorkSession) -> dict[str, Any]:
            mask = mask_of(body, work, meta.interaction_bbox)
            work.record(lambda segmenter: segmenter.add_scribble(meta.label, mask))
            return {}

        return await handler.act(request, act)

    @router.post("/solve", responses=PREDICTION)
    async def solve(request: Request) -> Response:
        """Solve all prompts in the whole image, every class at once."""
        await read_json(request)
        return answer(await handler.act(request, lambda work: work.solve()))

    @router.get("/labels", responses=PACKED)
    async def labels(request: Request) -> Response:
        """Return the mask as it is now, packed."""

        def act(work: WorkSession) -> bytes:
            return pack(work.need().labels.astype(np.uint8))

        return _binary(await handler.act(request, act, acts=False))

    @router.get("/presegmentation", responses=PACKED)
    async def presegmentation(request: Request) -> Response:
        """Return the mask of the server's model, packed; names of its classes in X-Meta."""

        def act(work: WorkSession) -> tuple[bytes, dict[int, str]]:
            work.need()
            preparation = work.preparation
            assert preparation is not None
            if preparation.refusal:
                raise ParameterError(
                    f"The server's model does not segment this image: {preparation.refusal}"
                )
            if preparation.hints is None:
                raise ParameterError(
                    "There is no mask of a model: the server has none, or it is not done yet."
                )
            return pack(preparation.hints), preparation.names

        data, names = await handler.act(request, act, acts=False)
        answered = _binary(data)
        answered.headers[META] = json.dumps({"names": names})
        return answered

    @router.get("/uncertainty", responses=PACKED)
    async def uncertainty(request: Request) -> Response:
        """Return the probability that each voxel of a full solve is wrong, packed float32."""

        def act(work: WorkSession) -> bytes:
            return pack(work.full().uncertainty())

        return _binary(await handler.act(request, act))

    @router.get("/suggestions", response_model=list[SuggestionAnswer])
    async def suggestions(
        request: Request, count: int = Query(default=1, ge=1, le=20)
    ) -> list[dict[str, Any]]:
        """Return the slices where one more scribble helps most, judged by a full solve."""

        def act(work: WorkSession) -> list[dict[str, Any]]:
            work.full()
            return [
                {
                    "axis": s.axis,
                    "index": s.index,
                    "position": [int(p) for p in s.position],
                    "score": float(s.score),
                }
                for s in work.need().suggest(count, update=False)
            ]

        return await handler.act(request, act)

    @router.get("/mesh", responses={200: {"content": {"model/stl": {}}}})
    async def mesh(
        request: Request,
        label: int = Query(default=1, ge=1, le=MOST_LABEL),
        form: Literal["stl", "ply"] = "stl",
    ) -> Response:
        """Return a closed surface of the mask, in mm along the array's axes."""

        def act(work: WorkSession) -> bytes:
            return _mesh(work, label, form)

        data = await handler.act(request, act)
        return Response(data, media_type=f"model/{form}")

    @router.get("/session")
    async def save(request: Request) -> Response:
        """Return prompts, settings, history and mask as JSON."""
        text = await handler.act(request, _save)
        return Response(text, media_type="application/json")

    @router.put("/session", responses=PREDICTION)
    async def load(request: Request) -> Response:
        """Go on with a session that was saved on the same image."""
        handler.check(request)
        record = parse_object(await read_body(request, SESSION_BYTES), "session")
        return answer(await handler.act(request, lambda work: _load(work, record)))

    return router


def _binary(data: bytes) -> Response:
    return Response(data, media_type="application/octet-stream")


def _levels(work: WorkSession) -> dict[str, Any]:
    part, tree = work.part(), work.need().parts.tree()
    sizes = [sum(tree.milliliters(node) for node in nodes) for nodes in part.levels]
    return {"level": part.level, "milliliters": sizes}


def _mesh(work: WorkSession, label: int, form: str) -> bytes:
    from napari_medgs.meshing import MeshParams, mesh_from_labels

    segmenter = work.need()
    grid, labels = segmenter.session.grid, segmenter.labels
    if not (labels == label).any():
        raise ParameterError(f"The mask has no voxel of the label {label}.")
    surface = mesh_from_labels(labels, grid, MeshParams(labels=(label,)))[label]
    inverse = np.linalg.inv(grid.affine)
    voxels = surface.vertices @ inverse[:3, :3].T + inverse[:3, 3]
    surface.vertices = voxels * np.asarray(grid.spacing)
    if np.linalg.det(inverse[:3, :3]) < 0:
        surface.invert()
    data = surface.export(file_type=form)
    return data if isinstance(data, bytes) else str(data).encode()


def _save(work: WorkSession) -> str:
    from napari_medgs.segmentation.session.runs import encode_image

    segmenter = work.need()
    with tempfile.TemporaryDirectory(prefix="medgs-") as folder:
        record = json.loads(segmenter.save(Path(folder) / "session.json").read_text("utf-8"))
    record["mask"] = encode_image(segmenter.labels)
    return json.dumps(record, separators=(",", ":"))


def _load(work: WorkSession, record: dict[str, Any]) -> Prediction:
    from napari_medgs.segmentation.session.replay import load_session
    from napari_medgs.segmentation.session.runs import decode_image

    segmenter = work.need()
    runs = record.pop("mask", [])
    _check_record(record)
    with tempfile.TemporaryDirectory(prefix="medgs-") as folder:
        path = Path(folder) / "session.json"
        path.write_text(json.dumps(record), "utf-8")
        try:
            session, _ = load_session(path, segmenter.session.grid)
            mask = decode_image(runs, segmenter.labels.shape)
        except (MedGSError, TypeError, ValueError, OverflowError, IndexError) as error:
            says = str(error).replace(f"{path}: ", "")
            raise ParameterError(f"The session cannot be loaded: {says}") from None
    if mask.min() < 0 or mask.max() > MOST_LABEL:
        raise ParameterError(f"The mask of the session has labels beyond 0 to {MOST_LABEL}.")
    return work.go_on(session, mask)


def _check_record(record: dict[str, Any]) -> None:
    """Refuse sessions that name files; settings of the solver stay the server's own."""
    from napari_medgs.segmentation import SegmentParams

    events = record.get("events", [])
    if not isinstance(events, list) or not all(isinstance(e, dict) for e in events):
        raise ParameterError("The session has no list of events.")
    if any(event.get("do") == "prior" for event in events):
        raise ParameterError("Sessions with probabilities of their own stay on their machine.")
    for settings in (record.get("start"), *(event.get("settings") for event in events)):
        if isinstance(settings, dict):
            settings["params"] = SegmentParams().to_dict()
