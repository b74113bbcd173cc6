"""Statistics of labels as a table: for the screen, the clipboard and CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from napari_medgs.metrics.label_statistics import LabelStatistics

COLUMNS = {
    "volume_ml": "Volume mL",
    "mean": "Mean",
    "sd": "SD",
    "minimum": "Min",
    "maximum": "Max",
    "surface_mm2": "Surface mm²",
    "longest_mm": "Longest mm",
    "axial_longest_mm": "Axial mm",
    "axial_short_mm": "Across mm",
    "components": "Pieces",
    "voxels": "Voxels",
}
"""Names of the numbers, and their headings on the screen."""


def table_rows(
    statistics: Mapping[int, LabelStatistics], names: Mapping[int, str]
) -> list[dict[str, Any]]:
    """Return a row per label: its value, its name and all numbers.

    Parameters
    ----------
    statistics : mapping of int to LabelStatistics
    names : mapping of int to str
        Labels without one are called "label 1" and so on.
    """
    rows = []
    for value, entry in statistics.items():
        numbers = entry.to_dict()
        row = {"label": value, "name": names.get(value, f"label {value}")}
        rows.append(row | {key: numbers[key] for key in COLUMNS})
    return rows


def table_text(rows: list[dict[str, Any]], *, tabs: bool = False) -> str:
    """Return rows as CSV, or with tabs as spreadsheets take them from the clipboard.

    Parameters
    ----------
    rows : list of dict
        Of :func:`table_rows`.
    tabs : bool

    Examples
    --------
    >>> import numpy as np
    >>> from napari_medgs.data.grid import Grid
    >>> from napari_medgs.metrics import label_statistics
    >>> found = label_statistics(np.ones((1, 2, 2), int), Grid((1, 2, 2)))
    >>> print(table_text(table_rows(found, {1: "cyst"}))[:27])
    label,name,volume_ml,mean,s
    """
    opened = io.StringIO()
    columns = ["label", "name", *COLUMNS]
    dialect = "excel-tab" if tabs else "excel"
    writer = csv.DictWriter(opened, columns, dialect=dialect, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return opened.getvalue()


def cell_text(value: Any) -> str:
    """Return a number as it stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else (
            f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
        )  # fmt: skip
    return str(value)
