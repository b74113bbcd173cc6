"""``--explain``: what every contrast contributes to every class, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_medgs.cli.report import label_title


def contrast_rows(metrics: Mapping[str, Any], names: Mapping[int, str]) -> list[tuple[str, str]]:
    """Return one line for every class: the contrasts by their contribution, largest first."""
    rows = []
    for value, numbers in metrics.get("contrasts", {}).items():
        shares = sorted(numbers["shapley"].items(), key=lambda pair: -pair[1])
        text = ", ".join(f"{contrast} {share:+.3f}" for contrast, share in shares)
        rows.append((f"contrasts of {label_title(int(value), names)}", text))
    return rows
