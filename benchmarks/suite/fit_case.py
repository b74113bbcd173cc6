"""The cases "fit", "memory" and "scaling": seconds to a quality, bytes, sizes."""

from __future__ import annotations

from typing import Any

from suite import cpp_bound
from suite.fit_bars import (
    BARS,
    HEADLINE,
    QUICK_BARS,
    QUICK_HEADLINE,
    bars_table,
    measure_bar,
    shape_text,
    time_to,
)
from suite.fit_baselines import (
    PUBLISHED_STEPS,
    measure_steps,
    race_blend,
    race_medgs,
    race_ratio,
    race_siren,
)
from suite.fit_bytes import bytes_table, measure_bytes
from suite.fit_scaling import LARGE_LIMIT, LARGE_STEPS, THICK_LIMIT, measure_scaling, scaling_table
from suite.race import Race
from suite.registry import Context
from suite.results import CaseResult, Ratio, Table, median

# Seconds of training that a baseline gets, in units of the seconds of ours: more than the bars of
# 100 for MedGS's recipe and 20 for SIREN, so that one that is not there yet has missed them.
MEDGS_SHARE, SIREN_SHARE, BLEND_SHARE = 110.0, 24.0, 24.0
QUICK_LIMIT = 3.0

PSNR_NOTE = (
    "PSNR: intensities scaled so that the 0.5 to 99.5 percentile span is 1 and clipped, pooled "
    "over all voxels. Seconds are wall time from the loaded volume on, including "
    "initialization and excluding the measurement of quality, for all methods (the column 's "
    "in all' includes it). All methods use the same CPU threads and the same crop to the "
    "foreground."
)
MEMORY_NOTE = (
    'Memory is the largest resident size of a process of its own, libraries included; "allowed" '
    "is 12 bytes x voxels x (channels + 2) + 500 MB, channels counting contrasts and classes."
)
BYTES_NOTE = (
    "Bytes: the tensors of a field, and the same image on a coarser grid of 32-bit floats "
    "(filtered, sampled, interpolated back with cubic splines)."
)
NOTES = (
    PSNR_NOTE,
    "MedGS's recipe: our own implementation on our own compiled alpha kernels. Polynomial "
    "motion of degree 7, 100,000 random Gaussians, three neighboring slices per step, 2 L1 + "
    "0.25 (1 - SSIM) + 0.5 in-between frames + 0.25 sigma loss, its learning rates by group, "
    "cloning, splitting, pruning and opacity resets as published, on the published schedule "
    "of 30,000 steps. Without its mirrored second camera and its three equal color channels, "
    "which cost time and change nothing.",
    "SIREN: 5 sine layers of 256, omega 30, Adam at 1e-4, 4,096 random voxels per step (the "
    "best of several rates and sizes tried on the T1 volume), torch; with one thread or all, "
    "whichever was faster.",
    "Torch: the same normalized model in plain torch operations, batches of voxel blocks "
    "with the Gaussians that intersect them, gradients by autograd; the better of two block "
    "sizes and two thread counts. Building the lists is not counted; a part of the batches is "
    "timed and scaled up.",
    "C++: the same algorithm, hand-written with AVX2 or AVX-512 intrinsics and std::thread, "
    "g++ -O3 -march=native (benchmarks/cpp/bound.cpp); the better of both widths, "
    "alternating with ours.",
)


def run(context: Context) -> CaseResult:
    """Run the case "fit"; about ten minutes, or less than one with ``quick``."""
    from napari_medgs.fitting import FitParams, fit
    from napari_medgs.fitting.problem import make_problem

    head = QUICK_HEADLINE if context.quick else HEADLINE
    volume, _ = head.load(context)
    what = f"{head.name} {shape_text(volume)}"
    params = FitParams(quality=head.quality, threads=context.threads, seed=context.seed)
    problem = make_problem(volume, params, None, {})
    fit(volume, params)  # loads the kernels, wakes the processor
    fits = [fit(volume, params) for _ in range(context.runs)]
    ours = median([time_to(f.history, head.quality) for f in fits])
    context.say(f"  ours: {what} to {head.quality} dB in {ours:.2f} s")

    def limit(share: float) -> float:
        return QUICK_LIMIT if context.quick else share * ours

    races: dict[str, Race] = {
        "medgs": race_medgs(problem, head.quality, limit(MEDGS_SHARE), context),
        "siren": race_siren(problem, head.quality, limit(SIREN_SHARE), context),
        "sum": race_blend(volume, "sum", head.quality, limit(BLEND_SHARE), context),
        "alpha": race_blend(volume, "alpha", head.quality, limit(BLEND_SHARE), context),
    }
    # The machine may have become faster or slower meanwhile: ours is timed on both sides.
    fits += [fit(volume, params) for _ in range(context.runs)]
    ours = median([time_to(f.history, head.quality) for f in fits])
    pruned = median([f.metrics["seconds_fit"] for f in fits])
    most = max(entry["gaussians"] for entry in fits[0].history)
    steps = measure_steps(volume, fits[0].field, problem, context)
    result = CaseResult("fit", "time to a quality, time of a step")
    goal = f"{what} to {head.quality:.0f} dB, s"
    per_step = races["medgs"].seconds / races["medgs"].steps
    remark = (
        f"{per_step:.2f} s per step, so {per_step * PUBLISHED_STEPS / 3600:.1f} h for its "
        f"{PUBLISHED_STEPS:,} at least"
    )
    for name, baseline, note in (
        ("medgs", "MedGS's recipe, CPU", remark),
        ("siren", "SIREN 5 x 256, torch CPU", "Adam 1e-4, 4,096 voxels per step"),
        ("sum", "our optimizer, plain sum", "same defaults"),
        ("alpha", "our optimizer, alpha compositing", "same defaults"),
    ):
        result.ratios.append(race_ratio(goal, baseline, ours, races[name], note))
    result.ratios += step_ratios(what, len(fits[0].field), steps)
    result.tables = [trace_table(races, fits[0].history)]
    result.notes = [
        *NOTES,
        f"The seconds of ours, and of its other blends, end when the quality is first met. Going "
        f"on to leave out and merge Gaussians, from {most:,} to {len(fits[0].field):,} at that "
        f"quality, ours takes {pruned:.2f} s in all.",
    ]
    if cpp_bound.why_not():
        result.notes.append(f"The C++ bound was not measured: {cpp_bound.why_not()}.")
    result.numbers = {
        "seconds": ours,
        "runs": [time_to(f.history, head.quality) for f in fits],
        "seconds_pruned": pruned,
        "races": {name: vars(r) for name, r in races.items()},
        "course": [(entry["seconds"], entry["psnr"]) for entry in fits[0].history],
        "steps": steps,
    }
    return result


def run_memory(context: Context) -> CaseResult:
    """Run the case "memory": peaks of fits to a quality, and quality by bytes of the result."""
    reports = [measure_bar(bar, context) for bar in (QUICK_BARS if context.quick else BARS)]
    head = QUICK_HEADLINE if context.quick else HEADLINE
    curves = measure_bytes(head, context)
    result = CaseResult("memory", "memory of a fit, bytes of a field")
    result.ratios = [
        Ratio(
            f"{report['name']}, peak memory, GB",
            "what a fit is allowed",
            report["peak_bytes"] / 1e9,
            report["allowed_bytes"] / 1e9,
        )
        for report in reports
    ]
    result.tables = [bars_table(reports), bytes_table(head.name, curves)]
    result.notes = [PSNR_NOTE, MEMORY_NOTE, BYTES_NOTE]
    result.numbers = {"bars": reports, "bytes": curves}
    return result


def run_scaling(context: Context) -> CaseResult:
    """Run the case "scaling": seconds and memory by the number of voxels."""
    scaling = measure_scaling(context)
    result = CaseResult("scaling", "time and memory by size")
    result.tables = [scaling_table(scaling)]
    result.notes = [
        f"Seconds grow as voxels to the power {scaling['exponent']:.2f}.",
        MEMORY_NOTE,
        "The thick slices are the brain T1 (256 x 256 x 256, 1 mm), averaged over 2 mm and "
        "interpolated to finer pixels: a synthetic resampling. The command `napari-medgs fit "
        "--interpolate` took "
        f"{scaling['between']['command_seconds']:.1f} s for them from start to saved field, "
        f"measuring the quality included (on two cores it may take {THICK_LIMIT:.0f} s); targets "
        f"between the slices: {scaling['between']['between']}. Their stack has twice the slices, "
        "so that twice the memory is allowed.",
        f"The large synthetic volume may take {LARGE_LIMIT / 1e9:.0f} GB and is fitted for "
        f"{LARGE_STEPS} steps.",
    ]
    result.numbers = scaling
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
