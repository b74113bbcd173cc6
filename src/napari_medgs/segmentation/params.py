"""Settings of a segmentation: one frozen dataclass for API, command line and widget."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

from napari_medgs._util.settings import check, rename_aliases, setting
from napari_medgs.errors import ParameterError

Islands = Literal["keep", "connected", "largest"]
SOLVER, COMMON = "Segmentation", "Common options"


class SegmentStage(StrEnum):
    """Stages of a solve: what progress reports name, and the keys of a result's timings."""

    FEATURES = "image features"
    RENDERER = "score renderer"
    GRAPH = "graph"
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
    """How strokes become a mask.

    Attributes
    ----------
    appearance : float
        How much the look of the strokes' voxels counts against distance; 0 for distance alone.
    shape : float
        How much the outlines of annotated slices count between those slices; 0 for not at all.
    reach : float
        A class ends where the way from its strokes is this many times as far as the farthest way
        within its stroked slices, and past the outermost annotated slices where it is farther
        than any between them; 0 for no such ends.
    refine_voxels : int
        Undecided voxels that are looked at again one by one; 0 leaves edges as wide as Gaussians.
    smooth : float
        Smoothing of the boundary, in voxels of the finest axis; 0 for none.
    islands : {"connected", "keep", "largest"}
        Parts of a class that touch none of its strokes become background, or stay; or only the
        largest part of each class stays.
    fill_holes : bool
        Background enclosed by a class, without a background stroke in it, joins the class.
    seed : int
        Seed of all random choices: the appearance model's and the stochastic watershed's;
        0 to 2**32 - 1.
    threads : int, optional
        Most CPU threads that a solve uses, and what is asked of its result; all by default.
    """

    appearance: float = setting(
        1.0,
        low=0,
        high=100,
        step=0.1,
        label="Appearance weight",
        group=SOLVER,
        help="Weight of the appearance term (intensity and texture of the strokes' voxels) "
        "relative to geodesic distance; 0 for distance alone.",
    )
    shape: float = setting(
        0.5,
        low=0,
        high=100,
        step=0.1,
        label="Shape weight",
        group=SOLVER,
        help="Weight of the outlines in annotated slices for the slices between them; 0 for none.",
    )
    reach: float = setting(
        4.0,
        low=0,
        high=1000,
        step=0.5,
        label="Maximum path ratio",
        group=SOLVER,
        help="A class ends where the path cost from its strokes exceeds this many times the "
        "largest one within its annotated slices; 0 for no limit.",
    )
    refine_voxels: int = setting(
        250_000,
        low=0,
        high=100_000_000,
        step=50_000,
        label="Refined voxels",
        group=SOLVER,
        help="Uncertain boundary voxels that are solved again on the voxel grid; 0 for none.",
    )
    smooth: float = setting(
        1.0,
        low=0,
        high=5,
        step=0.1,
        unit="voxels",
        label="Boundary smoothing",
        group=SOLVER,
        help="Smoothing of boundaries in voxels of the finest axis; 0 for none.",
    )
    islands: Islands = setting(
        "connected",
        label="Islands",
        group=SOLVER,
        help="Which connected components of a class to keep: those that touch its strokes "
        "(connected), all (keep) or the largest.",
    )
    fill_holes: bool = setting(
        False,
        label="Fill holes",
        group=SOLVER,
        help="Fill background that a class encloses and no background stroke touches.",
    )
    seed: int = setting(
        0,
        low=0,
        high=2**32 - 1,
        label="Seed",
        group=COMMON,
        help="Seed of all random choices.",
    )
    threads: int | None = setting(
        None, low=1, none="all CPUs", label="CPU threads", group=COMMON, help="CPU threads to use."
    )

    def __post_init__(self) -> None:
        check(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> SegmentParams:
        """Make settings from :meth:`to_dict`; unknown names are refused.

        Raises
        ------
        ParameterError
            For a setting that does not exist or is out of range.
        """
        record = rename_aliases(cls, record)
        known = set(cls.__dataclass_fields__)
        unknown = sorted(set(record) - known)
        if unknown:
            raise ParameterError(f"Unknown segmentation setting {unknown[0]!r}.")
        return cls(**record)
