"""Draw the plots of the documentation from ``benchmarks/results.json``.

    python benchmarks/plots.py [--results FILE] [--out docs/images]

Quality against time from the case ``fit``, quality against bytes from the cases ``memory`` and
``compression``; a plot whose case is not in the file is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_medgs.io._atomic import atomic_path
from suite.check import load_results

ROOT = Path(__file__).resolve().parents[1]
RACERS = {
    "medgs": "MedGS's recipe",
    "siren": "SIREN",
    "sum": "our optimizer, plain sum",
    "alpha": "our optimizer, alpha",
}
Curves = dict[str, Sequence[Sequence[float]]]


def time_curves(numbers: dict[str, Any]) -> Curves:
    """Return (seconds, dB) of ours and of all that raced."""
    curves: Curves = {"ours": numbers["course"]}
    curves.update({RACERS[name]: race["trace"] for name, race in numbers["races"].items()})
    return curves


def draw(curves: Curves, label: str, title: str, file: Path) -> None:
    """Write one plot of dB over a logarithmic axis as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "napari-medgs"  # the same file for the same numbers
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.8), layout="constrained")
    for name, points in curves.items():
        x, y = zip(*points, strict=True)
        axes.plot(x, y, marker="o", markersize=3, linewidth=1.4, label=name)
    axes.set(xscale="log", xlabel=label, ylabel="PSNR, dB", title=title)
    axes.grid(alpha=0.25)
    axes.legend(fontsize="small", frameon=False)
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw what there are numbers for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    options = parser.parse_args(arguments)
    cases = load_results(options.results)
    options.out.mkdir(parents=True, exist_ok=True)
    if "fit" in cases:
        curves = time_curves(cases["fit"]["numbers"])
        title = "Quality against training time, T1 brain"
        draw(curves, "seconds", title, options.out / "quality_time.svg")
    if "memory" in cases:
        curves = cases["memory"]["numbers"]["bytes"]
        title = "Quality against bytes, T1 brain"
        draw(curves, "bytes", title, options.out / "quality_bytes.svg")
    if "compression" in cases:
        for name, curves in cases["compression"]["numbers"]["curves"].items():
            file = f"rate_{name.split(',')[0].lower().replace(' ', '_')}.svg"
            draw(curves, "bytes", f"Quality against bytes, {name}", options.out / file)


if __name__ == "__main__":
    main()
