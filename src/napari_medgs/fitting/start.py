"""What a fit begins with: Gaussians, placed anew or of a field, and targets between slices."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs._util.progress import StopCallback
from napari_medgs.data.field import FieldInfo, GaussianField, morton_order
from napari_medgs.data.intensities import is_single
from napari_medgs.errors import Cancelled, ParameterError
from napari_medgs.fitting.class_slots import ClassSlots
from napari_medgs.fitting.init.place import (
    automatic_number,
    foreground_size,
    importance,
    place,
    sample_voxels,
)
from napari_medgs.fitting.optim.loop import largest_sigma
from napari_medgs.fitting.params import FitParams
from napari_medgs.fitting.problem import UNLABELED, FitProblem
from napari_medgs.fitting.through_plane import (
    ThroughPlaneTargets,
    add_through_plane_targets,
    is_asked_for,
    stretch,
    through_plane_factor,
)
from napari_medgs.rendering.api import MANY_CLASSES
from napari_medgs.rendering.parameters import A1, A3, B1, B3, GEOMETRY, X, Y, to_parameters

DENSE_MAX = 2  # times the usual most Gaussians where targets between slices have little motion
PREPARATION_SHARE = 0.5  # of a time limit, for targets between slices


def moved_to_crop(parameters: Floats, origin: tuple[int, int], sign: int) -> Floats:
    """Return the table with centers moved from the crop to the whole slice, or back."""
    moved = parameters.copy()
    moved[:, Y] += sign * origin[0]
    moved[:, X] += sign * origin[1]
    return moved


def through_plane_targets(
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

    if not late():
        with suppress(Cancelled):
            return add_through_plane_targets(problem, params, factor, late)
    if should_stop():
        raise Cancelled("The fit was canceled before its first step.")
    return add_through_plane_targets(problem, params, 0, should_stop) if needed else None


def smallest_slice_sigma(params: FitParams, through_plane: ThroughPlaneTargets | None) -> float:
    """Floor of the extent along the slice axis: wide enough to bridge slices left out."""
    if params.holdout is not None:
        return params.advanced.through_plane.slice_sigma_holdout * params.holdout
    return params.advanced.through_plane.slice_sigma * (
        1 if through_plane is None else through_plane.factor
    )


def place_start(
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
        if len(problem.info.class_names) > MANY_CLASSES and wanted is None:
            settings = params.advanced.initialization
            labeled = np.count_nonzero((labels > 0) & (labels < UNLABELED))
            least = int(settings.gaussians_per_labeled_voxel * labeled)
            budget = max(budget, min(least, settings.max_gaussians))
        if through_plane is not None and wanted is None:
            most = params.advanced.initialization.max_gaussians
            between = params.advanced.through_plane
            if through_plane.budget_factor >= between.dense_gaussians:
                most *= DENSE_MAX
            budget = min(int(budget * through_plane.budget_factor), max(budget, most))
            if through_plane.has_loss and is_asked_for(params):
                # Small images would get so few that the fit errs more than the targets do.
                least = int(between.gaussians_per_voxel * foreground)
                budget = max(budget, min(least, between.least_gaussians))
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
        largest=largest_sigma(
            foreground, budget, len(problem.info.class_names), params.advanced.densification
        ),
        settings=params.advanced.initialization,
    )
    if step > 1:
        parameters = stretch(parameters, step)  # it was placed on the stack of training slices
    if through_plane is not None:
        parameters = through_plane.align_to_motion(parameters)
    return np.ascontiguousarray(parameters[morton_order(parameters[:, :3])]), budget, foreground


def check_start(initial: GaussianField, params: FitParams) -> None:
    """Refuse settings that a fit which goes on from a field cannot follow.

    Parameters
    ----------
    initial : GaussianField
    params : FitParams

    Raises
    ------
    ParameterError
        When fewer Gaussians are wanted than the field has, another blend than its own, or with
        frozen geometry a lower degree of the folds.
    """
    info = initial.info
    if params.gaussians is not None and params.gaussians < len(initial):
        raise ParameterError(
            f"The initial field has {len(initial):,} Gaussians, and a fit that starts from one "
            f"takes none away: {params.gaussians:,} are too few. Leave gaussians out, or fit anew "
            "without the field."
        )
    if params.blend != info.blend:
        raise ParameterError(
            f"The initial field blends by {info.blend!r}, the settings say {params.blend!r}: set "
            "blend to that of the field."
        )
    if params.freeze_geometry and params.fold < info.degree:
        raise ParameterError(
            f"The initial field has folds of degree {info.degree}, which fold {params.fold} would "
            "change: with frozen geometry leave fold out."
        )


def start_from(
    initial: GaussianField, problem: FitProblem, params: FitParams, slots: ClassSlots | None = None
) -> tuple[Floats, FitProblem]:
    """Return an earlier field's table, extended by a seg head where a mask is new.

    With ``slots`` the problem is one of slots, and so is the table.
    """
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
    parameters = moved_to_crop(to_parameters(initial), problem.origin, -1)
    classes = problem.target.classes
    same = info.label_values == problem.info.label_values and not params.freeze_geometry
    if classes and not same:
        head = np.zeros((len(parameters), classes), np.float32)
        head[:, 0] = 1.0
        parameters = np.concatenate([parameters[:, : GEOMETRY + images], head], axis=1)
    elif slots is not None:
        parameters = slots.reduce(parameters)
    if not classes:
        if params.freeze_geometry:
            raise ParameterError(
                "With frozen geometry there is only a mask to fit: give one, and a lambda_seg "
                "above 0."
            )
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


def without_image(problem: FitProblem) -> FitProblem:
    """Return the problem of the seg head alone."""
    images = len(problem.target.images)
    target = replace(
        problem.target,
        images=problem.target.images[:0],
        image_weights=problem.target.image_weights[:0],
    )
    info = replace(problem.info, image_channels=(), intensity_scale=(), intensity_offset=())
    return replace(problem, info=info, background=problem.background[images:], target=target)
