"""Learned codecs of small images beside PCA, an autoencoder on pixels and the usual codec.

    python benchmarks/compression_learned.py FILE.npz [--quick] [--steps 800] [--json FILE]
    python benchmarks/compression_learned.py FOLDER [--quick] [--steps 200] [--json FILE]

The file is one of MedMNIST with gray 2D images, the folder has volumes of one organ, of any
size; of these every fifth tests. Networks learn from its training images, all
numbers are of its test images. Bytes are those of an image without grid and scale; PSNR is that of
the mean squared error of all images, values from 0 to 1. CPU seconds are those of training.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import napari_medgs as mg
from napari_medgs.compression.learned import (
    Codec,
    CodecParams,
    fit_alike,
    mean_field,
    train_codec,
)
from napari_medgs.compression.learned.entropy import LOWEST, bits_of, frequencies_of
from napari_medgs.data.field import GaussianField
from napari_medgs.io.medmnist.reader import MedMNISTSet, load_set
from napari_medgs.rendering.parameters import to_parameters

GAUSSIANS, ITERATIONS, NEIGHBORS = 32, 60, 5
Images = NDArray[np.float32]


def psnr(shown: Images, truth: Images) -> float:
    """Return the PSNR of the mean squared error of all images."""
    return -10 * float(np.log10(np.mean((np.clip(shown, 0, 1) - truth) ** 2)))


def pictures(fields: Sequence[GaussianField]) -> Images:
    """Return what fields render, from 0 to 1 (N, Y, X)."""
    return np.stack([mg.render(f)[0, 0] for f in fields]).astype(np.float32) / 255


def whole_numbers(values: NDArray[Any], step: float) -> NDArray[np.int64]:
    """Return rounded values, within what tables hold."""
    return np.clip(np.rint(values / step), LOWEST, -LOWEST - 1).astype(np.int64)


def principal_components(train: Images, test: Images) -> tuple[list[dict[str, Any]], Any]:
    """Return rows of PCA on pixels at several rates, and 32 coefficients of both sets."""
    flat, other = train.reshape(len(train), -1), test.reshape(len(test), -1)
    mean = flat.mean(axis=0)
    axes = np.linalg.svd(flat - mean, full_matrices=False)[2][:96]
    ours, theirs = (flat - mean) @ axes.T, (other - mean) @ axes.T
    rows = []
    for step in (3.0, 2.0, 1.4, 1.0, 0.7, 0.5):
        tables = frequencies_of(whole_numbers(ours, step))
        coded = whole_numbers(theirs, step)
        shown = (coded * step) @ axes + mean
        size = float(bits_of(coded, tables).mean()) / 8
        quality = psnr(shown.reshape(test.shape), test)
        rows.append({"method": f"PCA on pixels, step {step:g}", "bytes": size, "psnr": quality})
    return rows, (ours[:, :32], theirs[:, :32])


class PixelAutoencoder(nn.Module):
    """Three strided convolutions, 32 latents, and back."""

    def __init__(self, latents: int = 32) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(1, 16, 4, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.SiLU(),
            nn.Flatten(), nn.LazyLinear(latents),
        )  # fmt: skip
        self.decode = nn.Sequential(
            nn.Linear(latents, 32 * 49), nn.SiLU(), nn.Unflatten(1, (32, 7, 7)),
            nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1),
        )  # fmt: skip
        self.middle = nn.Parameter(torch.zeros(latents))
        self.spread = nn.Parameter(torch.zeros(latents))

    def bits(self, latents: torch.Tensor) -> torch.Tensor:
        """Return bits of latents under logistic distributions."""
        scale = self.spread.exp()
        upper = torch.sigmoid((latents + 0.5 - self.middle) / scale)
        lower = torch.sigmoid((latents - 0.5 - self.middle) / scale)
        return -torch.log2((upper - lower).clamp_min(1e-6))


def pixel_autoencoder(train: Images, test: Images, rate: float, steps: int) -> dict[str, Any]:
    """Return the row of an autoencoder on pixels with the same rate term as the codecs."""
    torch.manual_seed(0)
    started = time.process_time()
    data, variance = torch.from_numpy(train)[:, None], float(train.var())
    network = PixelAutoencoder()
    network.encode(data[:2])
    adam = torch.optim.Adam(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        batch = data[torch.randint(len(data), (64,))]
        latents = network.encode(batch)
        bits = network.bits(latents + torch.rand_like(latents) - 0.5)
        rounded = latents + (latents.round() - latents).detach()
        error = ((network.decode(rounded) - batch) ** 2).mean() / variance
        adam.zero_grad()
        (error + rate * bits.mean()).backward()
        adam.step()
        schedule.step()
    with torch.inference_mode():
        ours = whole_numbers(network.encode(data).numpy(), 1)
        theirs = whole_numbers(network.encode(torch.from_numpy(test)[:, None]).numpy(), 1)
        shown = network.decode(torch.from_numpy(theirs.astype(np.float32)))[:, 0].numpy()
    size = float(bits_of(theirs, frequencies_of(ours)).mean()) / 8
    return {
        "method": f"autoencoder on pixels, rate {rate:g}",
        "bytes": size,
        "psnr": psnr(shown, test),
        "seconds": time.process_time() - started,
    }


def usual_codec(
    fields: Sequence[GaussianField], volumes: Sequence[mg.Volume], truth: Images, step: float
) -> dict[str, Any]:
    """Return the row of the usual codec, its header left out."""
    sizes, restored = [], []
    for field, volume in zip(fields, volumes, strict=True):
        result = mg.compress(field, mg.CompressParams(step=step, threads=1), volume)
        parts = result.metrics["bytes_of"]
        sizes.append(sum(v for k, v in parts.items() if k != "header"))
        restored.append(result.field)
    return {
        "method": f"usual codec, step {step:g}",
        "bytes": float(np.mean(sizes)),
        "psnr": psnr(pictures(restored), truth),
    }


def as_features(
    name: str,
    ours: NDArray[Any],
    theirs: NDArray[Any],
    labels: tuple[NDArray[Any], NDArray[Any]],
    strange: dict[str, NDArray[Any]],
) -> dict[str, Any]:
    """Return how well features classify, retrieve, and find what does not belong."""
    scaler = StandardScaler().fit(ours)
    ours, theirs = scaler.transform(ours), scaler.transform(theirs)
    model = make_pipeline(LogisticRegression(C=0.1, max_iter=2000)).fit(ours, labels[0])
    auc = roc_auc_score(labels[1], model.predict_proba(theirs)[:, 1])
    near = NearestNeighbors(n_neighbors=NEIGHBORS).fit(ours)
    away, found = near.kneighbors(theirs)
    same = (labels[0][found] == labels[1][:, None]).mean(axis=1)
    balanced = float(np.mean([same[labels[1] == k].mean() for k in np.unique(labels[1])]))
    row: dict[str, Any] = {"features": name, "auc": float(auc), "retrieval": balanced}
    for kind, others in strange.items():
        far = near.kneighbors(scaler.transform(others))[0].mean(axis=1)
        truth = np.r_[np.zeros(len(theirs)), np.ones(len(far))]
        row[kind] = float(roc_auc_score(truth, np.r_[away.mean(axis=1), far]))
    return row


def volumes_of(images: NDArray[np.uint8]) -> list[mg.Volume]:
    """Return gray images as volumes."""
    return [mg.Volume.from_array(np.ascontiguousarray(i)[None, None]) for i in images]


def table(fields: Sequence[GaussianField]) -> NDArray[Any]:
    """Return the parameters that vary, one row a field."""
    rows = np.stack([to_parameters(f).ravel() for f in fields])
    return rows[:, rows.std(axis=0) > 1e-6]


def codecs(steps: int, quick: bool) -> list[tuple[str, bool, CodecParams]]:
    """Return name, whether in a fixed order, and settings of all codecs."""
    common: dict[str, Any] = {"threads": 1}
    published = {**common, "published": True, "latents": 28, "steps": steps}
    shown = {**common, "steps": steps}
    found = [
        ("published Conv1D VAE, Morton", False, CodecParams("conv1d", **published)),
        ("published Conv1D VAE, fixed order", True, CodecParams("conv1d", **published)),
        ("tokens, parameters, Morton", False, CodecParams(loss="parameters", **shown)),
        ("tokens, rendering, Morton", False, CodecParams(**shown)),
        ("tokens, parameters, fixed order", True, CodecParams(loss="parameters", **shown)),
        ("tokens, rendering, fixed order", True, CodecParams(rate=0.03, **shown)),
        ("tokens, rendering, fixed order, finer", True, CodecParams(rate=0.003, **shown)),
        ("conv1d, rendering, fixed order", True, CodecParams("conv1d", **shown)),
        # A step takes 11 times as long as one of conv1d: a fifth of them.
        ("published ResNet VAE, Morton", False,
         CodecParams("resnet", **{**published, "steps": max(1, steps // 5)})),
    ]  # fmt: skip
    return [found[k] for k in (0, 5)] if quick else found


def measure(known: MedMNISTSet, steps: int, quick: bool) -> dict[str, Any]:
    """Return all rows."""
    most = 60 if quick else None
    images = {s: known.images[s][:most] for s in ("train", "test")}
    labels = tuple(known.labels[s][:most, 0] for s in ("train", "test"))
    train, test = (images[s].astype(np.float32) / 255 for s in ("train", "test"))
    volumes = {s: volumes_of(images[s]) for s in images}
    start = mean_field(volumes["train"], GAUSSIANS, ITERATIONS, threads=1)
    settings = mg.FitParams(
        gaussians=GAUSSIANS, iterations=ITERATIONS, percentiles=(0, 100), threads=1
    )
    fixed = {s: fit_alike(v, start, ITERATIONS, threads=1) for s, v in volumes.items()}
    free = {s: [mg.fit(v, settings).field for v in vs] for s, vs in volumes.items()}
    rows: list[dict[str, Any]] = [
        {"method": "mean image", "bytes": 0.0,
         "psnr": psnr(np.broadcast_to(train.mean(axis=0), test.shape), test)},
        {"method": "fits as usual", "psnr": psnr(pictures(free["test"]), test)},
        {"method": "fits from one start", "psnr": psnr(pictures(fixed["test"]), test)},
    ]  # fmt: skip
    others = {
        "upside down": np.ascontiguousarray(images["test"][:, ::-1]),
        "negative": 255 - images["test"],
    }
    strange = {k: fit_alike(volumes_of(v), start, ITERATIONS, threads=1)
               for k, v in others.items()}  # fmt: skip
    features: list[dict[str, Any]] = []
    for name, order, params in codecs(steps, quick):
        fields = fixed if order else free
        started = time.process_time()
        codec: Codec = train_codec(fields["train"], params, start=start if order else None)
        spent = time.process_time() - started
        restored = [codec.restored(f) for f in fields["test"]]
        sizes = [len(codec.compress(f)) for f in fields["test"]]
        seen = [codec.restored(f) for f in fields["train"][:200]]
        rows.append({
            "method": name, "bytes": float(np.mean(sizes)),
            "psnr": psnr(pictures(restored), test),
            "psnr_train": psnr(pictures(seen), train[:200]),
            "seconds": spent, "weights": codec.card.weights,
            "explained": codec.explained(fields["test"]),
        })  # fmt: skip
        print(rows[-1], flush=True)
        if order:
            away = {k: codec.features(v) for k, v in strange.items()}
            ours, theirs = codec.features(fields["train"]), codec.features(fields["test"])
            features.append(as_features(name, ours, theirs, labels, away))
    pca, (ours, theirs) = principal_components(train, test)
    rows += pca
    rows += [pixel_autoencoder(train, test, rate, 2 * steps) for rate in (0.03, 0.003)]
    count = 12 if quick else 40
    rows += [
        usual_codec(fixed["test"][:count], volumes["test"][:count], test[:count], step)
        for step in (2.8, 6.0, 12.0)
    ]
    rows.append({"method": "fits from one start, the same images",
                 "psnr": psnr(pictures(fixed["test"][:count]), test[:count])})  # fmt: skip
    parameters = table([*fixed["train"], *fixed["test"], *chain(*strange.values())])
    edges = np.cumsum([len(fixed["train"]), len(fixed["test"]), *map(len, strange.values())])
    first, second, *rest = np.split(parameters, edges[:-1])
    features.append(as_features("parameters of fits from one start", first, second, labels,
                                dict(zip(strange, rest, strict=True))))  # fmt: skip
    flat = train.reshape(len(train), -1)
    axes = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)[2][:32]
    away = {k: (v.reshape(len(v), -1) / 255 - flat.mean(axis=0)) @ axes.T
            for k, v in others.items()}  # fmt: skip
    features.append(as_features("32 coefficients of PCA", ours, theirs, labels, away))
    return {"rows": rows, "features": features, "steps": steps, "images": len(train)}


Pairs = Sequence[tuple[GaussianField, mg.Volume]]


def quality(fields: Sequence[GaussianField], tests: Pairs) -> dict[str, float]:
    """Return the mean PSNR of fields to the images of the tests, by each one's own scale."""
    found = []
    for field, (_, volume) in zip(fields, tests, strict=True):
        low, span = field.info.intensity_offset[0], field.info.intensity_scale[0]
        truth = np.clip((volume.data[0].astype(np.float64) - low) / span, 0, 1)
        shown = np.clip((mg.render(field)[0].astype(np.float64) - low) / span, 0, 1)
        found.append(-10 * np.log10(np.mean((shown - truth) ** 2)))
    return {"psnr": float(np.mean(found))}


def measure_volumes(folder: Path, steps: int, quick: bool) -> dict[str, Any]:
    """Return rows of volumes: fields of different numbers of Gaussians, in local blocks."""
    paths = sorted(folder.glob("*.nii*"))[: 10 if quick else 40]
    volumes = [mg.read_volume(p) for p in paths]
    settings = mg.FitParams(gaussians=300, iterations=40, threads=1)
    fields = [mg.fit(v, settings).field for v in volumes]
    tests = list(zip(fields, volumes, strict=True))[4::5]
    rows: list[dict[str, Any]] = [{"method": "fits", **quality([f for f, _ in tests], tests)}]
    common: dict[str, Any] = {"threads": 1, "steps": steps, "batch": 4}
    plans = [
        ("published Conv1D VAE", {"network": "conv1d", "published": True, "latents": 28}),
        ("tokens, parameters", {"loss": "parameters"}),
        ("tokens, rendering", {}),
        ("tokens, rendering, 64 latents, finer", {"latents": 64, "rate": 0.001}),
    ]
    for name, chosen in plans[:: 2 if quick else 1]:
        started = time.process_time()
        codec = train_codec(fields, CodecParams(**{**common, **chosen}))
        spent = time.process_time() - started
        restored = [codec.restored(f) for f, _ in tests]
        sizes = [len(codec.compress(f)) for f, _ in tests]
        explained = codec.explained([f for f, _ in tests])
        rows.append({"method": name, "bytes": float(np.mean(sizes)), "seconds": spent,
                     **quality(restored, tests), "explained": explained})  # fmt: skip
        print(rows[-1], flush=True)
    for step in (2.8, 6.0, 12.0):
        found = [mg.compress(f, mg.CompressParams(step=step, threads=1), v) for f, v in tests]
        sizes = [sum(n for k, n in r.metrics["bytes_of"].items() if k != "header") for r in found]
        rows.append({"method": f"usual codec, step {step:g}", "bytes": float(np.mean(sizes)),
                     **quality([r.field for r in found], tests)})  # fmt: skip
    return {"rows": rows, "features": [], "steps": steps, "images": len(fields)}


def classifier_auc(path: Path, name: str) -> float | None:
    """Return the AUC of the classifier that comes with the package, where there is one."""
    from napari_medgs.classification import bundled_models, load_classifier, load_dataset
    from napari_medgs.classification.training.evaluate import evaluate_classifier

    if name not in bundled_models():
        return None
    classifier = load_classifier(bundled_models()[name])
    return float(evaluate_classifier(classifier, load_dataset(path)).metrics["auc"])


def main() -> None:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--quick", action="store_true", help="60 images, two codecs")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = 30 if options.quick else options.steps
    if options.file.is_dir():
        found = measure_volumes(options.file, steps, options.quick)
    else:
        known = load_set(options.file)
        found = measure(known, steps, options.quick)
        found["classifier_auc"] = classifier_auc(options.file, known.name)
    for row in found["rows"]:
        numbers = [row.get(k) for k in ("bytes", "psnr", "psnr_train", "seconds")]
        texts = ["" if n is None else f"{n:.1f}" for n in numbers]
        kept = ", ".join(f"{k} {v:.2f}" for k, v in row.get("explained", {}).items())
        print("|", " | ".join([row["method"], *texts, kept]), "|")
    for row in found["features"]:
        print("|", " | ".join(v if isinstance(v, str) else f"{v:.3f}" for v in row.values()), "|")
    print("classifier:", found.get("classifier_auc"))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
