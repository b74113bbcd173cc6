"""Trained segmenters: every slot's variants on hippocampi, against MONAI's networks.

    python benchmarks/run.py learn
    python benchmarks/learning.py [--data DIR] [--out DIR] [--cases 5 20] [--seeds 0 1 2]
                                  [--variants unet ...] [--seconds 80] [--parallel 2]
                                  [--deadline 450] [--accelerator cpu] [--json FILE]

The 200 cases of the data folder are split once: 40 to test, a pool of 160 to train. A run trains
one variant on some cases of the pool for the same time as every other, in a process of its own
with one thread, and is measured on the 40. On a CPU the time is that of the process, so that other
work on the machine shortens no run. Runs whose file is in the folder already are not
done again: an interrupted benchmark goes on where it was. ``--deadline`` starts no run that could
not end in time.

Differences are paired: the same seed (which also chooses the training cases) and the same test
case. Their intervals are bootstrapped over seeds and test cases together.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from learning_report import report
from suite.registry import Context, find_data
from suite.results import CaseResult

TEST, POOL_SEED = 40, 2026
VARIANTS: dict[str, dict[str, str]] = {
    "unet": {},
    "deep": {"supervision": "deep"},
    "lomix": {"supervision": "lomix"},
    "gaussian": {"decoder": "gaussian"},
    "gaussian-energy": {"decoder": "gaussian-energy"},
    "field": {"decoder": "field"},
    "forest": {"encoder": "forest"},
    "monai-basicunet": {"monai": "BasicUNet"},
    "monai-segresnet": {"monai": "SegResNet"},
}
"""Settings that differ from the default; the first is the default."""
TAIL_SECONDS = 35.0
"""What a run takes beside its training: imports, preparing, 40 test cases."""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes
    ----------
    variant : str
    cases : int
    seed : int
    seconds : float
        Of the training, on a CPU those of the process; 0 where ``steps`` counts.
    steps : int
    accelerator : str
    folds : int
    """

    variant: str
    cases: int
    seed: int
    seconds: float
    steps: int = 0
    accelerator: str = "cpu"
    folds: int = 0

    @property
    def name(self) -> str:
        """Of its file."""
        budget = f"{self.steps}steps" if self.steps else f"{self.seconds:g}s"
        parts = [self.variant, f"{self.cases}cases", f"seed{self.seed}", budget, self.accelerator]
        return "_".join(parts + ([f"{self.folds}folds"] if self.folds else []))


def split(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the pool's and of the test's cases."""
    names = sorted(p.name.removesuffix(".nii.gz") for p in (folder / "images").glob("*.nii.gz"))
    order = np.random.default_rng(POOL_SEED).permutation(len(names))
    return [names[k] for k in order[TEST:]], sorted(names[k] for k in order[:TEST])


def training_names(folder: Path, run: Run) -> list[str]:
    """Return the cases that a run trains on: by its seed from the pool."""
    pool, _ = split(folder)
    order = np.random.default_rng([POOL_SEED, run.seed]).permutation(len(pool))
    return [pool[k] for k in order[: run.cases]]


def source_of(folder: Path, names: list[str]) -> Any:
    """Return some cases as a source of training."""
    from napari_medgs.learning.data.sources import TrainingCase, TrainingSource

    cases = tuple(
        TrainingCase(
            name,
            (str(folder / "images" / f"{name}.nii.gz"),),
            str(folder / "labels" / f"{name}.nii.gz"),
        )
        for name in names
    )
    return TrainingSource(cases, {1: "anterior", 2: "posterior"}, (), str(folder))


def train(run: Run, source: Any) -> tuple[Any, dict[str, float]]:
    """Return the segmenter of a run, and its steps and seconds."""
    from napari_medgs.learning import LearnParams, train_segmenter

    options = dict(VARIANTS[run.variant])
    if "monai" in options:
        from learning_monai import train_monai

        return train_monai(
            options["monai"], source, run.seconds, run.steps, run.seed, run.accelerator
        )
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    params = LearnParams(
        minutes=run.seconds / 60 if not run.steps else None,
        steps=run.steps or None,
        folds=run.folds,
        seed=run.seed,
        accelerator="gpu" if run.accelerator == "cuda" else "cpu",
        workers=0 if threads < 3 else threads - 1,
        threads=threads,
        logger="none",
        **options,
    )
    result = train_segmenter(source, params)
    steps = {"steps": result.history["all"][-1]["step"], "seconds": result.seconds}
    return result.segmenter, steps


def measure(segmenter: Any, folder: Path, names: list[str], folds: bool) -> dict[str, Any]:
    """Return the scores of every test case, and the time that it took."""
    from napari_medgs.io import read_labels, read_volume
    from napari_medgs.learning.components import keep_largest
    from napari_medgs.learning.training.measure import agreement_of
    from napari_medgs.metrics import dice, hd95

    scores: dict[str, Any] = {}
    seconds = []
    for name in names:
        volume = read_volume(folder / "images" / f"{name}.nii.gz")
        truth, _ = read_labels(folder / "labels" / f"{name}.nii.gz", like=volume.grid)
        started = time.process_time()
        result = segmenter.segment(volume, folds=folds, largest=False)
        seconds.append(time.process_time() - started)
        single = keep_largest(result.labels, (1, 2))
        scores[name] = {
            "dice": [dice(result.labels == k, truth == k) for k in (1, 2)],
            "hd95": [hd95(result.labels == k, truth == k, volume.grid) for k in (1, 2)],
            "dice_single": [dice(single == k, truth == k) for k in (1, 2)],
            "hd95_single": [hd95(single == k, truth == k, volume.grid) for k in (1, 2)],
        }
        if folds:
            scores[name]["agreement"] = agreement_of(result.fold_labels, (1, 2))
    return {"scores": scores, "seconds_case": float(np.median(seconds))}


def perform(run: Run, data: Path, out: Path) -> None:
    """Do one run in this process and write its file."""
    import torch

    from suite.isolated import peak_bytes

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if run.accelerator == "cpu":  # minutes of this process are CPU minutes
        time.perf_counter = time.process_time
    folder = data / "hippocampus_msd"
    cpu = time.process_time()
    segmenter, trained = train(run, source_of(folder, training_names(folder, run)))
    cpu = time.process_time() - cpu
    peak = peak_bytes()
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    segmenter.to("cpu")
    found = {
        **asdict(run),
        "seconds_wanted": run.seconds,
        "steps_wanted": run.steps,
        **trained,
        "cpu_seconds": cpu,
        "parameters": sum(p.numel() for p in segmenter.networks[0].parameters()),
        "peak_bytes": peak,
        "gpu_bytes": on_gpu,
        "card_dice": segmenter.card.dice,
        "precision": str(segmenter.card.training.get("precision_used", "")),
        "device": torch.cuda.get_device_name() if run.accelerator == "cuda" else "cpu",
        **measure(segmenter, folder, split(folder)[1], bool(run.folds)),
    }
    temporary = out / f".{run.name}.tmp"
    temporary.write_text(json.dumps(found), encoding="utf-8")
    temporary.replace(out / f"{run.name}.json")


def perform_all(
    runs: list[Run],
    data: Path,
    out: Path,
    parallel: int,
    threads: int,
    deadline: float | None,
    say: Any,
) -> list[str]:
    """Do the runs that are not done, some at a time; return what went wrong."""
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    waiting = [run for run in runs if not (out / f"{run.name}.json").is_file()]
    say(f"{len(runs) - len(waiting)} of {len(runs)} runs are there already")
    busy: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
    failed: list[str] = []
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "NUMBA_NUM_THREADS": str(threads),
        "MEDGS_THREADS": str(threads),
    }
    while waiting or busy:
        while waiting and len(busy) < parallel:
            run = waiting.pop(0)
            spent = time.monotonic() - started
            if deadline is not None and spent + run.seconds + TAIL_SECONDS > deadline:
                failed.append(f"{run.name}: no time left")
                continue
            log = out / f"{run.name}.log"
            command = [sys.executable, __file__, "--one", json.dumps(asdict(run))]
            command += ["--data", str(data), "--out", str(out)]
            own = dict(environment)
            if run.accelerator == "cpu":
                own["CUDA_VISIBLE_DEVICES"] = ""
            with log.open("wb") as sink:
                process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=own)
            busy[run.name] = process, log
        time.sleep(0.2)
        for name, (process, log) in list(busy.items()):
            if process.poll() is None:
                continue
            del busy[name]
            if process.returncode == 0 and (out / f"{name}.json").is_file():
                done = json.loads((out / f"{name}.json").read_text())
                mean = np.nanmean([s["dice"] for s in done["scores"].values()])
                say(f"{name}: Dice {mean:.3f}, {done['steps']:.0f} steps")
            else:
                last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
                failed.append(f"{name}: {last}")
                say(f"{name} failed: {last}")
    return failed


def run(context: Context) -> CaseResult:
    """The case ``learn`` of the suite."""
    seconds, cases, seeds = (10.0, (5,), (0,)) if context.quick else (80.0, (5, 20), (0, 1, 2))
    out = Path(__file__).parent / "runs" / ("learning-quick" if context.quick else "learning")
    runs = plan(list(VARIANTS), cases, seeds, seconds, 0, "cpu")
    parallel = max(1, (context.threads or os.cpu_count() or 1))
    failed = perform_all(runs, context.data, out, parallel, 1, None, context.say)
    return report(load_all(out), failed)


def plan(
    variants: list[str],
    cases: tuple[int, ...],
    seeds: tuple[int, ...],
    seconds: float,
    steps: int,
    accelerator: str,
) -> list[Run]:
    """Return the runs, those of the first seed first."""
    return [
        Run(variant, count, seed, 0.0 if steps else seconds, steps, accelerator)
        for seed in seeds
        for count in cases
        for variant in variants
    ]


def load_all(out: Path) -> list[dict[str, Any]]:
    """Return what all runs of a folder measured."""
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(out.glob("*.json"))]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "runs" / "learning")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--cases", nargs="+", type=int, default=[5, 20])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=80.0)
    parser.add_argument("--steps", type=int, default=0, help="instead of the seconds")
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--deadline", type=float, help="seconds for everything")
    parser.add_argument("--accelerator", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    data = find_data(options.data)
    if options.one:
        perform(Run(**json.loads(options.one)), data, options.out)
        return
    runs = plan(
        options.variants, tuple(options.cases), tuple(options.seeds), options.seconds,
        options.steps, options.accelerator,
    )  # fmt: skip
    if options.folds:
        runs = [Run(**{**asdict(one), "folds": options.folds}) for one in runs]
    failed = perform_all(
        runs, data, options.out, options.parallel, options.threads, options.deadline,
        lambda text: print(text, flush=True),
    )  # fmt: skip
    result = report(load_all(options.out), failed)
    from suite.markdown import table_lines

    for table in result.tables:
        print("\n".join(table_lines(table)))
    print("\n\n".join(result.notes))
    if options.json:
        options.json.write_text(json.dumps(result.to_dict(), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
