"""All of a session's prompts but the strokes themselves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from napari_medgs.segmentation.params import SegmentParams
from napari_medgs.segmentation.prompts.prompts import Box, Point


@dataclass(frozen=True)
class Settings:
    """All prompts but the stroke image; immutable, so that history can keep them."""

    unlabelled: int = 0
    background: int | None = None
    painted: tuple[tuple[int, int], ...] = ()
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    locked: frozenset[int] = frozenset()
    initial_margin: float = 3.0
    params: SegmentParams = field(default_factory=SegmentParams)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able values."""
        record = asdict(self)
        record["locked"] = sorted(self.locked)
        return record

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Settings:
        """Make settings from :meth:`to_dict`."""

        def triple(values: Any) -> tuple[Any, Any, Any]:
            z, y, x = values
            return z, y, x

        return cls(
            unlabelled=int(record["unlabelled"]),
            background=None if record["background"] is None else int(record["background"]),
            painted=tuple((int(a), int(i)) for a, i in record["painted"]),
            points=tuple(
                Point(
                    triple([float(v) for v in p["position"]]),
                    int(p["label"]),
                    bool(p["positive"]),
                    float(p["radius"]),
                )
                for p in record["points"]
            ),
            boxes=tuple(
                Box(
                    triple([int(v) for v in b["start"]]),
                    triple([int(v) for v in b["stop"]]),
                    int(b["label"]),
                )
                for b in record["boxes"]
            ),
            locked=frozenset(int(v) for v in record["locked"]),
            initial_margin=float(record["initial_margin"]),
            params=SegmentParams.from_dict(record["params"]),
        )
