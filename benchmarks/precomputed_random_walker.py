"""Random walker from precomputed eigenvectors, on blocks of voxels: an own implementation.

References
----------
Grady and Sinop 2008, *Fast approximate random walker segmentation using eigenvector
precomputation*, CVPR; Andrews, Hamarneh and Saad 2010, *Fast random walker with priors using
precomputation for interactive medical image segmentation*, MICCAI.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NODES = 20_000  # most blocks: eigenvectors of a grid of all voxels take hours
VECTORS = 80  # as in the first paper
BETA = 130.0  # as in scikit-image
RIDGE = 1e-3  # of the eigenvalues, where more marks than eigenvectors contradict each other


def block_means(
    images: NDArray[np.float32], spacing: tuple[float, float, float]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the means over blocks that are about cubes in mm, and the blocks' sizes."""
    shape, spacing_mm = np.array(images.shape[1:]), np.asarray(spacing)
    side = min(spacing)
    while True:
        size = np.minimum(np.maximum(np.round(side / spacing_mm).astype(int), 1), shape)
        if np.prod(-(-shape // size)) <= NODES:
            break
        side *= 1.05
    count = -(-shape // size)
    padded = np.pad(
        images, ((0, 0), *((0, int(c * s - n)) for c, s, n in zip(count, size, shape))), "edge"
    )
    z, y, x = size
    parts = padded.reshape(len(images), count[0], z, count[1], y, count[2], x)
    return parts.mean(axis=(2, 4, 6)), size


def laplacian(blocks: NDArray[np.float32], block_mm: NDArray[np.float64]) -> Any:
    """Return the Laplacian of the 6-connected grid with scikit-image's weights."""
    from scipy.sparse import coo_matrix, diags

    count = int(np.prod(blocks.shape[1:]))
    index = np.arange(count).reshape(blocks.shape[1:])
    scale = BETA / (10 * max(float(blocks.std()), 1e-12))
    rows, columns, weights = [], [], []
    for axis in range(3):
        square = (np.diff(blocks, axis=axis + 1) ** 2).sum(axis=0) / block_mm[axis]
        first = np.take(index, np.arange(index.shape[axis] - 1), axis).reshape(-1)
        second = np.take(index, np.arange(1, index.shape[axis]), axis).reshape(-1)
        rows.append(first)
        columns.append(second)
        weights.append(np.exp(-scale * square.reshape(-1)) + 1e-10)
    i, j, w = (np.concatenate(parts) for parts in (rows, columns, weights))
    graph = coo_matrix(
        (np.concatenate([w, w]), (np.concatenate([i, j]), np.concatenate([j, i]))),
        shape=(count, count),
    ).tocsc()
    return diags(np.asarray(graph.sum(axis=1)).reshape(-1)) - graph


def precomputed_random_walker(
    images: NDArray[np.float32], marks: NDArray[np.uint8], spacing: tuple[float, float, float]
) -> NDArray[Any]:
    """Return class indices; eigenvectors are computed here, too, and count into its seconds."""
    from scipy.ndimage import zoom
    from scipy.sparse.linalg import eigsh

    blocks, size = block_means(images, spacing)
    shape = blocks.shape[1:]
    block_mm = size * np.asarray(spacing)
    matrix = laplacian(blocks, block_mm / block_mm.min())
    values, vectors = eigsh(
        matrix.tocsc(), k=min(VECTORS, int(np.prod(shape)) - 2), sigma=-1e-6, which="LM",
        v0=np.ones(int(np.prod(shape))),
    )  # fmt: skip
    places = np.argwhere(marks > 0)
    nodes = np.ravel_multi_index(tuple((places // size).T), shape)
    classes = marks[tuple(places.T)].astype(int) - 1
    count = int(classes.max()) + 1
    votes = np.zeros((int(np.prod(shape)), count))
    np.add.at(votes, (nodes, classes), 1.0)
    seeds = np.flatnonzero(votes.any(axis=1))
    target = np.eye(count)[votes[seeds].argmax(axis=1)]
    mine = vectors[seeds]
    penalty = RIDGE * np.maximum(values, 0) / max(float(values.max()), 1e-12)
    weights = np.linalg.solve(mine.T @ mine + np.diag(penalty + 1e-9), mine.T @ target)
    scores = (vectors @ weights).reshape(*shape, count)
    best = np.full(marks.shape, -np.inf, np.float32)
    out = np.zeros(marks.shape, np.int64)
    for k in range(count):
        fine = zoom(
            scores[..., k].astype(np.float32), size, order=1, grid_mode=True, mode="nearest"
        )
        fine = fine[tuple(slice(0, n) for n in marks.shape)]
        higher = fine > best
        best[higher], out[higher] = fine[higher], k
    out[marks > 0] = marks[marks > 0].astype(np.int64) - 1
    return out
