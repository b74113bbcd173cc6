"""The case "tissues": classes of intensity by mixtures, and by networks trained without labels."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import napari_medgs as mg
from napari_medgs.data.volume import Volume
from suite.registry import Context
from suite.results import CaseResult, Ratio, Table

SAMPLE = 100_000  # voxels that the baselines are fitted to
ANTS = "MEDGS_ANTS_PYTHON"  # the Python of an environment with antspyx, which needs older packages
CLASSES = {
    1: (4, 5, 14, 15, 24, 43, 44, 72),
    2: (3, 42, 8, 47, 10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58),
    3: (2, 41, 7, 46, 77, 85, 251, 252, 253, 254, 255),
}
"""FreeSurfer's numbers of ventricles, gray and white matter; cortical parcels are gray."""
ATROPOS = """
import sys, ants
image, mask, out = ants.image_read(sys.argv[1]), ants.image_read(sys.argv[2]), sys.argv[3]
found = ants.atropos(a=image, x=mask, i="kmeans[3]", m="[0.2,1x1x1]", c="[5,0]")
ants.image_write(found["segmentation"], out)
"""

Method = Callable[[], NDArray[Any]]


def truth_of(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the three tissues of a FreeSurfer parcellation; 0 where it has none."""
    truth = np.zeros(labels.shape, np.uint8)
    for value, numbers in CLASSES.items():
        truth[np.isin(labels, numbers)] = value
    truth[labels >= 1000] = 2
    return truth


def smooth_field(shape: tuple[int, ...], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return a factor from 0.75 to 1.25 that varies smoothly, with mean 1 over the inside."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    field = 0.6 * z + 0.5 * y * x - 0.5 * x**2 + 0.4 * y
    field -= field[inside].mean()
    return np.asarray(1 + 0.25 * field / np.abs(field[inside]).max())


def scores(labels: NDArray[Any], truth: NDArray[np.uint8]) -> tuple[float, list[float], float]:
    """Return mean Dice and Dice by class after the best matching, and the adjusted Rand index.

    On the voxels that have a truth.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score

    found, right = labels[truth > 0].astype(int), truth[truth > 0].astype(int)
    count = np.zeros((found.max() + 1, 4))
    np.add.at(count, (found, right), 1)
    dice = 2 * count / np.maximum(count.sum(axis=1, keepdims=True) + count.sum(axis=0), 1)
    rows, columns = linear_sum_assignment(-dice[:, 1:])
    each = [0.0, 0.0, 0.0]
    for row, column in zip(rows, columns, strict=True):
        each[column] = float(dice[row, 1 + column])
    return float(np.mean(each)), each, float(adjusted_rand_score(right, found))


def _on_voxels(volume: Volume, fit: Callable[[Any], Any]) -> NDArray[Any]:
    values = volume.data[0].astype(np.float64)
    inside = values > 0
    chosen = values[inside][:: max(1, int(inside.sum()) // SAMPLE), None]
    model = fit(chosen)
    labels = np.zeros(values.shape, np.int32)
    labels[inside] = model.predict(values[inside][:, None]) + 1
    return labels


def baselines(volume: Volume, seed: int) -> dict[str, Method]:
    """Return the methods that know no Gaussians."""
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    def mixture(kind: str) -> Method:
        model = GaussianMixture(3, covariance_type=kind, random_state=seed)
        return lambda: _on_voxels(volume, model.fit)

    found = {
        "k-means, voxels": lambda: _on_voxels(volume, KMeans(3, n_init=3, random_state=seed).fit),
        "EM, voxels, own variances": mixture("full"),
        "EM, voxels, one variance": mixture("tied"),
    }
    python = os.environ.get(ANTS)
    if python:
        found["ANTs Atropos, smoothness 0.2"] = lambda: _atropos(volume, python)
    return found


def _atropos(volume: Volume, python: str) -> NDArray[Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, mask, out = (folder / f"{n}.nii.gz" for n in ("image", "mask", "out"))
        mg.write_image(image, volume.data[0].astype(np.float32), volume.grid)
        mg.write_image(mask, (volume.data[0] > 0).astype(np.float32), volume.grid)
        subprocess.run([python, "-c", ATROPOS, *map(str, (image, mask, out))], check=True,
                       capture_output=True)  # fmt: skip
        return np.round(mg.read_volume(out).data[0]).astype(np.int32)


def ours(
    volume: Volume, field: Any, networks: dict[str, Any], threads: int | None
) -> dict[str, Method]:
    """Return our methods; the field is there already."""

    def mixture(**settings: Any) -> Method:
        params = mg.TissueParams(threads=threads, classes=3, **settings)
        return lambda: mg.tissues(volume, field=field, params=params).labels

    def network(model: Any, **settings: Any) -> Method:
        params = mg.TissueParams(threads=threads, **settings)
        known = field if model.card.architecture == "graph" else None
        return lambda: mg.tissues(volume, field=known, model=model, params=params).labels

    found = {
        "Gaussians": mixture(rounds=0),
        "Gaussians, 3 rounds at voxels": mixture(rounds=3),
        "Gaussians, bias": mixture(rounds=0, bias=True),
        "Gaussians, bias, 3 rounds at voxels": mixture(rounds=3, bias=True),
    }
    for name, model in networks.items():
        found[name] = network(model, rounds=0)
        if model.card.architecture == "graph":
            found[f"{name}, bias, 3 rounds"] = network(model, rounds=3, bias=True)
    return found


def train_network(name: str, volume: Volume, field: Any, context: Context) -> tuple[Any, float]:
    """Train one network on one image; return it and its CPU seconds."""
    from napari_medgs.tissue import TissueTrainParams, train_tissues

    unet = name.startswith("U-Net")
    params = TissueTrainParams(
        architecture="unet" if unet else "graph",
        loss="global" if "global" in name else "spatial",
        seed=context.seed,
        threads=context.threads,
        steps=10 if context.quick else 60 if unet else 200,
        width=8 if unet else 16,
    )
    before = time.process_time()
    network = train_tissues([volume], params, fields=[None if unet else field])
    seconds = time.process_time() - before
    context.say(f"  {name}: {seconds:.0f} s")
    return network, seconds


def train(
    volume: Volume, field: Any, context: Context, what: str
) -> tuple[dict[str, Any], dict[str, float]]:
    """Train both networks by both losses on one image; return them and their CPU seconds."""
    found = {}
    for architecture in ("graph network", "U-Net"):
        for loss in ("spatial", "global"):
            name = f"{architecture}, {loss} loss, {what}"
            found[name] = train_network(name, volume, field, context)
    return {k: v[0] for k, v in found.items()}, {k: v[1] for k, v in found.items()}


def measure_method(
    name: str, method: Method, truth: NDArray[np.uint8], context: Context
) -> dict[str, Any]:
    """Return the scores of a method, and its CPU seconds with those of its own processes."""
    before = time.process_time(), os.times().children_user
    labels = method()
    spent = time.process_time() - before[0] + os.times().children_user - before[1]
    mean, each, rand = scores(labels, truth)
    context.say(f"  {name} {mean:.3f} {spent:.1f} s")
    return {"dice": mean, "by class": each, "ari": rand, "cpu seconds": spent}


def run(context: Context) -> CaseResult:
    """Run the case; some minutes, most of them for the networks."""
    from napari_medgs._util.threads import limit_threads
    from napari_medgs.segmentation.api import FIT_PARAMS, fit_for_segmentation

    folder = "mr_brain_freesurfer/"
    plain = mg.read_volume(context.file(folder + "norm.nii.gz"))
    labels, _ = mg.read_labels(context.file(folder + "aparc_aseg.nii.gz"), like=plain.grid)
    truth = truth_of(labels)
    factor = smooth_field(plain.shape, plain.data[0] > 0)
    biased = Volume((plain.data * factor).astype(np.float32), plain.grid)
    rows: list[tuple[Any, ...]] = []
    numbers: dict[str, Any] = {}
    with limit_threads(context.threads):
        networks: dict[str, Any] = {}
        training: dict[str, float] = {}
        field = fit_for_segmentation(plain, FIT_PARAMS)
        if not context.quick:
            other = mg.read_volume(context.file("mr_ms_lesions_patient07/T1.nii.gz"))
            other_field = fit_for_segmentation(other, FIT_PARAMS)
            networks, training = train(other, other_field, context, "another patient")
        own, seconds = train(plain, field, context, "this image")
        images = {"original": (plain, field, {**networks, **own})}
        if not context.quick:
            images["+-25 %"] = (biased, fit_for_segmentation(biased, FIT_PARAMS), networks)
        for image, (volume, known, models) in images.items():
            methods = {
                **baselines(volume, context.seed), **ours(volume, known, models, context.threads)
            }  # fmt: skip
            for name, method in methods.items():
                found = measure_method(f"{image}: {name}", method, truth, context)
                numbers[f"{image}: {name}"] = found
                trained = {**training, **seconds}.get(name.split(", bias")[0])
                rows.append(
                    (
                        image,
                        name,
                        f"{found['dice']:.3f}",
                        " ".join(f"{d:.2f}" for d in found["by class"]),
                        f"{found['ari']:.3f}",
                        f"{found['cpu seconds']:.1f}",
                        "-" if trained is None else f"{trained:.0f}",
                    )
                )
    best = numbers["original: Gaussians, bias, 3 rounds at voxels"]["dice"]
    compared = [f"original: {name}" for name in baselines(plain, context.seed)]
    return CaseResult(
        "tissues",
        "tissue classes without training",
        ratios=[
            Ratio("mean Dice of three tissues, T1 brain", name.partition(": ")[2], best,
                  numbers[name]["dice"], better="higher")
            for name in compared
        ],
        tables=[
            Table(
                "T1 brain in three classes",
                ("image", "method", "mean Dice", "ventricles, gray, white", "ARI", "CPU s",
                 "training, CPU s"),
                tuple(rows),
            )
        ],
        notes=[
            "Truth is FreeSurfer's output: agreement, not accuracy. It has no sulci, so that only "
            "labeled voxels count. Classes are matched by Dice.",
            "Seconds of our methods are without the fit of the field. Networks saw no labels; "
            "those of another patient were trained on a T1 of another scanner.",
            "+-25 % is the original times a smooth field of polynomials of degree 2.",
        ],
        numbers=numbers,
    )  # fmt: skip
