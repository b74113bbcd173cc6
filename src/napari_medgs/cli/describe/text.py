"""Numbers of a file as text: titles, units, tables."""

from __future__ import annotations

from typing import Any

from napari_medgs.cli.report import Reporter

TITLES = {
    "stored_shape": "size (z, y, x)",
    "stored_spacing_mm": "spacing (z, y, x)",
    "stored_extent_mm": "extent (z, y, x)",
    "stored_axes": "axes run to",
    "file_orientation": "orientation",
    "world_mm": "reaches from",
}


def title_of(key: str) -> str:
    """Return the name of a number as it is shown."""
    if key in TITLES:
        return TITLES[key]
    return key.removesuffix("_mm").replace("_", " ")


def print_table(reporter: Reporter, title: str, entries: dict[str, Any]) -> None:
    """Print numbers with names, as a table where each has several."""
    first = next(iter(entries.values()))
    if not isinstance(first, dict):
        reporter.pairs(title, [(title_of(key), text_of(v, key)) for key, v in entries.items()])
        return
    columns = [
        key for key in first if any(entry[key] not in ("", None) for entry in entries.values())
    ]
    rows = [
        [name, *[text_of(entry[key], key) for key in columns]] for name, entry in entries.items()
    ]
    reporter.table(title, ("", *map(title_of, columns)), rows)


def text_of(value: Any, key: str = "") -> str:
    """Format a value for display; the key tells its unit."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}{' mm' * key.endswith('_mm')}"
    if isinstance(value, int):
        return f"{value:,}"
    if key == "world_mm":
        return ", ".join(f"{axis} {a:.5g} to {b:.5g}" for axis, (a, b) in value.items()) + " mm"
    if isinstance(value, dict):
        return ", ".join(f"{name} {text_of(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        sizes = key.endswith(("shape", "spacing_mm", "extent_mm"))
        text = (" x " if sizes else ", ").join(text_of(entry) for entry in value)
        if key == "stored_shape":
            return f"{text} voxels"
        return f"{text} mm" if key.endswith("_mm") else text
    return str(value)
