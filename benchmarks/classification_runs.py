"""Training runs of the classification benchmark: one JSON file per (set, model, seed).

Restartable: runs whose file exists are skipped.

    python benchmarks/classification_runs.py --data DATA --out OUT --sets breastmnist \
        --models hybrid resnet8 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from classification_task import load_task
from napari_medgs.classification import TrainParams, save_classifier, train
from napari_medgs.classification.inputs import network_inputs
from napari_medgs.classification.training.train import make_card
from napari_medgs.io.json_files import write_json

SETS = ("breastmnist", "retinamnist", "adrenalmnist3d", "hippocampus")
MODELS = ("hybrid", "resnet8", "edge", "gnn", "inr2vec")
FEATURES = "gnn-features"
"""The published kind of layers on this package's features: tells what features alone bring."""
SETTINGS = {FEATURES: ("gnn", {"raw": False, "width": 78})}
EPOCHS = {
    "retinamnist": {"hybrid": 30, "resnet8": 30},
    "adrenalmnist3d": {"hybrid": 20, "resnet8": 20},
    "hippocampus": {"hybrid": 12, "resnet8": 12},
}
"""Other than the defaults: what a CPU can do, the same for both networks with convolutions."""


def run(
    data: Path,
    out: Path,
    name: str,
    model: str,
    seeds: list[int],
    epochs: int | None,
    cache: str,
    *,
    label: str = "",
    initial: dict[str, torch.Tensor] | None = None,
) -> None:
    """Train the runs that are still missing.

    ``initial`` are weights to start from; such runs are kept under another name, ``label``.
    """
    label = label or model
    out.mkdir(parents=True, exist_ok=True)
    missing = [s for s in seeds if not (out / f"{name}-{label}-{s}.json").is_file()]
    if not missing:
        return
    task = load_task(data, name)
    kind, settings = SETTINGS.get(model, (model, {}))
    card = make_card(task, TrainParams(model=kind))
    inputs = {s: network_inputs(task.scaled_images(s), card, cache_dir=cache) for s in task.images}
    for seed in missing:
        chosen = epochs or EPOCHS.get(name, {}).get(kind)
        params = TrainParams(model=kind, seed=seed, epochs=chosen, accelerator="cpu", threads=1)
        result = train(task, params, inputs=inputs, network=settings, initial=initial)
        save_classifier(out / f"{name}-{label}-{seed}.safetensors", result.classifier)
        record = {
            **result.metrics,
            "labels": task.labels["test"],
            "probabilities": result.probabilities["test"],
            "task": task.task,
            "val_course": [epoch["val_auc"] for epoch in result.history],
        }
        record.pop("seconds_fit")  # the fits were shared by all seeds
        write_json(out / f"{name}-{label}-{seed}.json", record)
        shown = {k: round(v, 4) for k, v in result.metrics.items() if isinstance(v, float)}
        print(name, label, seed, shown, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=(*MODELS, *SETTINGS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.sets:
        for model in args.models:
            run(args.data, args.out, name, model, args.seeds, args.epochs, str(args.out / "fits"))
