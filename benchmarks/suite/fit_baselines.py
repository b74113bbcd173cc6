"""Other ways to the same quality, and other ways to compute the same step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from napari_medgs._util.threads import default_threads
from napari_medgs.data.field import GaussianField
from napari_medgs.data.volume import Volume
from napari_medgs.fitting.problem import FitProblem
from suite import cpp_bound
from suite.fit_bars import time_to
from suite.race import Race, race
from suite.registry import Context
from suite.results import Ratio
from suite.runner import side_by_side

PUBLISHED_STEPS = 30_000


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads within the block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def faster_threads(task: Callable[[], object], threads: int) -> int:
    """Return 1 or ``threads``: with which of them torch is faster at a task."""
    seconds = {}
    for count in {1, threads}:
        with torch_threads(count):
            task()
            start = time.perf_counter()
            for _ in range(3):
                task()
            seconds[count] = time.perf_counter() - start
    return min(seconds, key=lambda count: seconds[count])


def psnr_of(problem: FitProblem, squares: float) -> float:
    """Return the PSNR in dB of a squared error inside the problem's crop."""
    _, rows, columns = problem.info.stack_shape
    voxels = len(problem.training_slices) * rows * columns
    return -10 * float(np.log10(max((squares + problem.error_outside_crop) / voxels, 1e-12)))


def race_medgs(problem: FitProblem, quality: float, limit: float, context: Context) -> Race:
    """Train MedGS's recipe on the problem's crop."""
    from suite.medgs_recipe import MedGSRecipe

    image = problem.target.images[0]
    MedGSRecipe(image[:3, :32, :32], gaussians=100).step()  # loads the kernels
    # Its only torch operations are on three small pictures: threads would only be in the way.
    with torch_threads(1):
        recipe = MedGSRecipe(image, seed=context.seed, threads=context.threads)
        return race(
            recipe.step,
            lambda: psnr_of(problem, recipe.squared_error()),
            target=quality,
            limit=limit,
            looks=5,
            say=context.say,
            name="MedGS's recipe",
        )


def race_siren(problem: FitProblem, quality: float, limit: float, context: Context) -> Race:
    """Train a SIREN network on the problem's crop."""
    from suite.siren import SirenFit

    image = problem.target.images[0]
    threads = faster_threads(SirenFit(image).step, context.threads or default_threads())
    with torch_threads(threads):
        siren = SirenFit(image, seed=context.seed)
        return race(
            siren.step,
            lambda: psnr_of(problem, siren.mean_squared_error() * image.size),
            target=quality,
            limit=limit,
            say=context.say,
            name="SIREN",
        )


def race_blend(volume: Volume, blend: Any, quality: float, limit: float, context: Context) -> Race:
    """Fit with our own optimizer and another blend."""
    from napari_medgs.fitting import FitParams, fit

    fit(volume, FitParams(blend=blend, gaussians=200, iterations=2))  # loads the kernels
    params = FitParams(
        quality=quality,
        time_limit=limit,
        blend=blend,
        threads=context.threads,
        seed=context.seed,
    )
    result = fit(volume, params)
    trace = [(entry["seconds"], entry["psnr"]) for entry in result.history]
    best = max(psnr for _, psnr in trace)
    reached = best >= quality
    seconds = time_to(result.history, quality) if reached else trace[-1][0]
    context.say(f"  blend {blend}: {seconds:.1f} s, {best:.2f} dB")
    return Race(seconds, best, reached, len(trace), trace)


def race_ratio(what: str, baseline: str, ours: float, run: Race, note: str) -> Ratio:
    """Return the ratio of seconds to the quality."""
    steps = f"{run.steps:,} steps"
    end = steps if run.reached else f"{steps}, {run.psnr:.2f} dB when its time was up"
    return Ratio(
        what, baseline, ours, run.seconds, "" if run.reached else ">", note=f"{note}; {end}"
    )


def measure_steps(
    volume: Volume, field: GaussianField, problem: FitProblem, context: Context
) -> dict[str, float]:
    """Time one forward and backward pass of a fitted field, ours and others.

    Returns
    -------
    dict
        Median seconds: "ours"; "cpp 8" and "cpp 16" (lanes) where they can be compiled;
        "torch", scaled up from a share of its work.
    """
    from napari_medgs.rendering.cpu.engine import CpuEngine
    from napari_medgs.rendering.engine import EngineSpec
    from napari_medgs.rendering.parameters import X, Y, to_parameters
    from suite.torch_tiles import TorchTiles

    theta = to_parameters(field)
    theta[:, Y] -= problem.origin[0]
    theta[:, X] -= problem.origin[1]
    info, target = field.info, problem.target
    engine = CpuEngine(
        EngineSpec(
            problem.shape,
            1,
            problem.background,
            degree=info.degree,
            cutoff=info.cutoff,
            eps=info.eps,
            threads=context.threads,
        )
    )
    tasks: dict[str, Callable[[], Any]] = {
        "ours": partial(engine.loss_and_gradient, theta, target)
    }
    widths = () if cpp_bound.why_not() else cpp_bound.lane_counts()
    bounds = [cpp_bound.CppBound(lanes) for lanes in widths]
    for bound in bounds:
        tasks[f"cpp {bound.lanes}"] = partial(bound.step, theta, target, engine)
    for task in tasks.values():
        task()
    seconds = side_by_side(tasks, 3 if context.quick else 11)
    for bound in bounds:
        bound.close()
    best = np.inf
    for size in (4, 6):
        tiles = TorchTiles(
            target.images[0],
            float(problem.background[0]),
            size=size,
            cutoff=info.cutoff,
            eps=info.eps,
            degree=info.degree,
        )
        listed = tiles.list(theta)

        def some(tiles: TorchTiles = tiles, listed: Any = listed) -> float:
            return tiles.step(theta, listed, every=4 if context.quick else 24)[2]

        with torch_threads(faster_threads(some, context.threads or default_threads())):
            start = time.perf_counter()
            share = some()
            best = min(best, (time.perf_counter() - start) / share)
    seconds["torch"] = float(best)
    for name, value in seconds.items():
        context.say(f"  step, {name}: {value * 1e3:.1f} ms")
    return seconds
