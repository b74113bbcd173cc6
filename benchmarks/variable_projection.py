"""Values by conjugate gradients against values by Adam: what does each buy in a fit?

    python benchmarks/variable_projection.py [--data DIR] [--runs 3] [--case NAME ..] [--json FILE]

With the geometry fixed a normalized field is linear in its values, so the best ones solve the
normal equations J'WJ v = J'W (image - background). Here they are solved without a matrix, by the
renderer and its gradient, preconditioned by the row sums of J'WJ: as a last polish, between the
steps of Adam, and instead of Adam on the values. Prints Markdown: seconds, steps and Gaussians
to a quality (growing until it is met, not pruned); PSNR with a fixed number of Gaussians after
equal work, and after equal steps of Adam, the solutions on top.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs.fitting import FitParams
from napari_medgs.fitting import api as run
from napari_medgs.fitting.optim.loop import FitLoop
from napari_medgs.fitting.optim.state import LoopState
from napari_medgs.io._atomic import atomic_path
from napari_medgs.rendering.cpu.engine import CpuEngine
from napari_medgs.rendering.engine import EngineSpec
from napari_medgs.rendering.parameters import GEOMETRY
from suite.fit_bars import BARS, Bar
from suite.registry import Context, find_data
from suite.results import median

STEPS = 80


@dataclass(frozen=True)
class Variant:
    """How the values are found.

    Attributes
    ----------
    name : str
    every : int
        Steps of Adam between two solutions; 0 for none.
    sweeps : int
        Steps of conjugate gradients of each.
    polish : int
        Steps of conjugate gradients after the last step of Adam, and, with a quality to meet,
        once when less than half a dB is missing.
    adam : bool
        Whether Adam moves the values too.
    """

    name: str
    every: int = 0
    sweeps: int = 0
    polish: int = 0
    adam: bool = True


VARIANTS = (
    Variant("Adam"),
    Variant("Adam, then 3", polish=3),
    Variant("Adam, then 8", polish=8),
    Variant("Adam, 1 every 10 steps", every=10, sweeps=1),
    Variant("Adam, 2 every 5 steps", every=5, sweeps=2),
    Variant("1 every 2 steps, no Adam", every=2, sweeps=1, adam=False),
    Variant("3 every 5 steps, no Adam", every=5, sweeps=3, adam=False),
)


class ProjectedLoop(FitLoop):
    """A fit whose values are solved for now and then."""

    variant = VARIANTS[0]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        info, target = self.problem.info, self.target
        self.linear = CpuEngine(
            EngineSpec(
                self.shape,
                self.channels,
                np.zeros(self.channels, np.float32),
                degree=info.degree,
                cutoff=info.cutoff,
                eps=info.eps,
                threads=self.params.threads,
            )
        )
        self.nothing = replace(target, images=np.zeros_like(target.images))
        self.polished = False
        if not self.variant.adam:
            self.steps[GEOMETRY:] = 0

    def product(self, values: Any) -> Any:
        """Return J'WJ times values (N, C)."""
        table = self.state.parameters.copy()
        table[:, GEOMETRY:] = values
        return self.linear.loss_and_gradient(table, self.nothing)[2][:, GEOMETRY:].copy()

    def solve(self, sweeps: int) -> None:
        """Move the values by preconditioned conjugate gradients, in place."""
        theta = self.state.parameters
        slope = self.engine.loss_and_gradient(theta, self.target)[2][:, GEOMETRY:]
        residual = -slope.astype(np.float32)
        scale = np.maximum(self.product(np.ones_like(residual)), 1e-6)
        direction = residual / scale
        power = (residual * direction).sum(axis=0)
        for sweep in range(sweeps):
            image = self.product(direction)
            length = power / np.maximum((direction * image).sum(axis=0), 1e-12)
            theta[:, GEOMETRY:] += length * direction
            if sweep + 1 < sweeps:
                residual -= length * image
                fresh = residual / scale
                before, power = power, (residual * fresh).sum(axis=0)
                direction = fresh + power / np.maximum(before, 1e-12) * direction
        self.adam.first[:, GEOMETRY:] = 0

    def _step(self, decay: float) -> float | None:
        variant, quality = self.variant, self.params.quality
        taken = self.state.iteration
        if variant.every and taken % variant.every == variant.every - 1:
            self.solve(variant.sweeps)
        elif variant.polish and quality is not None and self.state.psnr is not None:
            missing = quality - self.state.psnr
            if 0 < missing < 0.5 and not self.polished:
                self.solve(variant.polish)
                self.polished = True
        psnr = super()._step(decay)
        if psnr is not None and quality is not None and psnr < quality - 0.5:
            self.polished = False
        return psnr

    def run(self) -> LoopState:
        """Run, then polish."""
        state = super().run()
        if self.variant.polish and self.params.quality is None:
            self.solve(self.variant.polish)
        return state


@contextmanager
def fitting_as(variant: Variant) -> Iterator[None]:
    """Let fits use a variant, stop at the target without pruning, and measure their PSNR only."""
    from napari_medgs.metrics import psnr
    from napari_medgs.rendering import render_stack

    def measure(volume: Any, field: Any, params: Any, mask: Any, kept: Any) -> dict[str, Any]:
        del mask, kept
        low, high = np.percentile(volume.data[0], params.percentiles)
        picture = np.clip(render_stack(field, threads=params.threads)[0], 0, 1)
        stack = np.moveaxis(volume.data[0], field.info.slice_axis, 0)
        truth = np.clip((stack - low) / (high - low), 0, 1).astype(np.float32)
        return {"psnr": psnr(truth, picture, data_range=1.0)}

    before = run.FitLoop, run.measure_fit, run.default_strategies
    kind = type("Loop", (ProjectedLoop,), {"variant": variant})
    run.FitLoop, run.measure_fit, run.default_strategies = kind, measure, lambda _: ()
    try:
        yield
    finally:
        run.FitLoop, run.measure_fit, run.default_strategies = before


def steps_of_equal_work(variant: Variant, steps: int = STEPS) -> int:
    """Return how many steps of Adam cost, with all solutions, what so many without do.

    A step of conjugate gradients renders and gathers once, as a step of Adam does; a solution
    starts with one more to know the slope (that of the scale comes on top and is not counted).
    """
    last = variant.polish + 1 if variant.polish else 0
    each = (variant.sweeps + 1) / variant.every if variant.every else 0
    return round((steps - last) / (1 + each))


def measure_case(bar: Bar, context: Context) -> list[dict[str, Any]]:
    """Return, per variant, seconds to the goal, and dB after equal work and equal steps."""
    volume, _ = bar.load(context)
    common = {"threads": context.threads, "backend": "cpu"}
    with fitting_as(VARIANTS[0]):
        run.fit(volume, FitParams(iterations=2, **common))  # loads the kernels
        gaussians = len(run.fit(volume, FitParams(quality=bar.quality, **common)).field)
    reports: list[dict[str, Any]] = [{"name": v.name} for v in VARIANTS]
    for seed in range(context.runs):  # variants take turns, so that noise hits all alike
        for variant, report in zip(VARIANTS, reports, strict=True):
            goal = FitParams(quality=bar.quality, seed=seed, **common)
            fixed = replace(goal, quality=None, gaussians=gaussians)
            with fitting_as(variant):
                reached = run.fit(volume, goal)
                steps = steps_of_equal_work(variant)
                equal = run.fit(volume, replace(fixed, iterations=steps))
                more = run.fit(volume, replace(fixed, iterations=STEPS))
            numbers = {
                "seconds": reached.metrics["seconds_fit"],
                "gaussians": len(reached.field),
                "steps": reached.metrics["iterations"],
                "equal_seconds": equal.metrics["seconds_fit"],
                "equal_psnr": equal.metrics["psnr"],
                "more_seconds": more.metrics["seconds_fit"],
                "more_psnr": more.metrics["psnr"],
            }
            for key, value in numbers.items():
                report.setdefault(key, []).append(value)
            context.say(f"  {bar.name}, {variant.name}, seed {seed}: {numbers}")
    return reports


def table(reports: list[dict[str, Any]]) -> str:
    """Return medians as a Markdown table."""
    lines = [
        f"| values by | s to the goal | steps | Gaussians | dB after equal work | in s | dB after "
        f"{STEPS} steps | in s |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for report in reports:
        m = {key: median(values) for key, values in report.items() if key != "name"}
        lines.append(
            f"| {report['name']} | {m['seconds']:.2f} | {m['steps']:.0f} | {m['gaussians']:,.0f} "
            f"| {m['equal_psnr']:.2f} | {m['equal_seconds']:.2f} | {m['more_psnr']:.2f} "
            f"| {m['more_seconds']:.2f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all variants on all volumes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--case", nargs="*", help="names of volumes; all by default")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    context = Context(
        find_data(options.data),
        runs=options.runs,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    answers = {}
    for bar in BARS:
        if not bar.mask and (not options.case or bar.name in options.case):
            answers[bar.name] = measure_case(bar, context)
            print(
                f"\n**{bar.name}, {bar.quality:g} dB**\n\n{table(answers[bar.name])}", flush=True
            )
    if options.json:
        with atomic_path(options.json) as temporary:
            temporary.write_text(json.dumps(answers, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
