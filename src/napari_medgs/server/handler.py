"""What all routes share: the way from a request to its session, and from a mask to an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from numpy.typing import NDArray
from pydantic import BaseModel

from napari_medgs._util.memory import free_bytes
from napari_medgs.errors import ParameterError
from napari_medgs.server.http import parse_object, read_body
from napari_medgs.server.leases import Lease, LeaseStore
from napari_medgs.server.packing import PackingError, TooLargeError, pack, read_header, unpack
from napari_medgs.server.settings import MEGABYTE, ServerSettings
from napari_medgs.server.work import Prediction, WorkSession

LEASE, META = "x-lease-token", "X-Meta"
PREDICTION: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The change."}
}
Act = Callable[[WorkSession], Any]
Meta = TypeVar("Meta", bound=BaseModel)


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


def read_meta(request: Request, model: type[Meta]) -> Meta:
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
        return await self.act_with(request.headers.get(LEASE, ""), act, acts=acts)

    async def act_with(self, token: str, act: Act, *, acts: bool = True) -> Any:
        """Do something with the session of a token; see :meth:`act`."""

        def work() -> Any:
            with self.store.use(token, acts=acts) as lease, lease.held.lock:
                return act(lease.held)

        return await run_in_threadpool(work)

    def check(self, request: Request) -> Lease[WorkSession]:
        """Return the lease of a request without touching its clocks."""
        return self.check_token(request.headers.get(LEASE, ""))

    def check_token(self, token: str) -> Lease[WorkSession]:
        """Return the lease of a token without touching its clocks."""
        with self.store.use(token, quiet=True) as lease:
            return lease

    async def mask_body(self, request: Request, token: str | None = None) -> bytes:
        """Return the body that holds a mask; it may be as large as the image."""
        voxels = self.voxels(request.headers.get(LEASE, "") if token is None else token)
        return await read_body(request, min(self.body_bytes, 8 * voxels + MEGABYTE))

    def voxels(self, token: str) -> int:
        """Return the number of voxels of a session's image.

        Raises
        ------
        ParameterError
            Before there is one.
        """
        shape = self.check_token(token).held.shape
        if shape is None:
            raise ParameterError("There is no image yet: set one first.")
        return int(np.prod(shape, dtype=np.int64))

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
        self.check_image(header.shape)
        return unpack(body, max_bytes=free_bytes() // 2)

    def check_image(self, shape: tuple[int, ...]) -> None:
        """Refuse images larger than allowed.

        Parameters
        ----------
        shape : (C, X, Y, Z)

        Raises
        ------
        TooLargeError
        """
        channels = shape[0]
        voxels = int(np.prod(shape[1:], dtype=object))
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


def mask_of(
    body: bytes, work: WorkSession, box: list[list[int]] | None = None
) -> NDArray[np.bool_]:
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
