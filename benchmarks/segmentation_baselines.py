"""What the segmentation is compared with, each with sensible settings of its own.

Every method takes scaled contrasts (C, Z, Y, X), marks (0 unlabeled, k + 1 for class k, class 0
is background) and the spacing, and returns class indices.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fast_grow_cut import fast_grow_cut
from napari_medgs._util.threads import default_threads
from precomputed_random_walker import precomputed_random_walker

OURS = "ours"
Images = NDArray[np.float32]
Marks = NDArray[np.uint8]
Spacing = tuple[float, float, float]


def scaled(data: NDArray[Any]) -> Images:
    """Return contrasts with their 0.5 to 99.5 percentiles at 0 and 1, clipped."""
    out = np.empty(data.shape, np.float32)
    for c, channel in enumerate(data):
        low, high = np.percentile(channel, (0.5, 99.5))
        out[c] = np.clip((channel.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)
    return out


def gradient(images: Images, spacing: Spacing) -> NDArray[np.float32]:
    """Return the gradient magnitude per mm after smoothing by one finest voxel, summed."""
    from scipy.ndimage import gaussian_filter

    sigma = min(spacing) / np.asarray(spacing)
    total = np.zeros(images.shape[1:], np.float32)
    axes = [a for a in range(3) if images.shape[a + 1] > 1]
    for channel in images:
        smooth = gaussian_filter(channel, sigma)
        slopes = np.gradient(smooth, *[spacing[a] for a in axes], axis=tuple(axes))
        total += np.sqrt(sum(s**2 for s in slopes))
    return total


def random_walker(images: Images, marks: Marks, spacing: Spacing) -> NDArray[Any]:
    """scikit-image, beta 130 (its default), conjugate gradients with a Jacobi preconditioner."""
    from skimage.segmentation import random_walker as walk

    labels = walk(
        np.moveaxis(images, 0, -1), marks, beta=130, mode="cg_j", tol=1e-3,
        spacing=np.asarray(spacing) / min(spacing), channel_axis=-1,
    )  # fmt: skip
    return np.maximum(labels, 1) - 1


def random_forest(images: Images, marks: Marks, spacing: Spacing) -> NDArray[Any]:
    """scikit-learn forest, 100 trees, on scikit-image's multiscale features (1 to 8 voxels)."""
    from skimage.feature import multiscale_basic_features
    from sklearn.ensemble import RandomForestClassifier

    del spacing
    features = np.concatenate(
        [multiscale_basic_features(channel, sigma_min=1, sigma_max=8) for channel in images],
        axis=-1,
    )
    seen = marks > 0
    forest = RandomForestClassifier(
        100, min_samples_leaf=2, class_weight="balanced", n_jobs=default_threads(), random_state=0
    )
    forest.fit(features[seen], marks[seen])
    out = np.empty(marks.shape, np.int64)
    for z in range(len(marks)):
        flat = features[z].reshape(-1, features.shape[-1])
        out[z] = forest.predict(flat).reshape(marks.shape[1:])
    return out - 1


def voxel_geodesic(images: Images, marks: Marks, spacing: Spacing) -> NDArray[Any]:
    """scikit-image's minimum-cost paths (26 neighbors), one map a class."""
    from skimage.graph import MCP_Geometric

    edges = gradient(images, spacing)
    cost = edges / edges.mean() + 0.05
    best = np.full(marks.shape, np.inf)
    out = np.zeros(marks.shape, np.int64)
    for k in range(int(marks.max())):
        starts = np.argwhere(marks == k + 1)
        if not len(starts):
            continue
        costs, _ = MCP_Geometric(cost, sampling=spacing).find_costs(starts)
        nearer = costs < best
        best[nearer], out[nearer] = costs[nearer], k
    return out


def watershed(images: Images, marks: Marks, spacing: Spacing) -> NDArray[Any]:
    """scikit-image's seeded watershed on the gradient: region growing."""
    from skimage.segmentation import watershed as grow

    return grow(gradient(images, spacing), marks.astype(np.int32)) - 1


def mixture_geodesic(images: Images, marks: Marks, spacing: Spacing) -> NDArray[Any]:
    """Geodesic distances over the gradient of posteriors of Gaussian mixtures, one map a class.

    Five components a class, as in GrabCut; the distance is that of Bai and Sapiro 2009,
    *Geodesic matting*, International Journal of Computer Vision 82.
    """
    from scipy.special import softmax
    from skimage.graph import MCP_Geometric
    from sklearn.mixture import GaussianMixture

    flat = images.reshape(len(images), -1).T
    present = [k for k in range(int(marks.max())) if (marks == k + 1).any()]
    scores = []
    for k in present:
        seen = flat[marks.reshape(-1) == k + 1]
        mixture = GaussianMixture(min(5, len(seen)), reg_covar=1e-4, random_state=0).fit(seen)
        parts = [mixture.score_samples(part) for part in np.array_split(flat, 64)]
        scores.append(np.concatenate(parts).astype(np.float32))
    posterior = softmax(np.stack(scores), axis=0).reshape(len(present), *marks.shape)
    best = np.full(marks.shape, np.inf)
    out = np.zeros(marks.shape, np.int64)
    for k, probability in zip(present, posterior, strict=True):
        cost = gradient(probability[None], spacing) + 1e-3
        starts = np.argwhere(marks == k + 1)
        costs, _ = MCP_Geometric(cost, sampling=spacing).find_costs(starts)
        nearer = costs < best
        best[nearer], out[nearer] = costs[nearer], k
    return out


def nearest_stroke(images: Images, marks: Marks, spacing: Spacing) -> NDArray[Any]:
    """The class of the nearest mark in mm: what the strokes alone say."""
    from scipy.ndimage import distance_transform_edt

    del images
    index = distance_transform_edt(
        marks == 0, sampling=spacing, return_distances=False, return_indices=True
    )
    return marks[tuple(index)].astype(np.int64) - 1


BASELINES: dict[str, Callable[[Images, Marks, Spacing], NDArray[Any]]] = {
    "random walker": random_walker,
    "precomputed random walker": precomputed_random_walker,
    "random forest": random_forest,
    "voxel geodesic": voxel_geodesic,
    "mixture geodesic": mixture_geodesic,
    "watershed": watershed,
    "fast GrowCut": fast_grow_cut,
    "nearest stroke": nearest_stroke,
}


def _work(name: str, arguments: tuple[Any, ...], pipe: Any) -> None:
    started = time.perf_counter()
    labels = BASELINES[name](*arguments)
    pipe.send((time.perf_counter() - started, labels.astype(np.uint8)))


def run_limited(
    name: str, arguments: tuple[Any, ...], limit: float
) -> tuple[float, NDArray[np.uint8] | None]:
    """Run a baseline in a process of its own; return its seconds and labels, None when late."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, arguments, there), daemon=False)
    process.start()
    there.close()
    try:
        if here.poll(limit):
            seconds, labels = here.recv()
            return seconds, labels
        return limit, None
    except EOFError:  # it died, out of memory perhaps
        return limit, None
    finally:
        if process.is_alive():
            process.terminate()
        process.join()
