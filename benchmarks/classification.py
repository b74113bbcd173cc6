"""Case ``classification``: all networks on the same sets, splits and machine."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classification_pretrain import LABEL as PRETRAINED
from classification_runs import FEATURES, MODELS, SETS, run
from classification_speed import measure
from classification_task import load_task
from napari_medgs.classification import load_classifier
from napari_medgs.classification.inference import probabilities_of
from napari_medgs.classification.inputs import network_inputs
from napari_medgs.classification.training.scores import paired_difference
from suite.registry import Context
from suite.results import CaseResult, Ratio, Table

SEEDS = (0, 1, 2, 3, 4)
PIXELS = "resnet8"


def run_folder() -> Path:
    """Return where runs are kept: MEDGS_CLASSIFY_RUNS, or the user's cache folder."""
    import pooch

    named = os.environ.get("MEDGS_CLASSIFY_RUNS")
    return Path(named) if named else Path(pooch.os_cache("napari-medgs")) / "classification-runs"


def classification(context: Context) -> CaseResult:
    """Train what is missing (MEDGS_CLASSIFY_KEEP=1: nothing), then compare all runs."""
    torch.set_num_threads(context.threads or 1)  # as the runs were trained
    folder = run_folder()
    keep = os.environ.get("MEDGS_CLASSIFY_KEEP") == "1"
    if context.quick:
        folder = folder / "quick"
    sets = SETS[:1] if context.quick else SETS
    seeds = SEEDS[:1] if context.quick else SEEDS
    if not keep:
        for seed in seeds:
            for name in sets:
                for model in MODELS:
                    context.say(f"{name} {model} seed {seed}")
                    run(context.data, folder, name, model, [seed], 1 if context.quick else None,
                        str(folder / "fits"))  # fmt: skip
        if not context.quick:
            context.say("seconds of epochs and fits")
            measure(context.data, folder)
    speed = _speed(folder)
    result = CaseResult("classification", "Networks on Gaussians and on pixels")
    for name in sets:
        runs = {model: _runs(folder, name, model) for model in (*MODELS, FEATURES, PRETRAINED)}
        runs = {model: found for model, found in runs.items() if found}
        if runs:
            context.say(f"comparing on {name}")
            _compare(result, context, folder, name, runs, speed.get("epochs", {}).get(name, {}))
    _fits(result, speed)
    result.notes += [
        "Official splits, 28 pixels or voxels; the test split is scored once per run, after "
        "the last epoch, on the moving average of the weights. No run was selected by its "
        "score. AUC "
        "and ACC by MedMNIST's definitions: mean and standard deviation over seeds. The "
        "difference is that of the seeds' averaged probabilities (the seeds that both have), with "
        "a 95 % interval of 1,000 paired resamples of the test images; it covers the sampling "
        "of images, not of seeds.",
        "All networks get the same augmentation in training (exact on Gaussians, "
        "interpolated on pixels), the same optimizer and test-time averages over flips, "
        "except inr2vec, for which augmentation is not defined. The hybrid and ResNet-8 get "
        "the same number of epochs. For edge and gnn half of an image's Gaussians are left "
        "out in every training step, and 5 % of a shape's. The gnn is of the "
        "published kind: raw parameters (means, scales, angle or quaternion, "
        "opacity, color), mean aggregation, vertex, edge and global embeddings; gnn-features "
        "has the same layers on this package's node, edge and global features, with centered "
        "shapes. Only edge also gets the field around each Gaussian. Shapes are centered for "
        "all but gnn.",
        "edge-pretrained: edge, its layers first trained without labels on the training fields of "
        "all four sets (contrastive, exact transforms, a quarter of the Gaussians left out).",
        "Seconds per epoch: one thread, networks in turn, nothing else running (where "
        "marked *, the median of the training runs, on a shared machine). Bytes are those that "
        "the network reads, as float32. Inference: one image at a time with the fit, and the "
        "network alone in batches of 64, with averages over flips.",
        "hippocampus: does a cube of 20 mm show the anterior part, the posterior part, or "
        "neither? Intensities only; three cubes from each of 200 cases (120 for training, 20 "
        "for validation, 60 for test, by number), centers shifted by up to 3 voxels. Both "
        "sides of one person may lie in different splits.",
        "OrganMNIST3D and ChestMNIST were not measured: their files were not available.",
    ]
    return result


def _runs(folder: Path, name: str, model: str) -> dict[int, dict[str, Any]]:
    found = {}
    for path in sorted(folder.glob(f"{name}-{model}-[0-9].json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        found[int(record["seed"])] = record
    return found


def _mean(records: list[dict[str, Any]]) -> np.ndarray:
    return np.mean([r["probabilities"] for r in records], axis=0)


def _compare(
    result: CaseResult,
    context: Context,
    folder: Path,
    name: str,
    runs: dict[str, dict[int, dict[str, Any]]],
    quiet: dict[str, float],
) -> None:
    task = load_task(context.data, name)
    rows, numbers = [], {}
    for model, found in runs.items():
        records = list(found.values())
        areas = np.array([r["test_auc"] for r in records])
        shares = np.array([r["test_acc"] for r in records])
        busy = float(np.median([r["seconds_epoch"] for r in records]))
        epoch = quiet.get(model.partition("-")[0] if model == PRETRAINED else model, busy)
        shown = epoch if epoch != busy else f"{busy:.3g} *"
        single, batch = _inference(folder, name, model, min(found), task)
        difference = "" if model == PIXELS else _difference(runs, model, PIXELS, task)
        rows.append((
            model, len(records), records[0]["epochs"], _spread(areas), _spread(shares),
            difference, records[0]["parameters"], records[0]["bytes_per_input"], shown,
            single, batch,
        ))  # fmt: skip
        numbers[model] = {
            "test_auc": areas, "test_acc": shares, "seconds_epoch": epoch,
            "bytes_per_input": records[0]["bytes_per_input"], "seeds": sorted(found),
        }  # fmt: skip
    columns = ("network", "seeds", "epochs", "test AUC", "test ACC", "AUC less ResNet-8's",
               "parameters", "bytes per input", "s per epoch", "ms per image, fit included",
               "ms per image, network")  # fmt: skip
    result.tables.append(Table(name, columns, tuple(rows)))
    for model, other in (("edge", "gnn"), ("edge", FEATURES), (PRETRAINED, "edge")):
        if model in runs and other in runs:
            text = _difference(runs, model, other, task)
            if text:
                result.notes.append(f"{name}: AUC of {model} less that of {other} {text}.")
                numbers[f"{model}_less_{other}"] = text
    if "hybrid" in runs and PIXELS in runs:
        ours, theirs = numbers["hybrid"], numbers[PIXELS]
        for what, key in (("seconds per epoch", "seconds_epoch"),
                          ("bytes per input", "bytes_per_input")):  # fmt: skip
            result.ratios.append(
                Ratio(f"{name}, hybrid, {what}", "ResNet-8", ours[key], theirs[key])
            )
    result.numbers[name] = numbers


def _speed(folder: Path) -> dict[str, Any]:
    path = folder / "speed.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _fits(result: CaseResult, speed: dict[str, Any]) -> None:
    """Add the table of how long fits and graphs take."""
    rows = [
        (kind, f["images"], f["gaussians"], f["seconds_fit"], f["seconds"], f.get("psnr", ""))
        for kind, f in speed.get("fits", {}).items()
    ]
    if rows:
        columns = ("images", "number", "Gaussians each", "s, fits", "s, fits and graphs",
                   "PSNR [dB], median")  # fmt: skip
        result.tables.append(Table(f"Fits on {speed['cores']} cores", columns, tuple(rows)))
        result.numbers["fits"] = speed["fits"]


def _spread(values: np.ndarray) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def _difference(
    runs: dict[str, dict[int, dict[str, Any]]], model: str, other: str, task: Any
) -> str:
    common = sorted(set(runs[model]) & set(runs.get(other, {})))
    if not common:
        return ""
    ours, theirs = (_mean([runs[m][s] for s in common]) for m in (model, other))
    value, low, high = paired_difference(task.labels["test"], ours, theirs, task.task)
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}] ({len(common)})"


def _inference(folder: Path, name: str, model: str, seed: int, task: Any) -> tuple[float, float]:
    """Return milliseconds an image: alone with its fit, and of the network in batches."""
    classifier = load_classifier(folder / f"{name}-{model}-{seed}.safetensors")
    images = task.scaled_images("test")[:64]
    network_inputs(images[:1], classifier.card)  # compiles what has to be compiled
    spent = []
    for k in range(5):
        started = time.perf_counter()
        inputs = network_inputs(images[k : k + 1], classifier.card)
        probabilities_of(classifier.network, inputs, classifier.card)
        spent.append(time.perf_counter() - started)
    single = float(np.median(spent)) * 1e3
    batch = network_inputs(images, classifier.card)
    started = time.perf_counter()
    probabilities_of(classifier.network, batch, classifier.card)
    return single, (time.perf_counter() - started) / len(images) * 1e3
