"""Hyper-parameters of the single terms; see :mod:`~napari_medgs.segmentation.advanced`."""

from __future__ import annotations

from dataclasses import dataclass

from napari_medgs._util.settings import check, setting
from napari_medgs.errors import ParameterError


@dataclass(frozen=True)
class FeatureParams:
    """Image features.

    Attributes
    ----------
    guide_sigma : float
        Smoothing of the guide image, whose gradient paths integrate.
    coarse_sigmas : tuple of float
        Smoothing of the coarse features, one or more, none less than the one before.
    equalization : float
        Part of histogram equalization in the intensity curve, 0 to 1; the rest is linear.
    noise_correlation : float
        Channels whose differences between neighbors correlate less than this with the next ones
        in a row are noisy; others are clean, and smoothed less at fine scales.
    """

    guide_sigma: float = setting(1.0, low=0, high=20)
    coarse_sigmas: tuple[float, ...] = setting((2.0, 4.0), low=0, high=50)
    equalization: float = setting(0.5, low=0, high=1)
    noise_correlation: float = setting(-0.1, low=-1, high=1)

    def __post_init__(self) -> None:
        check(self)
        if not self.coarse_sigmas:
            raise ParameterError("coarse_sigmas must hold one length or more.")
        if list(self.coarse_sigmas) != sorted(self.coarse_sigmas):
            raise ParameterError("coarse_sigmas must increase.")


@dataclass(frozen=True)
class BiasParams:
    """Strong smooth fields of brightness, which are divided out where appearance is learned.

    Attributes
    ----------
    least_range : float
        Ratio of a field's 95th to its 5th percentile in the foreground from which it counts.
    least_gain : float
        Least decrease of the entropy of the logarithm of intensities without the field, over the
        logarithm of that ratio.
    most_explained : float
        Most of the squared differences of neighbors that a field may explain: where it explains
        more, there are hardly any borders, and what is smooth may be the object.
    degree : int
        Of the polynomial that the field's logarithm is.

    References
    ----------
    Hui, Zhou and Narayana 2010, *A fast algorithm for calculation of inhomogeneity gradient in
    magnetic resonance imaging data*, Journal of Magnetic Resonance Imaging 32(5).
    """

    least_range: float = setting(2.2, low=1, high=1e6)
    least_gain: float = setting(0.2, low=0, high=10)
    most_explained: float = setting(0.08, low=0, high=1)
    degree: int = setting(2, low=1, high=4)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class AppearanceParams:
    """The appearance model: class densities and a forest of extremely randomized trees.

    Attributes
    ----------
    trees : int
    min_leaf : int
        Least samples per leaf.
    max_samples : int
        Most samples per class.
    bandwidth : float
        Kernel width of the densities for 60 samples, as a fraction of the intensity range.
    density_floor : float
        Weight of the uniform density that is mixed in.
    shrinkage : float
        The forest counts with weight n / (n + shrinkage), n the samples of the rarest class.
    image_samples : int
        Random places of the image that are samples of the background beside its markers where
        one slice alone, or none, is annotated: its strokes do not show all of it.
    """

    trees: int = setting(20, low=1, high=1000)
    min_leaf: int = setting(2, low=1, high=1_000_000)
    max_samples: int = setting(3000, low=1, high=1_000_000)
    bandwidth: float = setting(0.03, above=0, high=10)
    density_floor: float = setting(0.05, low=0, high=10)
    shrinkage: float = setting(40.0, low=0, high=1e6)
    image_samples: int = setting(100, low=0, high=1_000_000)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class WatershedParams:
    """The stochastic watershed.

    Attributes
    ----------
    realizations : int
        Random watersheds per solve, shared evenly by the hierarchies.
    held_out_realizations : int
        Random watersheds per fold of the cross-validation, and the least per solve.
    noise : float
        Standard deviation of the noise on the logarithm of saddle heights.
    max_basins : int
        Most basins in all realizations together: large images get fewer realizations.
    min_weight, default_weight, max_weight : float
        Data cost, in nats, of a class that no realization assigns: at no skill on held-out
        slices, where none can be held out, and at perfect skill.
    skill_exponent : float
        The weight grows with this power of the skill.
    unsure_weight : float
        Where one slice is annotated: of a class that the votes do not find along its own strokes.
        It grows to ``default_weight`` with the skill of finding parts of them from the others.
    sure_skill : float
        Skill from which on it is ``default_weight``.
    """

    realizations: int = setting(32, low=1, high=1000)
    held_out_realizations: int = setting(8, low=1, high=1000)
    noise: float = setting(0.8, low=0, high=100)
    max_basins: int = setting(4_000_000, low=1, high=10**9)
    min_weight: float = setting(1.0, low=0, high=1000)
    default_weight: float = setting(2.0, low=0, high=1000)
    max_weight: float = setting(3.0, low=0, high=1000)
    skill_exponent: float = setting(2.0, low=0, high=100)
    unsure_weight: float = setting(0.75, low=0, high=1000)
    sure_skill: float = setting(0.6, above=0, high=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class CalibrationParams:
    """Cross-validation over annotated slices.

    Attributes
    ----------
    folds : int
        Most folds; slices are grouped into so many.
    max_samples : int
        Most held-out samples per class and fold, and most training samples per class.
    trees : int
        Trees of the appearance model per fold.
    inverse_temperatures : tuple of float
        Candidates for the power to which appearance probabilities are raised.
    gradient_discount, default_gradient_discount : float
        Part of the image gradient's cost that a class is spared where the appearance model is
        certain of it, with and without held-out slices.
    outlier_probability : float
        Probability of a held-out marker that no term explains.
    """

    folds: int = setting(4, low=2, high=20)
    max_samples: int = setting(400, low=1, high=1_000_000)
    trees: int = setting(8, low=1, high=1000)
    inverse_temperatures: tuple[float, ...] = setting(
        (0.0, 0.1, 0.2, 0.35, 0.5, 0.7, 1.0), low=0, high=100
    )
    gradient_discount: float = setting(0.8, low=0, high=1)
    default_gradient_discount: float = setting(0.5, low=0, high=1)
    outlier_probability: float = setting(0.02, low=0, below=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ShapeParams:
    """Annotated slices as a whole, and what is interpolated between them.

    Attributes
    ----------
    max_distance : float
        Signed distances are clipped at this distance from the outline.
    edge_width : float
        Width of the prior's sigmoid in an annotated slice.
    edge_growth : float
        Increase of that width per unit distance from the slice.
    rich_fraction : float
        Slices with at least this fraction of the markers of the richest slice are taken as
        completely annotated: unseeded components in them become background.
    seed_distance : float
        Components of a class farther than this from all its markers in a slice are unseeded.
    most_unpainted : float
        What the solve shows of a class around a thick stroke, over the stroke's area, up to which
        the stroke counts as painted up to the border of the class; 0: hardly ever.
    max_gap : float
        Distance of fully labeled slices, in finest voxels, up to which labels are interpolated
        between them.
    min_overlap : float
        Dice of a class's sections in two fully labeled slices from which it is interpolated; where
        a single slice lies between, both must show it.
    oblique_depth : float
        Classes that are nowhere deeper than this in two annotated slices, and that interpolation
        loses between them, move from one to the other; 0: none.
    outside_weight : float
        Weight of the prior past the outermost annotated slices, over that between them. There it
        only says where a class is not; 0: nothing.
    outside_most : float
        Most that it says there against a class, in nats.
    min_shown : float
        Share of a class's markers in an annotated slice that the Gaussians must show for the
        slice's outline of the class to count past it.
    """

    max_distance: float = setting(20.0, above=0, high=1e4)
    edge_width: float = setting(1.5, above=0, high=1e4)
    edge_growth: float = setting(0.5, low=0, high=1000)
    rich_fraction: float = setting(0.5, low=0, high=1)
    seed_distance: float = setting(6.0, low=0, high=1e4)
    most_unpainted: float = setting(0.25, low=0, high=1000)
    max_gap: float = setting(16.0, low=0, high=1e4)
    min_overlap: float = setting(0.65, low=0, high=1)
    oblique_depth: float = setting(3.0, low=0, high=1e4)
    outside_weight: float = setting(2.0, low=0, high=1000)
    outside_most: float = setting(2.5, low=0, high=1000)
    min_shown: float = setting(0.5, low=0, high=1)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class MotionPriorParams:
    """In-plane motion from slice to slice, along which the shape prior goes.

    Attributes
    ----------
    window : float
        Standard deviation of the window that shares one motion, in pixels.
    ridge : float
        Pull to zero motion in units of the noise variance.
    iterations : int
        Re-linearizations.
    voxels : int
        Images of more voxels are averaged over blocks of pixels; 0: no motion, outlines are
        interpolated in straight lines.
    """

    window: float = setting(1.0, above=0, high=100)
    ridge: float = setting(2.0, low=0, high=1e6)
    iterations: int = setting(3, low=1, high=100)
    voxels: int = setting(3_000_000, low=0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ScatterParams:
    """Classes of many components, whose unmarked components are found by their look.

    Attributes
    ----------
    min_components : int
        Least components of a class in the annotated slices; 0: none is looked for.
    min_apart : float
        Least number of components over that of their outlines in all annotated slices: larger
        ones show in several slices.
    min_precision : float
        Least part of what looks like the class in the annotated slices that is of the class.
    min_precision_few : float
        The same where the rest lies in no more components than the class has there (of two or
        more pixels): they may be of the class, and not marked.
    min_recall : float
        Least part of the components that is recognized when it is left out.
    max_size : float
        Largest extent of what is found, over the diameter of the largest annotated component.
    min_margin : float
        Of a component of the answer that is longer than that, what is likelier the class than any
        other one by less than this, in nats, is background.
    """

    min_components: int = setting(3, low=0, high=1_000_000)
    min_apart: float = setting(0.5, low=0, high=1)
    min_precision: float = setting(0.8, low=0, high=1)
    min_precision_few: float = setting(0.6, low=0, high=1)
    min_recall: float = setting(0.6, low=0, high=1)
    max_size: float = setting(1.5, above=0, high=1000)
    min_margin: float = setting(0.5, low=0, high=1000)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class RegionGrowingParams:
    """Region growing on the unsmoothed image in the narrow band.

    Attributes
    ----------
    weight, default_weight : float
        Data cost, in nats, of the classes that do not grow to a voxel: with several annotated
        slices, and with one or none; 0 for no region growing.
    watershed_fraction, default_watershed_fraction : float
        Part of the watershed's weight that is left beside it in the band, in the same two cases.
    leak_factor : int
        Where the Gaussians show a class in no neighboring voxel, it counts only if it would still
        come before the background with steps so many times as long; 1 to count everywhere.
    min_shown : float
        Share of a class's markers at which the Gaussians must show it for that: those of thin
        structures are lost between the Gaussians, and region growing finds them again.
    """

    weight: float = setting(2.0, low=0, high=1000)
    default_weight: float = setting(2.0, low=0, high=1000)
    watershed_fraction: float = setting(0.5, low=0, high=1)
    default_watershed_fraction: float = setting(0.75, low=0, high=1)
    leak_factor: int = setting(4, low=1, high=16)
    min_shown: float = setting(0.95, low=0, high=1)

    def __post_init__(self) -> None:
        check(self)
