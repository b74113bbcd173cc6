"""Hyper-parameters of the segmentation's terms and steps, for ablations and studies.

Their defaults were chosen on the training cases of the benchmark; ``docs/methods.md`` gives the
equations in which they stand. Lengths are in voxels of the finest axis.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from napari_medgs._util.records import checked, checked_record
from napari_medgs._util.settings import check, setting
from napari_medgs.errors import ParameterError
from napari_medgs.segmentation.term_params import (
    AppearanceParams,
    BiasParams,
    CalibrationParams,
    FeatureParams,
    MotionPriorParams,
    RegionGrowingParams,
    ScatterParams,
    ShapeParams,
    WatershedParams,
)


@dataclass(frozen=True)
class GraphParams:
    """The graph of Gaussians and its seeds.

    Attributes
    ----------
    neighbors : int
        Nearest neighbors that every node is connected to.
    base_cost : float
        Cost of a path per unit length where the image is constant.
    empty_node_fraction : float
        Nodes that stand in for Gaussians in empty space, over the number of Gaussians.
    seed_mass : float
        Least rendering weight of the markers that a Gaussian receives to become a seed.
    seed_purity : float
        Least fraction of that weight that must belong to one class.
    seed_share : float
        Least part of a marked voxel that a seed must render, on average: long strokes along a
        border leave much weight in the tails of Gaussians beyond it.
    fine_sigma, clean_fine_sigma : float
        Smoothing of noisy and of clean channels for the finer of the two watershed hierarchies.
    near_slices : float
        Thick slices are near where annotated ones differ less from their neighbors, around the
        strokes, than from themselves moved by this part of the distance of slices; 0: never.
    near_slice_distance : float
        Paths count near slices as at most this far apart, in finest voxels.
    """

    neighbors: int = setting(12, low=1, high=64)
    base_cost: float = setting(0.05, low=0, high=100)
    empty_node_fraction: float = setting(0.15, low=0, high=10)
    seed_mass: float = setting(0.05, low=0, high=1)
    seed_purity: float = setting(0.6, low=0, high=1)
    seed_share: float = setting(0.05, low=0, high=1)
    fine_sigma: float = setting(0.5, low=0, high=20)
    clean_fine_sigma: float = setting(0.0, low=0, high=20)
    near_slices: float = setting(0.125, low=0, high=1)
    near_slice_distance: float = setting(3.0, low=1, high=1000)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class NarrowBandParams:
    """The refinement on voxels.

    Attributes
    ----------
    sigma, clean_sigma : float
        Smoothing of noisy and of clean channels in the band.
    thresholds : tuple of float
        Candidate margins below which voxels belong to the band, increasing.
    min_threshold : float
        Thresholds up to this one are used whatever the number of voxels, and none above it far
        from all classes.
    thick_threshold : float
        Thresholds above this one are used near classes only that fill no block of voxels.
    thick_slices : float
        Distance of slices, in finest voxels, from which on classes between fully labeled ones are
        left to the Gaussians: paths over voxels of thick slices copy the labeled slice.
    block : float
        Width of the blocks of voxels that are near a class where one of them or of those beside
        them shows it.
    bound_factor, bound_offset : float
        Paths are followed up to ``bound_factor * (cost + bound_offset)``, where ``cost`` is that
        of the winning class.
    exponent : float
        Probability is proportional to path cost to minus this power where the final boundary is
        smoothed.
    thin_part : float
        The smoothing leaves parts of a class as they are that are so thin that nowhere in them
        more than this fraction of its kernel belongs to the class; 0: none.
    """

    sigma: float = setting(0.7, low=0, high=20)
    clean_sigma: float = setting(0.5, low=0, high=20)
    thresholds: tuple[float, ...] = setting(
        (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0), low=0, high=1000
    )
    min_threshold: float = setting(0.5, low=0, high=1000)
    thick_threshold: float = setting(3.0, low=0, high=1000)
    thick_slices: float = setting(3.0, low=0, high=1e6)
    block: float = setting(8.0, above=0, high=1e4)
    bound_factor: float = setting(8.0, low=0, high=1e4)
    bound_offset: float = setting(1.0, low=0, high=1e4)
    exponent: float = setting(2.0, low=0, high=100)
    thin_part: float = setting(0.8, low=0, high=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class InitialMaskParams:
    """What is free of an initial mask: around prompts that contradict it, and where it is unsure.

    Attributes
    ----------
    release_factor, release_offset : float
        The free ball around a prompt that lies ``d`` deep in the wrong label has the radius
        ``release_factor * d + release_offset``, at least one voxel.
    max_depth : float
        Depths count up to this one.
    prior_weight : float
        Weight of the mask's own label there. That it is wrong at a distance ``r`` from the
        prompt has the probability ``exp(-r / d) / 2``.
    min_probability : float
        Voxels whose largest prior probability is below this are free.
    max_flood : float
        Background strokes that are alone in their slice correct the mask of all other prompts like
        an initial one, unless the classes have more than this many times the area there that they
        have in any annotated slice: then all is learned anew. 0: it always is.
    min_background : float
        The same where other background markers are fewer than this many times those of classes:
        such strokes then show the background as much as they correct.
    max_widening, max_growth : float
        Strokes of a class that are alone in their slice are learned from, unless its largest slice
        then has more than ``max_widening`` and its volume more than ``max_growth`` times what
        they are without these strokes: then they correct as well. 0: they always do.
    """

    release_factor: float = setting(2.0, low=0, high=100)
    release_offset: float = setting(-1.0, low=-1000, high=1000)
    max_depth: float = setting(40.0, above=0, high=1e4)
    prior_weight: float = setting(1.0, low=0, high=100)
    min_probability: float = setting(0.7, low=0, high=1)
    max_flood: float = setting(2.5, low=0, high=1e6)
    min_background: float = setting(2.0, low=0, high=1e6)
    max_widening: float = setting(1.6, low=0, high=1e6)
    max_growth: float = setting(2.1, low=0, high=1e6)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class UncertaintyParams:
    """Logistic regression of labeling errors.

    Attributes
    ----------
    intercept : float
    margin : float
        Per nat by which the next class's path cost exceeds the label's.
    distance : float
        Per nat of distance to the boundary over the thickness of the objects.
    appearance : float
        Per nat by which another class is likelier by appearance.
    """

    intercept: float = setting(-1.92, low=-1000, high=1000)
    margin: float = setting(-1.5, low=-1000, high=1000)
    distance: float = setting(-1.05, low=-1000, high=1000)
    appearance: float = setting(0.6, low=-1000, high=1000)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class SuggestionParams:
    """Utility of slices to annotate.

    Attributes
    ----------
    bandwidth : float
        Distance at which the coverage of a slice falls to 1 / e, over the objects' extent.
    extent_weight : float
        Weight of the objects' extent; the rest is expected error.
    end_margin : float
        Smoothing of the extent past the objects' ends, over their extent.
    blur : float
        Smoothing of the error map in which the suggested voxel is the maximum.
    """

    bandwidth: float = setting(0.35, above=0, high=10)
    extent_weight: float = setting(0.5, low=0, high=1)
    end_margin: float = setting(0.3, low=0, high=10)
    blur: float = setting(3.0, low=0, high=100)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class SolverParams:
    """Hyper-parameters by term and step.

    Attributes
    ----------
    features : FeatureParams
    bias : BiasParams
    graph : GraphParams
    appearance : AppearanceParams
    watershed : WatershedParams
    calibration : CalibrationParams
    shape : ShapeParams
    motion : MotionPriorParams
    scatter : ScatterParams
    narrow_band : NarrowBandParams
    region_growing : RegionGrowingParams
    initial_mask : InitialMaskParams
    uncertainty : UncertaintyParams
    suggestion : SuggestionParams
    extent_percentile : float
        Percentile of a class's path costs that counts as its largest.
    extent_gap : float
        Part of the width of the classes below which the gaps between annotated slices are small
        (twice as much for gaps of one or two slices): they set no limit of path costs.
    neck_ratio : float
        Part of a class's section below which, where it widens again past all strokes, a leak
        into what lies behind is cut off; 0 for never.

    Examples
    --------
    >>> from napari_medgs.segmentation import SegmentParams
    >>> ablated = SolverParams(calibration=CalibrationParams(gradient_discount=0.0))
    >>> SegmentParams(advanced=ablated).advanced.calibration.gradient_discount
    0.0
    """

    features: FeatureParams = field(default_factory=FeatureParams)
    bias: BiasParams = field(default_factory=BiasParams)
    graph: GraphParams = field(default_factory=GraphParams)
    appearance: AppearanceParams = field(default_factory=AppearanceParams)
    watershed: WatershedParams = field(default_factory=WatershedParams)
    calibration: CalibrationParams = field(default_factory=CalibrationParams)
    shape: ShapeParams = field(default_factory=ShapeParams)
    motion: MotionPriorParams = field(default_factory=MotionPriorParams)
    scatter: ScatterParams = field(default_factory=ScatterParams)
    narrow_band: NarrowBandParams = field(default_factory=NarrowBandParams)
    region_growing: RegionGrowingParams = field(default_factory=RegionGrowingParams)
    initial_mask: InitialMaskParams = field(default_factory=InitialMaskParams)
    uncertainty: UncertaintyParams = field(default_factory=UncertaintyParams)
    suggestion: SuggestionParams = field(default_factory=SuggestionParams)
    extent_percentile: float = setting(95.0, low=0, high=100)
    extent_gap: float = setting(0.125, low=0, high=100)
    neck_ratio: float = setting(0.3, low=0, high=1)

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> SolverParams:
        """Make hyper-parameters from nested dictionaries, as JSON gives them.

        Parameters
        ----------
        record : dict
            What is absent keeps its default.

        Returns
        -------
        SolverParams

        Raises
        ------
        ParameterError
            For a name that does not exist, or a value of another type or out of its range.

        Examples
        --------
        >>> SolverParams.from_dict({"graph": {"neighbors": 8}}).graph.neighbors
        8
        """
        groups: dict[str, Any] = {
            f.name: f.default_factory for f in fields(cls) if callable(f.default_factory)
        }
        given: dict[str, Any] = {}
        for name, value in checked(dict, record, "advanced").items():
            if name in groups and isinstance(value, dict):
                _check_names(groups[name], value)
                value = checked_record(groups[name], value, name)
            given[name] = value
        _check_names(cls, given)
        wrong = [n for n, v in given.items() if n in groups and not isinstance(v, groups[n])]
        if wrong:
            raise ParameterError(f"{wrong[0]} must be an object of settings.")
        return cls(**given)


def _check_names(cls: Any, record: dict[str, Any]) -> None:
    unknown = sorted(set(record) - set(cls.__dataclass_fields__))
    if unknown:
        raise ParameterError(f"Unknown segmentation setting {unknown[0]!r}.")
