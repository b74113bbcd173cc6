"""``napari-medgs demo``: the main job on real input, with pictures."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medgs.cli.command import stoppable
from napari_medgs.cli.options import (
    Backend,
    BackendOption,
    DebugOption,
    JsonOption,
    QuietOption,
    SeedOption,
    ThreadsOption,
)
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output, rounded
from napari_medgs.fitting.params import FitParams

if TYPE_CHECKING:
    from napari_medgs.demo import DemoResult

DEFAULTS = FitParams()
AUTO = Backend(DEFAULTS.backend)

EXAMPLES = ("napari-medgs demo -o demo-results --no-gui",)
"""Shown at the end of the help page."""


class Case(StrEnum):
    """Volumes to run on."""

    auto = "auto"
    glioma = "glioma"
    mni152 = "mni152"
    phantom = "phantom"


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Where results go.")
    ] = Path("demo-results"),
    case: Annotated[
        Case,
        typer.Option(
            help="Volume; auto: the glioma in the folder that MEDGS_TEST_DATA names, "
            "else the MNI152 brain if nilearn is installed, else a synthetic head."
        ),
    ] = Case.auto,
    gui: Annotated[
        bool, typer.Option("--gui/--no-gui", help="Take a picture of the result in napari.")
    ] = True,
    seed: SeedOption = DEFAULTS.seed,
    backend: BackendOption = AUTO,
    threads: ThreadsOption = DEFAULTS.threads,
    json_file: JsonOption = None,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fit a volume with its mask, render, mesh, measure and picture the result."""
    del debug
    reporter = Reporter(quiet, json_file)
    check_output(output)
    check_distinct([], {"-o": output, "--json": json_file})

    from napari_medgs.demo import choose_case, run_demo

    with reporter.doing("reading"):
        chosen = choose_case(case.value)
    shape = " x ".join(map(str, chosen.volume.shape))
    spacing = " x ".join(f"{s:.3g}" for s in chosen.volume.spacing)
    reporter.note(f"{chosen.title}: {shape} voxels of {spacing} mm")
    params = FitParams(seed=seed, backend=backend.value, threads=threads)
    with stoppable("what the folder holds") as should_stop, reporter.progress() as progress:
        result = run_demo(
            chosen, output, params, gui=gui, progress=progress, should_stop=should_stop
        )
    reporter.finish(result.metrics)
    _say(reporter, result)


def _say(reporter: Reporter, result: DemoResult) -> None:
    metrics = result.metrics
    fit, scores = metrics["fit"], metrics["scores"]
    names = metrics["names"]
    rows: list[tuple[str, Any]] = [
        ("Gaussians", f"{fit['n_gaussians']:,} in {fit['bytes'] / 2**20:.1f} MiB"),
        ("image", f"PSNR {fit['psnr']:.2f} dB, SSIM {fit['ssim']:.4f}"),
        ("fit", f"{fit['seconds_fit']:.1f} s, {fit['iterations']} steps on {fit['backend']}"),
    ]
    for value, score in scores["labels"].items():
        distance = "" if score["hd95"] is None else f", HD95 {score['hd95']:.2f} mm"
        mesh = metrics["meshes"].get(value)
        surface = "" if mesh is None else f", surface {mesh['area_mm2'] / 100:.1f} cm²"
        text = (
            "in neither mask" if score["dice"] is None else f"Dice {score['dice']:.4f}{distance}"
        )
        volume = (
            f", {rounded(score['volume_ml'], 2)} ml (true {rounded(score['volume_ml_truth'], 2)})"
        )
        rows.append((names.get(value, value), text + volume + surface))
    for name, path in result.files.items():
        rows.append((name, path))
    rows += [("skipped", remark) for remark in result.remarks]
    reporter.pairs(f"Done in {metrics['seconds']:.1f} s", rows)
