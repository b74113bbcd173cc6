"""Hyper-parameters of a fit that the usual settings leave alone, for ablations and experiments."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class OptimizerParams:
    """Adam: memories, and the largest step of every kind of parameter.

    Attributes
    ----------
    beta1, beta2 : float
        Decay of the first and second moment. Short, as every step sees all voxels: there is no
        noise to average.
    position, shape, weight, value, logit : float
        Largest steps, in voxels or in the unit of the parameter.
    fold : tuple of float
        Largest steps of the polynomial's coefficients of degree 1, 2 and 3.
    gradient_floor : float
        Slopes below this fraction of a column's root mean square move little.
    label_turns : int
        With more than 20 classes the labels of one in so many slices are seen in a step, in
        turns; of all slices where a quality is asked for.
    """

    beta1: float = 0.7
    beta2: float = 0.8
    position: float = 0.18
    shape: float = 0.09
    weight: float = 0.08
    value: float = 0.05
    logit: float = 0.3
    fold: tuple[float, float, float] = (0.02, 0.005, 0.001)
    gradient_floor: float = 0.003
    label_turns: int = 4


@dataclass(frozen=True)
class InitializationParams:
    """How many Gaussians are placed, and how they begin.

    Attributes
    ----------
    smallest_sigma : float
        Smallest standard deviation of a new Gaussian, in voxels.
    flat_fraction : float
        Sampling density in flat foreground, as a fraction of the foreground's mean.
    logit : float
        Logit of the voxel's own class.
    gaussians_per_voxel : float
        Gaussians per foreground voxel when no number is asked for.
    min_gaussians, max_gaussians : int
        Bounds of that number.
    detail_gaussians : int
        Fine detail raises the number up to this.
    max_detail_factor : float
        Fine detail raises the number at most by this factor.
    usual_detail : float
        Detail (mean squared change by smoothing) of a body CT at 3 mm, which raises nothing.
    gaussians_per_labeled_voxel : float
        Gaussians per voxel of a class at least, in masks of more than 20 classes: their borders
        need some where the image shows nothing.
    """

    smallest_sigma: float = 0.45
    flat_fraction: float = 0.3
    logit: float = 2.0
    gaussians_per_voxel: float = 0.03
    min_gaussians: int = 300
    max_gaussians: int = 150_000
    detail_gaussians: int = 30_000
    max_detail_factor: float = 4.0
    usual_detail: float = 0.003
    gaussians_per_labeled_voxel: float = 0.13


@dataclass(frozen=True)
class DensificationParams:
    """When and where Gaussians are added, and how large they may grow.

    Attributes
    ----------
    initial_fraction : float
        Fraction of the Gaussians placed at the start; the others go where the error is.
    add_at : tuple of float
        When they are added, as fractions of a round.
    min_log_weight : float
        Gaussians of less log weight are dropped when others are added.
    db_per_doubling : float
        PSNR (dB) that twice the Gaussians are expected to bring: 2.6 to 3.6 on CT and MRI.
    min_growth, max_growth : float
        Bounds of the factor by which Gaussians grow between rounds.
    crop_allowance : float
        PSNR (dB) to exceed the target by on a crop, as Gaussians also err outside its rim.
    max_per_voxel : float
        Gaussians per voxel at which rounds end.
    resume_iterations : int
        Steps of a round with the Gaussians there are, and the fewest of any later round.
    gain_steps : int
    least_gain : float
        Where the image gained less than this (dB) in so many steps, a step brings a round with
        labels in turns (see ``label_turns``) as far as two: noise is left, and the classes, which
        settle sooner.
    max_sigma_spacings, min_max_sigma : float
        Largest standard deviation, in mean distances of the Gaussians and in voxels at least:
        class logits alone would let Gaussians grow over flat regions without end.
    max_sigma_spacings_many : float
        The same in mean distances with more than 20 classes, whose steps cost more.
    """

    initial_fraction: float = 0.6
    add_at: tuple[float, ...] = (0.2, 0.4)
    min_log_weight: float = -5.0
    db_per_doubling: float = 3.0
    min_growth: float = 1.25
    max_growth: float = 4.0
    crop_allowance: float = 0.05
    max_per_voxel: float = 0.5
    resume_iterations: int = 20
    gain_steps: int = 4
    least_gain: float = 0.1
    max_sigma_spacings: float = 1.25
    max_sigma_spacings_many: float = 0.8
    min_max_sigma: float = 3.0


@dataclass(frozen=True)
class PruneParams:
    """How Gaussians are left out once the target quality is met.

    Measured on CT and MRI: smaller fractions end with more Gaussians for the same work.

    Attributes
    ----------
    fraction, min_fraction : float
        Fraction of the Gaussians that leave at a time, and the smallest that is tried.
    backoff : float
        Factor of that fraction when the quality did not come back.
    recovery_iterations : int
        Steps to get the quality back before the removal is undone.
    recovery_step : float
        First step size of these, relative to the largest; it falls to zero.
    ranking_cost : float
        Work of ranking all Gaussians, in steps.
    voxel_cost : float
        Work of a voxel in a step, relative to that of a Gaussian.
    max_work : float
        Work of pruning at most, relative to that of the fit so far.
    """

    fraction: float = 0.2
    min_fraction: float = 0.02
    backoff: float = 0.5
    recovery_iterations: int = 18
    recovery_step: float = 0.6
    ranking_cost: float = 3
    voxel_cost: float = 0.05
    max_work: float = 0.35


@dataclass(frozen=True)
class MergeParams:
    """How pairs of neighboring Gaussians are merged.

    Attributes
    ----------
    neighbors : int
        Neighbors that each Gaussian may be merged with; 0 merges none.
    shape_loss : float
        Fraction of what two Gaussians contribute that is lost per nat of divergence between
        their shapes. Of 0.03 to 3 the best on CT and MRI.
    """

    neighbors: int = 4
    shape_loss: float = 0.5


@dataclass(frozen=True)
class ThroughPlaneParams:
    """Targets between the slices, and how thin Gaussians may become along the slice axis.

    Attributes
    ----------
    weight : float
        Loss weight of slices interpolated by motion alone, relative to that of the slices there
        are; nearer to 1 the less motion counts.
    anisotropy : float
        Spacing along the slice axis, in pixels, above which targets are added by default.
    max_voxels : int
        Volumes of more voxels get targets on request only: they double memory and time.
    half_motion : float
        Motion, in pixels per gap, at which half of a slope comes from the flow; the structure
        tensor sees smaller motion better.
    dense_gaussians : float
        Factor of the automatic number of Gaussians where motion has no weight in the targets, and
        twice as many are allowed at most: slices then lie so densely that interpolation errs less
        than the fit would. It falls to 1 as motion gets all the weight, slowly where slices are
        left out or ``interpolate`` is True.
    gaussians_per_voxel : float
        Least number of Gaussians per voxel that is not background, slices between included,
        where slices are left out or ``interpolate`` is True.
    least_gaussians : int
        That rule asks for no more than these.
    slice_sigma, slice_sigma_holdout : float
        Smallest standard deviation along the slice axis, in slices, and in steps of the hold-out.
    """

    weight: float = 0.25
    anisotropy: float = 1.5
    max_voxels: int = 32_000_000
    half_motion: float = 1.0
    dense_gaussians: float = 8.0
    gaussians_per_voxel: float = 0.2
    least_gaussians: int = 64_000
    slice_sigma: float = 0.35
    slice_sigma_holdout: float = 0.8


@dataclass(frozen=True)
class TargetParams:
    """How images and masks become targets.

    Attributes
    ----------
    flat : float
        Intensities this near to the background's are background.
    margin : int
        Voxels kept around what is not background.
    seg_scale : float
        Makes ``lambda_seg`` = 1 an even match for the squared errors of the image.
    seg_noise : float
        It is at least this factor of the variance of the image's noise (intensities from 0 to 1).
    empty_logit, empty_logit_sum : float
        Background class's logit where no Gaussian reaches, for the normalized and the sum blend.
        In the first as sure as fitted ones are, in the second weak enough to be outweighed.
    quality_fraction : float
        Fraction of the automatic number of Gaussians to begin with when a quality is asked for.
    """

    flat: float = 2e-3
    margin: int = 6
    seg_scale: float = 0.001
    seg_noise: float = 1.0
    empty_logit: float = 8.0
    empty_logit_sum: float = 4.0
    quality_fraction: float = 0.35


@dataclass(frozen=True)
class AdvancedFitParams:
    """All hyper-parameters of a fit by stage.

    Attributes
    ----------
    target : TargetParams
    initialization : InitializationParams
    optimizer : OptimizerParams
    densification : DensificationParams
    prune : PruneParams
    merge : MergeParams
    through_plane : ThroughPlaneParams

    Examples
    --------
    >>> from napari_medgs.fitting import AdvancedFitParams, FitParams, MergeParams
    >>> FitParams(advanced=AdvancedFitParams(merge=MergeParams(neighbors=0))).advanced.merge
    MergeParams(neighbors=0, shape_loss=0.5)
    """

    target: TargetParams = field(default_factory=TargetParams)
    initialization: InitializationParams = field(default_factory=InitializationParams)
    optimizer: OptimizerParams = field(default_factory=OptimizerParams)
    densification: DensificationParams = field(default_factory=DensificationParams)
    prune: PruneParams = field(default_factory=PruneParams)
    merge: MergeParams = field(default_factory=MergeParams)
    through_plane: ThroughPlaneParams = field(default_factory=ThroughPlaneParams)
