"""Settings of a segmentation: one frozen dataclass for API, command line and widget."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

from napari_medgs.errors import ParameterError

Islands = Literal["keep", "connected", "largest"]


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

    appearance: float = 1.0
    shape: float = 0.5
    reach: float = 4.0
    refine_voxels: int = 250_000
    smooth: float = 1.0
    islands: Islands = "connected"
    fill_holes: bool = False
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        self._check("appearance", 0 <= self.appearance <= 100, "from 0 to 100")
        self._check("shape", 0 <= self.shape <= 100, "from 0 to 100")
        self._check("reach", self.reach >= 0, "0 or more")
        self._check("refine_voxels", self.refine_voxels >= 0, "0 or more")
        self._check("smooth", 0 <= self.smooth <= 5, "from 0 to 5 voxels")
        self._check(
            "islands",
            self.islands in ("keep", "connected", "largest"),
            "keep, connected or largest",
        )
        self._check("seed", 0 <= self.seed < 2**32, "from 0 to 4294967295")
        self._check("threads", self.threads is None or self.threads >= 1, "1 or more")

    def _check(self, name: str, good: bool, wanted: str) -> None:
        if not good:
            raise ParameterError(f"{name} must be {wanted}, not {getattr(self, name)!r}.")

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
        known = set(cls.__dataclass_fields__)
        unknown = sorted(set(record) - known)
        if unknown:
            raise ParameterError(f"Unknown segmentation setting {unknown[0]!r}.")
        return cls(**record)
