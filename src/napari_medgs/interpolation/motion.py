"""Frames between slices along the trajectories of what is seen in them.

Three motion estimates of different windows and pyramids make three frames, and their mean is
returned: what they do not agree on fades to a blur instead of becoming a wrong edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import StopCallback, never_stop
from napari_medgs._util.threads import run_chunks
from napari_medgs.errors import Cancelled, ParameterError
from napari_medgs.interpolation.baselines import slice_weights
from napari_medgs.interpolation.flow import (
    Flow,
    FlowParams,
    check_stack,
    estimate_flow,
    noise_sigma,
)

DEFAULT_FLOWS = (
    FlowParams(window=1.2, along=1.0),
    FlowParams(window=2.0, levels=3),
    FlowParams(window=6.0, levels=3, ridge=60.0),
)


@dataclass(frozen=True)
class MotionParams:
    """Settings of the motion-compensated interpolant.

    Attributes
    ----------
    flows : tuple of FlowParams
        The motion estimates whose frames are averaged.
    cubic : float
        Share of the cubic along the trajectory, the rest being linear; 0 to 1.
    """

    flows: tuple[FlowParams, ...] = DEFAULT_FLOWS
    cubic: float = 0.8

    def __post_init__(self) -> None:
        if not self.flows or not 0 <= self.cubic <= 1:
            raise ParameterError("Motion needs at least one estimate and a cubic share in 0..1.")


def interpolate_stack(
    stack: Floats,
    positions: NDArray[Any],
    wanted: NDArray[Any],
    params: MotionParams | None = None,
    *,
    threads: int | None = None,
    should_stop: StopCallback = never_stop,
) -> tuple[Floats, Flow]:
    """Interpolate slices along their structures' trajectories.

    Parameters
    ----------
    stack : (Z, Y, X) or (C, Z, Y, X) ndarray of float32
        Channels share the motion.
    positions : (Z,) array_like
        Increasing positions of the slices, in any unit; gaps may differ.
    wanted : (W,) array_like
        Positions of the frames; beyond the ends the outermost slice is repeated.
    params : MotionParams, optional
    threads : int, optional
        CPU threads; all by default.
    should_stop : callable
        Asked between motion estimates.

    Returns
    -------
    frames : (W, Y, X) or (C, W, Y, X) ndarray of float32
    flow : Flow
        The mean of the motion estimates, for slopes of folds.

    Raises
    ------
    GeometryError
        If positions do not fit the slices.
    Cancelled
        If ``should_stop`` says so.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.interpolation import interpolate_stack
    >>> x = np.arange(32.0)
    >>> bump = [np.exp(-0.05 * (x - c) ** 2) + 0 * x[:, None] for c in (13.0, 15.0, 17.0)]
    >>> frames, flow = interpolate_stack(np.array(bump, np.float32), [0, 1, 2], [0.5])
    >>> int(frames[0, 16].argmax())
    14
    """
    data = np.asarray(stack, np.float32)
    channels = np.ascontiguousarray(data if data.ndim == 4 else data[None])
    where = np.asarray(positions, np.float64)
    check_stack(channels[0], where)
    settings = params or MotionParams()
    noise = np.array([noise_sigma(channel) for channel in channels])
    frames = np.zeros((len(channels), len(np.asarray(wanted)), *channels.shape[2:]), np.float32)
    mean = np.zeros((len(where) - 1, 2, *channels.shape[2:]), np.float32)
    for one in settings.flows:
        if should_stop():
            raise Cancelled("The interpolation between slices was canceled.")
        flow = estimate_flow(channels, where, one, noise=noise, threads=threads)
        mean += flow.half_displacement / np.float32(len(settings.flows))
        compensate(channels, flow, wanted, frames, cubic=settings.cubic, threads=threads)
    frames /= np.float32(len(settings.flows))
    return (frames if data.ndim == 4 else frames[0]), Flow(mean, where)


def compensate(
    stack: Floats,
    flow: Flow,
    wanted: NDArray[Any] | Sequence[float],
    out: Floats,
    *,
    cubic: float = 0.8,
    threads: int | None = None,
) -> None:
    """Add frames along the trajectories of a known motion to ``out``.

    Parameters
    ----------
    stack : (C, Z, Y, X) ndarray of float32
        At the flow's positions; need not be what the flow was estimated from.
    flow : Flow
    wanted : (W,) array_like
    out : (C, W, Y, X) ndarray of float32
    cubic : float
    threads : int, optional
        CPU threads; all by default.
    """
    from napari_medgs.interpolation.kernels import follow

    still = len(flow.half_displacement) == 0 or min(stack.shape[2:]) < 2
    where = flow.positions
    frames = np.clip(np.asarray(wanted, np.float64), where[0], where[-1])

    def task(k: int) -> None:
        if len(where) == 1:
            out[:, k] += stack[:, 0]
            return
        index, share, weights = slice_weights(where, frames[k], cubic)
        if still or share in (0.0, 1.0):
            used = np.flatnonzero(weights)
            mix = weights[used].astype(np.float32)
            out[:, k] += np.tensordot(stack[:, index - 1 + used], mix, axes=(1, 0))
            return
        reach = np.float32(2 * share - 1)
        frame = np.zeros((len(stack), *stack.shape[2:]), np.float32)
        follow(stack, flow.half_displacement, index, reach, weights.astype(np.float32), frame)
        out[:, k] += frame

    run_chunks(task, len(frames), threads)
