"""How long training and fits take on a quiet machine: ``speed.json`` in the folder of runs.

    python benchmarks/classification_speed.py --data DATA --out RUNS

Epochs: one thread, the networks in turn, several rounds, the median of all epochs but each
round's first. Fits: 1,000 images with their graphs, on all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classification_runs import MODELS, SETS
from classification_task import EDGE, hippocampus, load_task
from napari_medgs.classification import TrainParams, train
from napari_medgs.classification.gaussians.fit import fit_images, psnr
from napari_medgs.classification.gaussians.settings import FitSettings
from napari_medgs.classification.inputs import network_inputs
from napari_medgs.classification.networks.graph_features import graph_data
from napari_medgs.classification.training.train import make_card
from napari_medgs.io.json_files import write_json

MANY = 1000
LARGE = 28


def epochs(data: Path, cache: str, name: str, rounds: int) -> dict[str, float]:
    """Return the median seconds of one epoch of each network, taken in turn."""
    task = load_task(data, name)
    train_only = {"train": task.images["train"]}
    inputs, found = {}, {model: [] for model in MODELS}
    for _ in range(rounds):
        for model in MODELS:
            params = TrainParams(model=model, epochs=3, accelerator="cpu", threads=1)
            if model not in inputs:
                card = make_card(task, params)
                images = task.scaled_images("train")
                if model == "inr2vec":  # any weights take as long
                    inputs[model] = torch.randn(len(images), 64, 33)
                else:
                    inputs[model] = network_inputs(images, card, cache_dir=cache)
            alone = type(task)(task.name, train_only, {"train": task.labels["train"]}, task.task,
                               task.class_names, task.intensity)  # fmt: skip
            result = train(alone, params, inputs={"train": inputs[model]})
            found[model].append(result.metrics["seconds_epoch"])
    return {model: float(np.median(times)) for model, times in found.items()}


def fits(images: np.ndarray, settings: FitSettings) -> dict[str, float]:
    """Return how long 1,000 images take as Gaussians and as graphs, and the fits' quality."""
    images = images[:MANY]
    fit_images(images[:1], settings)  # compiles what has to be compiled
    started = time.perf_counter()
    found = fit_images(images, settings)
    fitted = time.perf_counter() - started
    for k in range(len(images)):
        graph_data(found, k, neighbors=settings.neighbors)
    spent = time.perf_counter() - started
    scores = {} if settings.shape else {"psnr": float(np.median(psnr(images[:64], found[:64])))}
    return {"images": len(images), "gaussians": settings.gaussians, "seconds_fit": fitted,
            "seconds": spent, **scores}  # fmt: skip


def measure(
    data: Path, out: Path, sets: tuple[str, ...] = SETS, rounds: int = 2
) -> dict[str, Any]:
    """Measure what ``speed.json`` lacks, and return it all."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "speed.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    torch.set_num_threads(1)
    for name in sets:
        if name not in known.setdefault("epochs", {}):
            known["epochs"][name] = epochs(data, str(out / "fits"), name, rounds)
            write_json(path, known)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(cores or 1)
    known["cores"] = cores
    kept = known.setdefault("fits", {})
    if "28 x 28, color" not in kept:
        images = load_task(data, "retinamnist").scaled_images("train")
        kept["28 x 28, color"] = fits(images, FitSettings())
    if "28 x 28 x 28, gray" not in kept:
        rng = np.random.default_rng(0)
        small = hippocampus(data / "hippocampus_msd").scaled_images("train")
        small = small[rng.integers(0, len(small), MANY)]
        pad = LARGE - EDGE
        wide = [(0, 0), (0, 0), *[(pad // 2, pad - pad // 2)] * 3]
        kept["28 x 28 x 28, gray"] = fits(np.pad(small, wide, mode="reflect"),
                                          FitSettings(gaussians=128))  # fmt: skip
    if "28 x 28 x 28, shapes" not in kept:
        images = load_task(data, "adrenalmnist3d").scaled_images("train")
        kept["28 x 28 x 28, shapes"] = fits(images, FitSettings(shape=True))
    write_json(path, known)
    return known


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    args = parser.parse_args()
    print(json.dumps(measure(args.data, args.out, tuple(args.sets)), indent=1))
