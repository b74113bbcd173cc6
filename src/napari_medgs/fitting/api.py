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
from napari_medgs.data.field import FieldInfo, GaussianField, morton_order
from napari_medgs.data.intensities import is_single
from napari_medgs.data.volume import Volume
from napari_medgs.errors import Cancelled, ParameterError
from napari_medgs.fitting.init.place import (
    automatic_number,
    foreground_size,
    importance,
    place,
    sample_voxels,
)
from napari_medgs.fitting.memory import check_memory
from napari_medgs.fitting.optim.loop import FitLoop, largest_sigma
from napari_medgs.fitting.optim.state import FitStage, LoopState, StopReason
from napari_medgs.fitting.params import FitParams
from napari_medgs.fitting.problem import FitProblem, make_problem
from napari_medgs.fitting.quality import explain_shortfall, measure_fit
from napari_medgs.fitting.strategy.base import Strategy
from napari_medgs.fitting.strategy.prune import Prune
from napari_medgs.fitting.through_plane import (
    ThroughPlaneTargets,
    add_through_plane_targets,
    stretch,
    through_plane_factor,
)
from napari_medgs.rendering.engine import EngineSpec
from napari_medgs.rendering.parameters import (
    A1,
    A3,
    B1,
    B3,
    GEOMETRY,
    X,
    Y,
    from_parameters,
    to_parameters,
)

PREPARATION_SHARE = 0.5  # of a time limit, for targets between slices
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
    volume = volume.prepared()
    check_memory(volume, params, mask)
    backend, make_engine = choose_engine(params.backend, params.blend)
    problem = make_problem(volume, params, mask, class_names or {})
    progress(ProgressEvent(FitStage.INITIALIZE, 0, 1, time.perf_counter() - started))
    training = problem.training_slices
    through_plane: ThroughPlaneTargets | None = None
    frozen_image: Floats | None = None
    trainable: Floats | None = None
    if initial is not None:
        parameters, problem = _start_from(initial, problem, params)
        through_plane = _through_plane_targets(problem, params, should_stop, started)
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
            full_problem, problem = problem, _without_image(problem)
    else:
        if params.freeze_geometry:
            raise ParameterError("freeze_geometry needs an initial field to keep.")
        through_plane = _through_plane_targets(problem, params, should_stop, started)
        if through_plane is not None:
            problem = through_plane.problem
        parameters, budget, foreground = _start(problem, params, rng, through_plane)
    info = problem.info if frozen_image is None else full_problem.info
    background = problem.background if frozen_image is None else full_problem.background

    def as_field(state: LoopState) -> GaussianField:
        table = state.parameters
        if frozen_image is not None:
            table = np.concatenate([table[:, :GEOMETRY], frozen_image, table[:, GEOMETRY:]], 1)
        table = _moved(table, problem.origin, 1)
        if through_plane is not None and through_plane.factor > 1:
            table = stretch(table, 1 / through_plane.factor)
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
        smallest_slice_sigma=_slice_sigma(params, through_plane),
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


def _moved(parameters: Floats, origin: tuple[int, int], sign: int) -> Floats:
    """Return the table with centers moved from the crop to the whole slice, or back."""
    moved = parameters.copy()
    moved[:, Y] += sign * origin[0]
    moved[:, X] += sign * origin[1]
    return moved


def _through_plane_targets(
    problem: FitProblem, params: FitParams, should_stop: StopCallback, started: float
) -> ThroughPlaneTargets | None:
    """Add targets between slices where they are wanted; never look at slices left out.

    Under a time limit they may take their share of it; what takes longer is left out, so that
    time remains for the fit itself.
    """
    factor = through_plane_factor(params, problem.info.grid, problem.info.slice_axis)
    needed = params.holdout is not None and len(problem.target.images) > 0
    if factor == 0 and not needed:
        return None
    limit = np.inf if params.time_limit is None else params.time_limit * PREPARATION_SHARE

    def late() -> bool:
        return should_stop() or time.perf_counter() - started > limit

    try:
        if late():
            raise Cancelled("The fit was cancelled before its first step.")
        return add_through_plane_targets(problem, params, factor, late)
    except Cancelled:
        if should_stop():
            raise
    return add_through_plane_targets(problem, params, 0, should_stop) if needed else None


def _slice_sigma(params: FitParams, through_plane: ThroughPlaneTargets | None) -> float:
    """Floor of the extent along the slice axis: wide enough to bridge slices left out."""
    if params.holdout is not None:
        return params.advanced.through_plane.slice_sigma_holdout * params.holdout
    return params.advanced.through_plane.slice_sigma * (
        1 if through_plane is None else through_plane.factor
    )


def _start(
    problem: FitProblem,
    params: FitParams,
    rng: np.random.Generator,
    through_plane: ThroughPlaneTargets | None,
) -> tuple[Floats, int, int]:
    """Place the first Gaussians where there are targets; return them, budget and foreground."""
    target, training = problem.target, problem.training_slices
    if through_plane is not None and through_plane.has_loss:
        training = np.arange(training[0], training[-1] + 1)
    images, labels = target.images, target.labels
    if len(training) < images.shape[1]:
        images = images[:, training]
    step = int(training[1] - training[0]) if len(training) > 1 else 1
    if target.classes:
        labels = labels.copy()
        labels[target.seg_weights == 0] = 255
        labels = labels[training]
    density = importance(
        images, labels, problem.background, params.advanced.initialization, params.threads
    )
    budget = params.gaussians
    foreground = foreground_size(density)
    if budget is None:
        finer = 1 if through_plane is None else through_plane.factor
        wanted = params.quality
        budget = automatic_number(
            images,
            density,
            params.advanced.initialization,
            finer,
            by_detail=wanted is None,
        )
        if through_plane is not None and wanted is None:
            budget = min(
                int(budget * through_plane.budget_factor),
                max(budget, params.advanced.initialization.max_gaussians),
            )
        if wanted is not None:
            budget = int(
                budget * params.advanced.target.quality_fraction
            )  # rounds add more until the quality is met
    first = max(1, int(np.ceil(budget * params.advanced.densification.initial_fraction)))
    parameters = place(
        sample_voxels(density, first, rng, params.threads),
        images,
        labels,
        target.classes,
        rng,
        largest=largest_sigma(foreground, budget, params.advanced.densification),
        settings=params.advanced.initialization,
    )
    if step > 1:
        parameters = stretch(parameters, step)  # it was placed on the stack of training slices
    if through_plane is not None:
        parameters = through_plane.align_to_motion(parameters)
    return np.ascontiguousarray(parameters[morton_order(parameters[:, :3])]), budget, foreground


def _start_from(
    initial: GaussianField, problem: FitProblem, params: FitParams
) -> tuple[Floats, FitProblem]:
    """Return an earlier field's table, extended by a seg head where a mask is new."""
    info: FieldInfo = initial.info
    images = len(problem.target.images)
    if len(info.image_channels) != images:
        raise ParameterError(
            f"The initial field has {len(info.image_channels)} image channels, the volume "
            f"{images}: give the same contrasts."
        )
    if info.slice_axis != problem.info.slice_axis:
        raise ParameterError(
            f"The initial field folds along axis {info.slice_axis}; set slice_axis to it."
        )
    if not info.grid.matches(problem.info.grid):
        initial = initial.on_grid(problem.info.grid)
    parameters = _moved(to_parameters(initial), problem.origin, -1)
    classes = problem.target.classes
    same = info.label_values == problem.info.label_values and not params.freeze_geometry
    if classes and not same:
        head = np.zeros((len(parameters), classes), np.float32)
        head[:, 0] = 1.0
        parameters = np.concatenate([parameters[:, : GEOMETRY + images], head], axis=1)
    if not classes:
        if params.freeze_geometry:
            raise ParameterError("With frozen geometry there is only a mask to fit: give one.")
        parameters = parameters[:, : GEOMETRY + images]
    if params.fold < 3:
        parameters[:, A1 + params.fold : A3 + 1] = 0
        parameters[:, B1 + params.fold : B3 + 1] = 0
    background = problem.background.copy()
    background[:images] = initial.background[:images]
    # Keep the field's own scaling, or its image values would mean something else.
    scale, offset = info.intensity_scale, info.intensity_offset
    target = problem.target
    for c in range(images):
        span, low = problem.info.intensity_scale[c], problem.info.intensity_offset[c]
        if is_single(low, low + span) and is_single(offset[c], offset[c] + scale[c]):
            original = target.images[c] * np.float32(span)
            original += np.float32(low - offset[c])
            original /= np.float32(scale[c])
        else:
            original = target.images[c] * (span / scale[c]) + (low - offset[c]) / scale[c]
        target.images[c] = np.clip(original, 0, 1)
    changed = replace(problem.info, intensity_scale=scale, intensity_offset=offset)
    return np.ascontiguousarray(parameters), replace(problem, info=changed, background=background)


def _without_image(problem: FitProblem) -> FitProblem:
    """Return the problem of the seg head alone."""
    images = len(problem.target.images)
    target = replace(
        problem.target,
        images=problem.target.images[:0],
        image_weights=problem.target.image_weights[:0],
    )
    info = replace(problem.info, image_channels=(), intensity_scale=(), intensity_offset=())
    return replace(problem, info=info, background=problem.background[images:], target=target)
