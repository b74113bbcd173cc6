"""Everything about the GPU backends in one go: are they right, and how fast are they?

    python benchmarks/gpu.py [--json FILE] [--markdown FILE] [--image SCAN] [--quick] [--cpu]

Prints Markdown, and writes it if asked to; writes JSON. Without a GPU it says so and ends well.
The volumes are the package's synthetic head, or a scan of yours resampled to the same shapes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from napari_medgs._util.threads import default_threads
from napari_medgs.rendering import gsplat as gsplat_alpha
from napari_medgs.rendering.cpu.alpha import AlphaCpuEngine
from napari_medgs.rendering.cpu.engine import CpuEngine
from napari_medgs.rendering.cuda import engine as cuda
from napari_medgs.rendering.engine import EngineSpec, StackTarget
from napari_medgs.rendering.parameters import A1, A2, B2, GEOMETRY, LOG_R1, LOG_R2, LOG_RT, LOG_W

CASES = (
    # shape, images, classes, fold degree, blend, Gaussians
    ((24, 61, 75), 1, 0, 3, "normalized", 4000),
    ((17, 40, 90), 2, 4, 2, "normalized", 3000),
    ((9, 50, 33), 1, 20, 1, "normalized", 1500),
    ((1, 120, 130), 3, 0, 0, "normalized", 2000),
    ((2, 90, 70), 0, 3, 1, "normalized", 2000),
    ((24, 61, 75), 1, 2, 3, "sum", 4000),
)
GOAL = 38.0
SHAPES = {"256^3": (256, 256, 256), "512 x 512 x 200": (200, 512, 512)}
QUICK_SHAPES = {"96^3": (96, 96, 96)}
# Lane instructions per voxel and Gaussian, by the compiled inner loops, plus those per channel.
SPLAT_WORK, GATHER_WORK = (12, 2), (16, 4)


def machine() -> dict[str, Any]:
    import torch

    about: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda}
    about["backends"] = {"cuda": cuda.available(), "gsplat": gsplat_alpha.available()}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        about.update(gpu=properties.name, processors=properties.multi_processor_count)
        about["memory_gib"] = round(properties.total_memory / 2**30, 1)
        fields = "driver_version,clocks.max.sm,power.limit"
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        try:
            text = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
            driver, clock, power = (part.strip() for part in text.splitlines()[0].split(","))
            about.update(driver=driver, clock_mhz=float(clock), power_w=power)
        except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
            about["driver"] = f"unknown ({error})"
    return about


def random_case(shape, images, classes, degree, count, seed=0):
    """Return a table and a target of noise, with slices left out and voxels unlabeled."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(0, 0.3, (count, GEOMETRY + images + classes)).astype(np.float32)
    for column, size in zip((0, 1, 2), shape[::-1], strict=True):
        theta[:, column] = rng.uniform(-1, size, count)
    theta[:, [LOG_R1, LOG_R2, LOG_RT]] -= 0.5
    theta[:, [A2, A2 + 1, B2, B2 + 1]] *= 0.1
    theta[:, A1 + degree : A1 + 3] = 0
    theta[:, A1 + 3 + degree : A1 + 6] = 0
    theta[:, LOG_W] -= 1
    theta[: count // 100, [LOG_R1, LOG_R2, LOG_RT]] = -3  # a few are large
    labels = np.zeros((0, 0, 0), np.uint8)
    if classes:
        labels = rng.integers(0, classes, shape).astype(np.uint8)
        labels[rng.random(shape) < 0.2] = 255
    image_weights = rng.uniform(0.5, 1.5, (images, shape[0])).astype(np.float32)
    seg_weights = rng.uniform(0.1, 1, shape[0]).astype(np.float32)
    image_weights[:, 3:5] = 0
    seg_weights[4:5] = 0
    pictures = rng.random((images, *shape)).astype(np.float32)
    return theta, StackTarget(pictures, image_weights, labels, seg_weights, classes, False)


def compare(ours, truth, theta, target) -> dict[str, Any]:
    """Return differences of values, losses and gradients, and whether they are small."""
    difference = np.abs(ours.render(theta) - truth.render(theta))
    got, expected = (engine.loss_and_gradient(theta, target) for engine in (ours, truth))
    norms = np.linalg.norm(expected[2], axis=0)
    errors = np.linalg.norm(got[2] - expected[2], axis=0)[norms > 0] / norms[norms > 0]
    repeated = ours.loss_and_gradient(theta, target)
    result = {
        "values_median": float(np.median(difference)),
        "values_q999": float(np.quantile(difference, 0.999)),
        "squares": abs(got[0] / expected[0] - 1) if expected[0] else 0.0,
        "gradient": float(errors.max()),
        "repeats": bool(np.array_equal(got[2], repeated[2])),
    }
    result["ok"] = bool(
        result["values_median"] < 1e-5
        and result["values_q999"] < 1e-3
        and result["squares"] < 1e-3
        and result["gradient"] < 5e-3
    )
    return result


def correctness(report: dict[str, Any]) -> None:
    rows = report["correctness"] = []
    for shape, images, classes, degree, blend, count in CASES:
        theta, target = random_case(shape, images, classes, degree, count)
        channels = images + classes
        background = np.linspace(0.1, 0.6, channels).astype(np.float32)
        options = {"degree": degree, "cutoff": 9.0, "eps": 1e-3, "blend": blend}
        engines = [
            kind(EngineSpec(shape, channels, background, **options))
            for kind in (cuda.CudaEngine, CpuEngine)
        ]
        row = {"case": f"{shape}, {images} + {classes} channels, degree {degree}, {blend}"}
        rows.append(row | compare(*engines, theta, target))


class TimedKernels:
    """Kernels that note how long each takes."""

    double = False

    def __init__(self, kernels: Any) -> None:
        self.kernels, self.events = kernels, defaultdict(list)

    def launch(self, name: str, blocks: int, threads: int, task: Any) -> None:
        import torch

        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self.kernels.launch(name, blocks, threads, task)
        stop.record()
        self.events[name].append((start, stop))

    def milliseconds(self) -> dict[str, float]:
        import torch

        torch.cuda.synchronize()
        totals = {n: sum(a.elapsed_time(b) for a, b in pairs) for n, pairs in self.events.items()}
        self.events.clear()
        return totals


def overlap(theta: Any, shape, degree: int, points: int = 512) -> float:
    """Return how many Gaussians reach a voxel, on average over random voxels."""
    import torch

    from napari_medgs.rendering.reference import gaussians_at

    table = torch.as_tensor(theta, device="cuda")
    size = torch.tensor(shape, device="cuda")
    found = []
    for _ in range(points // 16):
        some = (torch.rand(16, 3, device="cuda") * size).floor()
        found.append((gaussians_at(table, some, degree, 9.0) > 0).sum(dim=1).float().mean())
    return float(torch.stack(found).mean())


def copy_bandwidth() -> float:
    """Return GB/s of a large copy within the device's memory, reads and writes together."""
    import torch

    a = torch.empty(1 << 28, device="cuda")
    b = torch.empty_like(a)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    b.copy_(a)
    start.record()
    for _ in range(10):
        b.copy_(a)
    stop.record()
    torch.cuda.synchronize()
    return 10 * 2 * a.numel() * 4 / start.elapsed_time(stop) / 1e6


def kernel_times(
    report: dict[str, Any], name: str, images: np.ndarray, theta: np.ndarray, degree: int
) -> None:
    """Time each kernel of a step on a fitted table, and set it against what the GPU could do."""
    shape = images.shape
    target = StackTarget(
        images[None], np.ones((1, shape[0]), np.float32), np.zeros((0, 0, 0), np.uint8),
        np.zeros(shape[0], np.float32),
    )  # fmt: skip
    timed: list[TimedKernels] = []

    def kernels(options: Any) -> TimedKernels:
        timed.append(TimedKernels(cuda.gpu_kernels(options, 0)))
        return timed[-1]

    engine = cuda.CudaEngine(
        EngineSpec(shape, 1, np.zeros(1), degree=degree, cutoff=9.0, eps=1e-3),
        device="cuda:0",
        kernels=kernels,
    )
    engine.loss_and_gradient(theta, target)
    timed[0].milliseconds()
    runs = []
    for _ in range(5):
        engine.loss_and_gradient(theta, target)
        runs.append(timed[0].milliseconds())
    median = {key: float(np.median([run[key] for run in runs])) for key in runs[0]}
    voxels, planes = int(np.prod(shape)), 2
    pairs = overlap(theta, shape, degree) * voxels
    result: dict[str, Any] = {
        "case": name,
        "gaussians": len(theta),
        "pairs": pairs,
        "ms": median,
        "ms_step": sum(median.values()),
        "list_entries": int(engine._flags[1]),
    }
    about = report["machine"]
    if "clock_mhz" in about:
        lanes = about["processors"] * 128 * about["clock_mhz"] * 1e6
        took = {"splat": median["splat"], "gather": median["gather"] + median["gather_large"]}
        for kernel, (base, each) in (("splat", SPLAT_WORK), ("gather", GATHER_WORK)):
            bound = 1e3 * pairs * (base + each * planes) / lanes
            result[f"{kernel}_of_issue_bound"] = bound / took[kernel]
    bandwidth = report.setdefault("copy_gb_s", copy_bandwidth())
    moved = voxels * 4 * (2 * planes + 1) / 1e6  # sums in and out, the image once
    result["residual_of_copy_bandwidth"] = moved / median["residual"] / bandwidth
    report.setdefault("kernels", []).append(result)


def volume_of(shape, image: Path | None):
    """Return a volume of a shape: a scan resampled, or the synthetic head."""
    from scipy.ndimage import zoom

    from napari_medgs.data.phantom import make_phantom
    from napari_medgs.data.volume import Volume
    from napari_medgs.io import read_volume

    if image is not None:
        data, source = read_volume(image).data[0].astype(np.float32), str(image)
    else:
        data, source = make_phantom(1.0, noise=2.0).image, "synthetic head, noise 2"
    scaled = zoom(data, [n / m for n, m in zip(shape, data.shape, strict=True)], order=1)
    assert scaled.shape == tuple(shape)
    return Volume.from_array(np.ascontiguousarray(scaled)), source


def fit_speed(report: dict[str, Any], shapes, image: Path | None, with_cpu: bool) -> None:
    from napari_medgs.fitting import FitParams, fit
    from napari_medgs.rendering.parameters import to_parameters

    rows = report["fits"] = []
    small, _ = volume_of((48, 48, 48), image)
    for backend in ("cuda", "cpu") if with_cpu else ("cuda",):  # compiles and loads
        fit(small, FitParams(backend=backend, quality=30.0, iterations=30, slice_axis=0))
    for name, shape in shapes.items():
        volume, source = volume_of(shape, image)
        for backend in ("cuda", "cpu") if with_cpu else ("cuda",):
            started = time.perf_counter()
            result = fit(volume, FitParams(backend=backend, quality=GOAL, slice_axis=0))
            seconds = time.perf_counter() - started
            keys = ("psnr", "ssim", "seconds_fit", "n_gaussians", "iterations", "stopped_by")
            row = {"case": name, "source": source, "backend": backend, "seconds": seconds}
            rows.append(row | {key: result.metrics.get(key) for key in keys})
            if backend == "cuda":
                low, high = np.percentile(volume.data, (0.5, 99.5))
                images = np.clip((volume.data[0] - low) / (high - low), 0, 1).astype(np.float32)
                kernel_times(
                    report, name, images, to_parameters(result.field), result.field.info.degree
                )


def gsplat_alpha_speed(report: dict[str, Any], shape=(64, 256, 256), count=20_000) -> None:
    """gsplat's alpha against our own alpha (CPU) for agreement, and CUDA engines for speed."""
    import torch

    if not gsplat_alpha.available()[0]:
        report["gsplat"] = {"skipped": gsplat_alpha.available()[1]}
        return
    options = {"degree": 2, "cutoff": 11.08, "eps": 1e-3}
    background = np.array([0.2], np.float32)
    few, target = random_case((12, 64, 64), 1, 0, 2, 600)
    pair = [
        kind(EngineSpec((12, 64, 64), 1, background, blend="alpha", **options))
        for kind in (gsplat_alpha.GsplatEngine, AlphaCpuEngine)
    ]
    values = np.abs(pair[0].render(few) - pair[1].render(few))
    result = report["gsplat"] = {
        "values_mean_difference": float(values.mean()),
        "values_largest_difference": float(values.max()),
        "note": "gsplat drops contributions below 1/255; the CPU's alpha keeps them to the cutoff",
    }
    theta, target = random_case(shape, 1, 0, 2, count)
    theta[:, [LOG_R1, LOG_R2, LOG_RT]] = np.random.default_rng(1).normal(-0.7, 0.2, (count, 3))
    table = torch.as_tensor(theta, device="cuda")
    for name, kind, blend in (
        ("gsplat alpha", gsplat_alpha.GsplatEngine, "alpha"),
        ("cuda normalized", cuda.CudaEngine, "normalized"),
    ):
        engine = kind(EngineSpec(shape, 1, background, blend=blend, **options))
        times = []
        for _ in range(6):
            torch.cuda.synchronize()
            started = time.perf_counter()
            engine.loss_and_gradient(table, target)
            torch.cuda.synchronize()
            times.append(1e3 * (time.perf_counter() - started))
        result[f"{name}, ms a step"] = float(np.median(times[1:]))


def table(rows: list[dict[str, Any]]) -> str:
    def text(v: Any) -> str:
        if isinstance(v, dict):
            return ", ".join(f"{k} {text(x)}" for k, x in v.items())
        return f"{v:.4g}" if isinstance(v, float) else str(v)

    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(keys) + " |", "|" + " --- |" * len(keys)]
    lines += ["| " + " | ".join(text(row.get(key, "")) for key in keys) + " |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("gpu-benchmark.json"))
    parser.add_argument("--markdown", type=Path, help="write what is printed to this file as well")
    parser.add_argument("--image", type=Path, help="a scan instead of the synthetic head")
    parser.add_argument("--quick", action="store_true", help="a small volume only")
    parser.add_argument("--cpu", action="store_true", help="fit on the CPU as well")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine()}
    works, reason = cuda.available()
    told: list[str] = []

    def tell(text: str) -> None:
        print(text + "\n", flush=True)
        told.append(text + "\n")
        if options.markdown:
            options.markdown.write_text("\n".join(told))

    tell("## GPU backends")
    about = "Written by `python benchmarks/gpu.py`. Fits are warm: kernels are compiled before."
    tell(f"{about} {default_threads()} CPU threads.")
    tell(table([{"what": k, "value": v} for k, v in report["machine"].items()]))
    if not works:
        tell(f"No measurement was made, because the CUDA backend cannot be used here: {reason}.")
        options.json.write_text(json.dumps(report, indent=1))
        return 0
    shapes = QUICK_SHAPES if options.quick else SHAPES
    parts = {
        "Correctness": lambda: correctness(report),
        "Fits": lambda: fit_speed(report, shapes, options.image, options.cpu),
        "gsplat": lambda: gsplat_alpha_speed(report),
    }
    failed = False
    for name, run in parts.items():
        try:
            run()
        except Exception as error:  # the other parts are still worth having
            traceback.print_exc()
            report.setdefault("errors", {})[name] = f"{type(error).__name__}: {error}"
            failed = True
        options.json.write_text(json.dumps(report, indent=1))
    for key in ("correctness", "fits", "kernels", "gsplat", "errors"):
        if found := report.get(key):
            rows = found if isinstance(found, list) else [found]
            tell(f"### {key.capitalize()}\n\n{table(rows)}")
    return int(failed or not all(row["ok"] for row in report.get("correctness", [])))


if __name__ == "__main__":
    sys.exit(main())
