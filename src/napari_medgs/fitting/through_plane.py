"""Through-plane targets: interpolated slices that a fit is to match as well.

Slices interpolated as leaving out slices says is best (along the structures' trajectories, by a
cubic, a spline, or a mean of these) are fitted with a smaller weight than the slices that exist.
As far as motion is used, the slopes of Gaussians that move far between slices start from it: no
gradient finds it once they no longer overlap. Where it has little weight, slices lie so densely
that interpolation errs less than a fit with the usual number of Gaussians, so there are more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from napari_medgs._typing import Floats
from napari_medgs._util.progress import StopCallback
from napari_medgs.data.grid import Grid
from napari_medgs.fitting.params import FitParams
from napari_medgs.fitting.problem import FitProblem
from napari_medgs.interpolation.flow import Flow
from napari_medgs.rendering.parameters import A1, A3, B1, LOG_RT, T

# Where targets are asked for, one over the share of the methods besides motion from which on they
# get as many Gaussians as those between dense slices.
DENSE_SLOPE = 1.5


@dataclass(frozen=True)
class ThroughPlaneTargets:
    """A problem with targets between its slices.

    Attributes
    ----------
    problem : FitProblem
        On a stack with ``factor`` times the slices per length.
    factor : int
        1 where slices between the training slices exist in the grid (held out).
    flow : Flow or None
        Motion in the positions of that stack, where it is used.
    method : str
        Where the targets come from, by falling weight: "motion", "quintic", "motion + quintic" ...
        or "none".
    has_loss : bool
        Whether the slices between carry any loss; else they only hide what is left out.
    half_motion : float
        See :class:`~napari_medgs.fitting.advanced.ThroughPlaneParams`.
    motion_weight : float
        Weight of motion in the targets, 0 to 1.
    budget_factor : float
        Factor of the automatic number of Gaussians.
    """

    problem: FitProblem
    factor: int
    flow: Flow | None
    method: str
    has_loss: bool
    half_motion: float = 1.0
    motion_weight: float = 1.0
    budget_factor: float = 1.0

    def align_to_motion(self, parameters: Floats, threads: int | None = None) -> Floats:
        """Return new Gaussians with the slopes of what moves far, in place."""
        if self.flow is None or not len(parameters):
            return parameters
        slopes = self.flow.velocity(parameters[:, :3], threads)
        gap = np.float32(np.median(np.diff(self.flow.positions)))
        moved = (slopes * gap) ** 2
        fraction = moved.sum(axis=1) / (moved.sum(axis=1) + np.float32(self.half_motion**2))
        fraction *= np.float32(self.motion_weight)
        parameters[:, A1] += fraction * (slopes[:, 0] - parameters[:, A1])
        parameters[:, B1] += fraction * (slopes[:, 1] - parameters[:, B1])
        return parameters


def stretch(parameters: Floats, factor: float) -> Floats:
    """Return a table whose slice axis has ``factor`` times the slices per length."""
    parameters = parameters.copy()
    parameters[:, T] *= factor
    parameters[:, LOG_RT] -= np.float32(np.log(factor))
    for k in range(A3 - A1 + 1):
        parameters[:, [A1 + k, B1 + k]] /= factor ** (k + 1)
    return parameters


def through_plane_factor(params: FitParams, grid: Grid, slice_axis: int) -> int:
    """Return how many slices a gap between training slices is to have; 0 for no targets there.

    By default 1, the slices left out, when there are any; 2 where slices lie more than 1.5
    times as far apart as pixels, unless a quality of the slices themselves is asked for or the
    volume has more than 32 million voxels.
    """
    if params.interpolate is False or params.lambda_img == 0 or params.freeze_geometry:
        return 0
    if params.holdout is not None:
        return 1
    if grid.shape[slice_axis] < 3:
        return 0
    pixel = min(s for axis, s in enumerate(grid.spacing) if axis != slice_axis)
    coarse = grid.spacing[slice_axis] > params.advanced.through_plane.anisotropy * pixel
    by_default = (
        coarse
        and params.quality is None
        and np.prod(grid.shape) <= params.advanced.through_plane.max_voxels
    )
    return 2 if params.interpolate or by_default else 0


def is_asked_for(params: FitParams) -> bool:
    """Return whether what lies between the slices is wanted, and not added to steady the fit."""
    return bool(params.interpolate) or params.holdout is not None


def add_through_plane_targets(
    problem: FitProblem, params: FitParams, factor: int, should_stop: StopCallback
) -> ThroughPlaneTargets:
    """Add targets between the training slices.

    What the slices left out really hold is not looked at, and replaced.

    Parameters
    ----------
    problem : FitProblem
    params : FitParams
    factor : int
        From :func:`through_plane_factor`; 0 replaces slices left out by a cubic of weight 0.
    should_stop : callable

    Returns
    -------
    ThroughPlaneTargets

    Raises
    ------
    Cancelled
        If ``should_stop`` says so.
    """
    from napari_medgs.interpolation.baselines import interpolate_baseline
    from napari_medgs.interpolation.selection import interpolate_auto

    settings = params.advanced.through_plane
    images = np.ascontiguousarray(problem.target.images[:, problem.training_slices])
    if len(problem.training_slices) < 2:
        factor = 0
    fine = _refine(problem, max(factor, 1))
    target, training = fine.target, fine.training_slices
    # These slices are fitted too, but the image error is that of the slices there are.
    target.scored = np.zeros(target.images.shape[1], np.bool_)
    target.scored[training] = True
    left = np.setdiff1d(np.arange(target.images.shape[1]), training)
    if not factor:
        if len(left):
            target.images[:, left] = interpolate_baseline(images, training, left)
        return ThroughPlaneTargets(fine, 1, None, "none", False)
    frames, flow, selection = interpolate_auto(
        images, training, left, threads=params.threads, should_stop=should_stop
    )
    target.images[:, left] = frames
    inside = left[left < training[-1]]
    motion = selection.weights["motion"]
    # What is interpolated without motion lies between dense slices, and counts as much as they do.
    target.image_weights[:, inside] = settings.weight**motion * params.lambda_img
    dense = min(1.0, DENSE_SLOPE * (1 - motion)) if is_asked_for(params) else (1 - motion) ** 2
    return ThroughPlaneTargets(
        fine,
        factor,
        flow,
        str(selection),
        True,
        settings.half_motion,
        motion,
        settings.dense_gaussians**dense,
    )


def _refine(problem: FitProblem, factor: int) -> FitProblem:
    """Return the problem with ``factor`` - 1 empty slices in every gap."""
    if factor == 1:
        return problem
    target = problem.target
    channels, depth, height, width = target.images.shape
    finer = (depth - 1) * factor + 1
    images = np.zeros((channels, finer, height, width), np.float32)
    images[:, ::factor] = target.images
    image_weights = np.zeros((channels, finer), np.float32)
    image_weights[:, ::factor] = target.image_weights
    seg_weights = np.zeros(finer, np.float32)
    seg_weights[::factor] = target.seg_weights
    labels = target.labels
    if target.classes:
        labels = np.full((finer, height, width), 255, np.uint8)
        labels[::factor] = target.labels
    return replace(
        problem,
        target=replace(
            target,
            images=images,
            image_weights=image_weights,
            labels=labels,
            seg_weights=seg_weights,
        ),
        training_slices=problem.training_slices * factor,
    )
