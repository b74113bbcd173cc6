"""Settings of a segmentation: one frozen dataclass for API, command line and widget."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from napari_medgs._util.records import checked_record
from napari_medgs._util.settings import check, rename_aliases, setting
from napari_medgs.errors import ParameterError
from napari_medgs.segmentation.advanced import SolverParams

SOLVER, COMMON = "Segmentation", "Common options"  # groups of options
LARGEST = 1e6  # intensity


class IslandRule(StrEnum):
    """Which connected components of a class stay in the result."""

    CONNECTED = "connected"
    """Those that hold a marked voxel."""
    LARGEST = "largest"
    """The largest one."""
    KEEP = "keep"
    """All."""


class SegmentStage(StrEnum):
    """Stages of a solve: what progress reports name, and the keys of a result's timings."""

    FEATURES = "image features"
    RENDERER = "score renderer"
    GRAPH = "graph"
    MOTION = "motion between slices"
    BUFFERS = "buffers"
    PROMPTS = "prompts"
    TERMS = "data terms"
    PATHS = "shortest paths"
    SHAPE = "shape prior"
    RENDER = "render"
    REFINE = "narrow band"
    POSTPROCESS = "postprocess"


@dataclass(frozen=True)
class SegmentParams:
    """Settings of the segmentation solver.

    Attributes
    ----------
    appearance : float
        Weight of the data cost (appearance, shape prior, watershed votes) along geodesic paths;
        0 for image gradients and path length alone.
    shape : float
        Weight of the shape prior, which follows outlines from the annotated slices to the others;
        0 for none.
    max_path_ratio : float
        A class ends where its path cost exceeds this many times the largest path cost within
        its annotated slices, and, past the outermost annotated slices, where it exceeds the
        largest one between them; 0 for no limit.
    refine_voxels : int
        Most voxels in the narrow band in which paths are solved on voxels instead of Gaussians;
        0 for no refinement.
    working_voxels : int
        Images with more voxels are solved on averages over blocks of voxels, and their borders
        brought to full resolution by joint bilateral upsampling.
    smooth : float
        Standard deviation of the final smoothing of the boundary, in voxels of the finest axis;
        0 for none.
    islands : IslandRule or {"connected", "keep", "largest"}
        Which connected components of each class stay: those with a marked voxel, all of them, or
        the largest one with those that the user has marked. The others become background.
    weigh_contrasts : bool
        With two to five contrasts: how much each counts for each class is learned from the
        markers, by the Shapley values of the contrasts in predicting them.
    fill_holes : bool
        Background enclosed by a class, without a background marker in it, joins the class.
    lowest, highest : float, optional
        Intensities of the first channel, in the image's units, outside of which voxels are
        background unless they are marked or locked; no limit by default.
    seed : int
        Seed of all random choices: the appearance model's and the stochastic watershed's;
        0 to LARGEST_SEED.
    threads : int, optional
        Most CPU threads that a solve uses, and what is asked of its result; all by default.
    advanced : SolverParams
        Hyper-parameters of the single terms and steps.

    Examples
    --------
    >>> params = SegmentParams(shape=0.0, islands="largest")
    >>> params.islands
    <IslandRule.LARGEST: 'largest'>
    >>> SegmentParams.from_dict(params.to_dict()) == params
    True
    """

    appearance: float = setting(
        1.0,
        low=0,
        high=100,
        step=0.1,
        label="Appearance weight",
        group=SOLVER,
        help="Weight of appearance, shape prior and watershed along paths; 0: image gradients "
        "and path length alone.",
    )
    shape: float = setting(
        0.5,
        low=0,
        high=100,
        step=0.1,
        label="Shape weight",
        group=SOLVER,
        help="Weight of the shape that follows outlines from annotated slices; 0: none.",
    )
    max_path_ratio: float = setting(
        4.0,
        low=0,
        high=1000,
        step=0.5,
        label="Maximum path ratio",
        group=SOLVER,
        aliases=("reach",),
        help="A class ends where its path cost exceeds this many times the largest one within "
        "its annotated slices; 0: no limit.",
    )
    refine_voxels: int = setting(
        250_000,
        low=0,
        high=100_000_000,
        step=50_000,
        label="Refined voxels",
        group=SOLVER,
        help="Most voxels at uncertain boundaries that are solved one by one; 0: none.",
    )
    working_voxels: int = setting(
        2**25,
        low=1000,
        high=10**10,
        step=2**22,
        label="Voxels to solve on",
        group=SOLVER,
        help="Larger images are solved on averages over blocks of voxels; borders and strokes "
        "count at full resolution.",
    )
    smooth: float = setting(
        1.0,
        low=0,
        high=5,
        step=0.25,
        unit="voxels",
        label="Boundary smoothing",
        group=SOLVER,
        help="Standard deviation of the boundary's smoothing, in voxels of the finest axis; "
        "0: none.",
    )
    islands: IslandRule = setting(
        IslandRule.CONNECTED,
        label="Islands",
        group=SOLVER,
        help="Connected components of a class to keep: those with a marked voxel, the largest "
        "one with those that you have marked, or all.",
    )
    weigh_contrasts: bool = setting(
        True,
        label="Weigh contrasts",
        group=SOLVER,
        help="Learn from the strokes how much every contrast counts for every class; otherwise "
        "all count alike.",
    )
    fill_holes: bool = setting(
        False,
        label="Fill holes",
        group=SOLVER,
        help="Background enclosed by a class joins it, unless it holds a background stroke.",
    )
    lowest: float | None = setting(
        None,
        low=-LARGEST,
        high=LARGEST,
        none="no limit",
        label="Lowest intensity",
        group=SOLVER,
        help="Voxels below this intensity of the first image are background unless marked.",
    )
    highest: float | None = setting(
        None,
        low=-LARGEST,
        high=LARGEST,
        none="no limit",
        label="Highest intensity",
        group=SOLVER,
        help="Voxels above this intensity of the first image are background unless marked.",
    )
    seed: int = setting(
        0, low=0, high=2**32 - 1, label="Seed", group=COMMON, help="Seed of all random choices."
    )
    threads: int | None = setting(
        None,
        low=1,
        high=1024,
        none="all CPUs",
        label="CPU threads",
        group=COMMON,
        help="Most CPU threads to use.",
    )
    advanced: SolverParams = field(default_factory=SolverParams)

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "islands", IslandRule(self.islands))
        if self.lowest is not None and self.highest is not None and self.lowest > self.highest:
            raise ParameterError(
                f"lowest must not be above highest, not {self.lowest:g} and {self.highest:g}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values; ``advanced`` only where it is not the default.

        Returns
        -------
        dict
        """
        record = asdict(self)
        record["islands"] = self.islands.value
        if self.advanced == SolverParams():
            del record["advanced"]
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> SegmentParams:
        """Make settings from :meth:`to_dict`, those of earlier versions included.

        Parameters
        ----------
        record : dict
            Settings by name; what is absent keeps its default.

        Returns
        -------
        SegmentParams

        Raises
        ------
        ParameterError
            For a setting that does not exist or is out of range.
        """
        record = rename_aliases(cls, record)
        unknown = sorted(set(record) - set(cls.__dataclass_fields__))
        if unknown:
            raise ParameterError(f"Unknown segmentation setting {unknown[0]!r}.")
        params: SegmentParams = checked_record(cls, record)
        return params
