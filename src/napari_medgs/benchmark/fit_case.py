"""The case "fit": seconds to a quality, against other ways to it; memory and scaling."""

from __future__ import annotations

from typing import Any

from napari_medgs.benchmark import cpp_bound
from napari_medgs.benchmark.fit_bars import (
    BARS,
    HEADLINE,
    QUICK_BARS,
    QUICK_HEADLINE,
    bars_table,
    measure_bar,
    shape_text,
)
from napari_medgs.benchmark.fit_baselines import (
    PUBLISHED_STEPS,
    measure_steps,
    race_blend,
    race_medgs,
    race_ratio,
    race_siren,
)
from napari_medgs.benchmark.fit_scaling import (
    LARGE_LIMIT,
    LARGE_STEPS,
    measure_scaling,
    scaling_table,
)
from napari_medgs.benchmark.race import Race
from napari_medgs.benchmark.registry import Context
from napari_medgs.benchmark.results import CaseResult, Ratio, Table, median

LIMIT, QUICK_LIMIT = 90.0, 3.0

NOTES = (
    "PSNR: intensities scaled so that the 0.5 to 99.5 percentile span is 1 and clipped, pooled "
    "over all voxels. Seconds are wall time from the loaded volume on, initialisation included; "
    'measuring the quality is not, for ours and for all baselines ("s in all" has it). All use '
    "the same CPU threads and the same crop to what is not background.",
    "MedGS's recipe: our own implementation on our own compiled alpha kernels. Polynomial motion "
    "of degree 7, 100,000 random Gaussians, three neighbouring slices a step, 2 L1 + 0.25 (1 - "
    "SSIM) + 0.5 in-between frames + 0.25 sigma loss, its learning rates by group, cloning, "
    "splitting, pruning and opacity resets as published, on the published schedule of 30,000 "
    "steps. Without its mirrored second camera and its three equal colour channels, which cost "
    "time and change nothing.",
    "SIREN: 5 sine layers of 256, omega 30, Adam at 1e-4, 4,096 random voxels a step (the best of "
    "several rates and sizes tried on the T1 volume), torch; with one thread or all, whichever "
    "was faster.",
    "Torch: the same normalized model in plain torch operations, blocks of voxels with the "
    "Gaussians that meet them, batched, gradients by autograd; the better of two block sizes and "
    "two thread counts, listing the blocks not counted; a share of the batches is timed and "
    "scaled up.",
    "C++: the same algorithm by hand with AVX2 or AVX-512 intrinsics and std::thread, g++ -O3 "
    "-march=native (benchmarks/cpp/bound.cpp); the better of both widths, taking turns with ours.",
    'Memory is the largest resident size of a process of its own, libraries included; "allowed" '
    "is 12 bytes x voxels x (channels + 2) + 500 MB, channels counting contrasts and classes, "
    f"and {LARGE_LIMIT / 1e9:.0f} GB for the large synthetic volume, which is fitted for "
    f"{LARGE_STEPS} steps.",
)


def run(context: Context) -> CaseResult:
    """Run the case; some minutes, or about one with ``quick``."""
    from napari_medgs.fit import FitParams, fit
    from napari_medgs.fit.prepare import make_problem

    head = QUICK_HEADLINE if context.quick else HEADLINE
    volume, _ = head.load(context)
    what = f"{head.name} {shape_text(volume)}"
    params = FitParams(quality=head.quality, threads=context.threads, seed=context.seed)
    problem = make_problem(volume, params, None, {})
    fit(volume, params)  # loads the kernels, wakes the processor
    fits = [fit(volume, params) for _ in range(context.runs)]
    ours = median([f.metrics["seconds_fit"] for f in fits])
    context.say(f"  ours: {what} to {head.quality} dB in {ours:.2f} s")

    limit = QUICK_LIMIT if context.quick else LIMIT
    races: dict[str, Race] = {
        "medgs": race_medgs(problem, head.quality, limit, context),
        "siren": race_siren(problem, head.quality, limit, context),
        "sum": race_blend(volume, "sum", head.quality, limit, context),
        "alpha": race_blend(volume, "alpha", head.quality, limit, context),
    }
    # The machine may have become faster or slower meanwhile: ours is timed on both sides.
    fits += [fit(volume, params) for _ in range(context.runs)]
    ours = median([f.metrics["seconds_fit"] for f in fits])
    steps = measure_steps(volume, fits[0].field, problem, context)
    result = CaseResult("fit", "time to a quality, memory, scaling")
    goal = f"{what} to {head.quality:.0f} dB, s"
    per_step = races["medgs"].seconds / races["medgs"].steps
    remark = (
        f"{per_step:.2f} s a step, so {per_step * PUBLISHED_STEPS / 3600:.1f} h for its "
        f"{PUBLISHED_STEPS:,} at least"
    )
    for name, baseline, note in (
        ("medgs", "MedGS's recipe, CPU", remark),
        ("siren", "SIREN 5 x 256, torch CPU", "Adam 1e-4, 4,096 voxels a step"),
        ("sum", "our optimiser, plain sum", "same defaults"),
        ("alpha", "our optimiser, alpha compositing", "same defaults"),
    ):
        result.ratios.append(race_ratio(goal, baseline, ours, races[name], note))
    result.ratios += step_ratios(what, len(fits[0].field), steps)
    reports = [measure_bar(bar, context) for bar in (QUICK_BARS if context.quick else BARS)]
    scaling = measure_scaling(context)
    result.tables = [
        bars_table(reports),
        trace_table(races, fits[0].history),
        scaling_table(scaling),
    ]
    result.notes = [*NOTES, f"Seconds grow as voxels to the power {scaling['exponent']:.2f}."]
    if cpp_bound.why_not():
        result.notes.append(f"The C++ bound was not measured: {cpp_bound.why_not()}.")
    result.numbers = {
        "seconds": ours,
        "runs": [f.metrics["seconds_fit"] for f in fits],
        "races": {name: vars(r) for name, r in races.items()},
        "steps": steps,
        "bars": reports,
        "scaling": scaling,
    }
    return result


def step_ratios(what: str, gaussians: int, seconds: dict[str, float]) -> list[Ratio]:
    """Return ratios of one forward and backward pass."""
    task = f"one step, {what}, {gaussians:,} Gaussians, s"
    ratios = [Ratio(task, "plain torch, tiled", seconds["ours"], seconds["torch"])]
    widths = {name: value for name, value in seconds.items() if name.startswith("cpp")}
    if widths:
        best = min(widths, key=lambda name: widths[name])
        note = f"{best.split()[1]} lanes; a bound: below 1 by what our kernels leave"
        ratios.append(Ratio(task, "C++ by hand", seconds["ours"], widths[best], note=note))
    return ratios


def trace_table(races: dict[str, Race], history: list[dict[str, Any]]) -> Table:
    """Return PSNR by time of all that raced."""
    names = {"medgs": "MedGS's recipe", "siren": "SIREN", "sum": "plain sum", "alpha": "alpha"}
    traces = {"ours": [(entry["seconds"], entry["psnr"]) for entry in history]}
    traces.update({names[name]: r.trace for name, r in races.items()})
    rows = []
    for name, trace in traces.items():
        picked = trace if len(trace) <= 8 else [trace[k * (len(trace) - 1) // 7] for k in range(8)]
        text = ", ".join(f"{psnr:.1f} at {seconds:.1f} s" for seconds, psnr in picked)
        rows.append((name, text))
    return Table("PSNR in dB by training time", ("method", "course"), tuple(rows))
