"""Fit a field of folded Gaussians to a volume, its mask, or both."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs._typing import Floats
from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.errors import ParameterError
from napari_medgs.fitting.class_slots import class_slots
from napari_medgs.fitting.memory import check_memory
from napari_medgs.fitting.optim.loop import FitLoop
from napari_medgs.fitting.optim.state import FitStage, LoopState, StopReason
from napari_medgs.fitting.params import FitParams
from napari_medgs.fitting.problem import make_problem
from napari_medgs.fitting.quality import explain_shortfall, measure_fit
from napari_medgs.fitting.start import (
    check_start,
    moved_to_crop,
    place_start,
    smallest_slice_sigma,
    start_from,
    through_plane_targets,
    without_image,
)
from napari_medgs.fitting.strategy.base import Strategy
from napari_medgs.fitting.strategy.prune import Prune
from napari_medgs.fitting.through_plane import ThroughPlaneTargets, stretch
from napari_medgs.rendering.engine import EngineSpec
from napari_medgs.rendering.parameters import GEOMETRY, from_parameters

ATTEMPTS, MARGIN_DB = 3, 0.02  # to reach a quality on the whole image, and by how much more


@dataclass
class FitResult:
    """What a fit returns.

    Attributes
    ----------
    field : GaussianField
    metrics : dict
        psnr (dB), ssim, dice per label, seconds, n_gaussians, bytes, backend, iterations and,
        with held-out slices, their psnr_heldout, ssim_heldout and those of linear and cubic
        interpolation; quality_missed, a sentence, where the wanted quality was not reached.
        JSON-able.
    history : list of dict
        iteration, psnr, seconds, gaussians of every step.
    stopped_by : StopReason
        A string: "iterations", "quality", "time" or "cancelled".
    positions : list of (int, (N, 3) ndarray)
        Snapshots of the centers x, y, t by iteration, when asked for.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> volume = mg.Volume.from_array(np.eye(16, dtype=np.float32)[None])
    >>> result = mg.fit(volume, mg.FitParams(gaussians=40, iterations=5))
    >>> [entry["iteration"] for entry in result.history]
    [1, 2, 3, 4, 5]
    """

    field: GaussianField
    metrics: dict[str, Any]
    history: list[dict[str, Any]] = dataclass_field(default_factory=list)
    stopped_by: StopReason = StopReason.ITERATIONS
    positions: list[tuple[int, Floats]] = dataclass_field(default_factory=list)


def fit(
    volume: Volume,
    params: FitParams | None = None,
    mask: NDArray[Any] | None = None,
    *,
    class_names: dict[int, str] | None = None,
    initial: GaussianField | None = None,
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> FitResult:
    """Fit folded Gaussians to an image, to a mask, or to both at once.

    Parameters
    ----------
    volume : Volume
        One or more contrasts (C, Z, Y, X) on one grid. A single slice is a 2D image.
    params : FitParams, optional
    mask : (Z, Y, X) integer ndarray, optional
        Label values on the volume's grid; -1 marks voxels whose label is not known.
    class_names : dict, optional
        Names of label values.
    initial : GaussianField, optional
        Start from these Gaussians instead of new ones: a checkpoint, an image-only field that
        gets a mask now, or (``freeze_geometry``) a field whose geometry stays as it is.
    progress, should_stop : callable, optional
        Receive :class:`~napari_medgs._util.progress.ProgressEvent`; return True to cancel.

    Returns
    -------
    FitResult
        After a cancel: the last good field, ``stopped_by`` "cancelled".

    Raises
    ------
    MedGSError
        For unusable images, masks or settings, before work starts; ``Cancelled`` when
        cancelled before there was any field.

    Notes
    -----
    Minimizes, over all voxels at once, half the squared error of the normalized image plus
    ``lambda_seg`` times the softmax cross-entropy of the class logits, by Adam [2]_ with short
    memory and linearly decaying steps. Gaussians [1]_ are added in proportion to the squared
    error; once a target quality is met, they are left out or merged as far as it allows.

    References
    ----------
    .. [1] B. Kerbl, G. Kopanas, T. Leimkuehler and G. Drettakis, "3D Gaussian splatting for
       real-time radiance field rendering", ACM Transactions on Graphics 42 (2023).
    .. [2] D. P. Kingma and J. Ba, "Adam: A method for stochastic optimization", ICLR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import napari_medgs as mg
    >>> volume = mg.Volume.from_array(np.eye(16, dtype=np.float32)[None])
    >>> result = mg.fit(volume, mg.FitParams(gaussians=40, iterations=20))
    >>> str(result.stopped_by), len(result.field) <= 40, result.metrics["psnr"] > 10
    ('iterations', True, True)
    """
    from napari_medgs.rendering.registry import choose_engine

    params = params or FitParams()
    started = time.perf_counter()
    rng = np.random.default_rng(params.seed)
    if initial is not None:
        check_start(initial, params)
    volume = volume.prepared()
    check_memory(volume, params, mask)
    backend, make_engine = choose_engine(params.backend, params.blend)
    problem = make_problem(volume, params, mask, class_names or {})
    slots = class_slots(problem)
    if slots is not None:
        problem = slots.reduce_problem(problem)
    progress(ProgressEvent(FitStage.INITIALIZE, 0, 1, time.perf_counter() - started))
    training = problem.training_slices
    through_plane: ThroughPlaneTargets | None = None
    frozen_image: Floats | None = None
    trainable: Floats | None = None
    if initial is not None:
        parameters, problem = start_from(initial, problem, params, slots)
        through_plane = through_plane_targets(problem, params, should_stop, started)
        if through_plane is not None:
            problem, parameters = through_plane.problem, stretch(parameters, through_plane.factor)
        budget = params.gaussians or len(parameters)
        foreground = int(np.prod(problem.info.stack_shape))
        if params.freeze_geometry:
            budget = len(parameters)
            images = len(problem.target.images)
            frozen_image = parameters[:, GEOMETRY : GEOMETRY + images].copy()
            parameters = np.delete(parameters, np.s_[GEOMETRY : GEOMETRY + images], axis=1)
            trainable = np.zeros(parameters.shape[1], np.float32)
            trainable[GEOMETRY:] = 1
            full_problem, problem = problem, without_image(problem)
    else:
        if params.freeze_geometry:
            raise ParameterError("freeze_geometry needs an initial field to keep.")
        through_plane = through_plane_targets(problem, params, should_stop, started)
        if through_plane is not None:
            problem = through_plane.problem
        parameters, budget, foreground = place_start(problem, params, rng, through_plane)
    info = problem.info if frozen_image is None else full_problem.info
    background = problem.background if frozen_image is None else full_problem.background
    if slots is not None:  # only class 0 has a background
        background = np.concatenate(
            [background, np.zeros(len(slots.slot_of) - slots.count, np.float32)]
        )

    def as_field(state: LoopState) -> GaussianField:
        table = state.parameters
        if frozen_image is not None:
            table = np.concatenate([table[:, :GEOMETRY], frozen_image, table[:, GEOMETRY:]], 1)
        if through_plane is not None and through_plane.factor > 1:
            table = stretch(table, 1 / through_plane.factor)
        if slots is not None:
            table = slots.expand(table)
        table = moved_to_crop(table, problem.origin, 1)
        return from_parameters(table, background, info)

    def write_checkpoint(state: LoopState) -> None:
        from napari_medgs.io.fields import save_field

        metrics = {"iterations": state.iteration, "psnr": state.psnr, "unfinished": True}
        save_field(str(params.checkpoint), as_field(state).with_info(metrics=metrics))

    spec = EngineSpec(
        problem.shape,
        parameters.shape[1] - GEOMETRY,
        problem.background,
        degree=info.degree,
        cutoff=info.cutoff,
        eps=info.eps,
        blend=info.blend,
        threads=params.threads,
    )
    engine = make_engine(spec)
    make_loop: type[FitLoop] = FitLoop
    if backend == "cuda":
        from napari_medgs.fitting.optim.device_loop import DeviceFitLoop as make_loop
    loop = make_loop(
        problem,
        params,
        parameters,
        budget,
        smallest_slice_sigma=smallest_slice_sigma(params, through_plane),
        foreground=foreground,
        started=started,
        rng=rng,
        progress=progress,
        should_stop=should_stop,
        checkpoint=write_checkpoint if params.checkpoint else None,
        trainable=trainable,
        align_to_motion=None if through_plane is None else through_plane.align_to_motion,
        engine=engine,
    )
    state = loop.run()
    for strategy in default_strategies(params):
        if state.stopped_by == StopReason.QUALITY and strategy.applies(loop):
            strategy.apply(loop)
    for attempt in range(ATTEMPTS):
        seconds_fit = time.perf_counter() - started
        result = as_field(state)
        progress(ProgressEvent(FitStage.MEASURE, 0, 1, seconds_fit, state.psnr, len(result)))
        metrics = measure_fit(volume, result, params, mask, training)
        missing = (params.quality or 0.0) - metrics["psnr"]
        if state.stopped_by != StopReason.QUALITY or missing <= 0 or attempt == ATTEMPTS - 1:
            break
        # The whole image can be a little worse than the crop that was fitted.
        state = loop.resume(missing + MARGIN_DB)
    shortfall = explain_shortfall(params, state.stopped_by, metrics["psnr"], len(result))
    if shortfall:
        metrics["quality_missed"] = shortfall
    metrics.update(
        seconds=time.perf_counter() - started,
        seconds_fit=seconds_fit,
        n_gaussians=len(result),
        bytes=result.nbytes,
        backend=backend,
        iterations=state.iteration,
        stopped_by=str(state.stopped_by),
    )
    if through_plane is not None:
        metrics["through_plane_targets"] = through_plane.method
        for _, centers in state.positions:
            centers[:, 2] /= through_plane.factor
    result = GaussianField(
        **{name: getattr(result, name) for name in result.tensor_names()},
        info=replace(result.info, metrics=metrics),
    )
    progress(
        ProgressEvent(FitStage.DONE, 1, 1, metrics["seconds"], metrics.get("psnr"), len(result))
    )
    return FitResult(result, metrics, state.history, state.stopped_by, state.positions)


def default_strategies(params: FitParams) -> tuple[Strategy, ...]:
    """Return what is done to the Gaussians of a fit that met its target quality."""
    return (Prune(params.advanced.prune, params.advanced.merge),)
