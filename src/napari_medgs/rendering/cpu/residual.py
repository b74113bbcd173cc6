"""Per-slice kernels between splat and gather: blend, compare with the target, differentiate.

They work in place on one band's buffer (rows, channels + 1, padded columns): in comes the
splatted sum of every channel and of the weights, out goes the loss gradient with respect to them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from napari_medgs.rendering.cpu.kernels import LOG2E
from napari_medgs.rendering.cpu.simd import fast_exp2

_options: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "fastmath": {"contract", "nsz", "arcp", "reassoc"},
}

UNLABELED = 255  # class index of voxels that carry no label


@njit(**_options)
def blend_rows(buffer: Any, normalized: bool, eps: Any, background: Any, out: Any) -> None:
    """Write blended values to ``out`` (channels, rows, columns)."""
    channels, rows, width = out.shape
    for y in range(rows):
        weights = buffer[y, channels]
        if normalized:
            for x in range(width):
                weights[x] = np.float32(1) / (weights[x] + eps)
        for c in range(channels):
            row, result = buffer[y, c], out[c, y]
            if normalized:
                base = eps * background[c]
                for x in range(width):
                    result[x] = (row[x] + base) * weights[x]
            else:
                base = background[c]
                for x in range(width):
                    result[x] = row[x] + base


@njit(**_options)
def blend_rows_backward(
    buffer: Any, normalized: bool, eps: Any, background: Any, given: Any
) -> None:
    """Replace sums by derivatives, given those (channels, rows, columns) of blended values."""
    channels, rows, width = given.shape
    padded = buffer.shape[2]
    inverse, slope_of_weight = np.empty(width, np.float32), np.empty(width, np.float32)
    for y in range(rows):
        weights = buffer[y, channels]
        for x in range(width):
            inverse[x] = np.float32(1) / (weights[x] + eps) if normalized else np.float32(1)
            slope_of_weight[x] = np.float32(0)
        for c in range(channels):
            row, slope = buffer[y, c], given[c, y]
            base = eps * background[c]
            for x in range(width):
                value = (row[x] + base) * inverse[x]
                row[x] = slope[x] * inverse[x]
                slope_of_weight[x] -= row[x] * value
        for x in range(width):
            weights[x] = slope_of_weight[x] if normalized else np.float32(0)
        for c in range(channels + 1):
            row = buffer[y, c]
            for x in range(width, padded):
                row[x] = np.float32(0)


@njit(**_options)
def residual_rows(
    buffer: Any,
    normalized: bool,
    eps: Any,
    background: Any,
    target: Any,
    factors: Any,
    l1: bool,
    labels: Any,
    classes: int,
    seg_factor: Any,
    scratch: Any,
    sums: Any,
) -> None:
    """Replace sums by the derivatives of the loss with respect to them.

    Parameters
    ----------
    buffer : (rows, channels + 1, padded) float32
        Sums of the image channels, the class logits and the weights.
    target : (images, rows, columns) float32
    factors : (images,) float32
        Loss weight of every image channel here.
    labels : (rows, columns) uint8
        Class indices, 255 where unlabeled; unused when ``classes`` is 0.
    seg_factor : float32
        Loss weight of the softmax cross-entropy here.
    scratch : (classes + 4, padded) float32
    sums : (2,) float64
        Added to: squared errors of the image; one minus the probability of the true class.
    """
    images = len(target)
    rows, planes, padded = buffer.shape
    width = target.shape[2]
    inverse, pull, peak, norm = scratch[0], scratch[1], scratch[2], scratch[3]
    one, zero = np.float32(1), np.float32(0)
    for y in range(rows):
        weights = buffer[y, planes - 1]
        for x in range(width):
            inverse[x] = one / (weights[x] + eps) if normalized else one
            pull[x] = zero
        squares = zero
        for c in range(images):
            row, goal = buffer[y, c], target[c, y]
            base = eps * background[c] if normalized else background[c]
            factor = factors[c]
            if l1:
                for x in range(width):
                    value = (row[x] + base) * inverse[x]
                    difference = value - goal[x]
                    squares += difference * difference
                    sign = one if difference > 0 else -one
                    slope = factor * sign * inverse[x]
                    row[x] = slope
                    pull[x] -= slope * value
            else:
                for x in range(width):
                    value = (row[x] + base) * inverse[x]
                    difference = value - goal[x]
                    squares += difference * difference
                    slope = factor * difference * inverse[x]
                    row[x] = slope
                    pull[x] -= slope * value
        sums[0] += squares
        if classes > 0:
            mark = labels[y]
            for k in range(classes):
                row, logits = buffer[y, images + k], scratch[4 + k]
                base = eps * background[images + k]
                if not normalized:
                    base = background[images + k]
                for x in range(width):
                    logits[x] = (row[x] + base) * inverse[x]
                if k == 0:
                    for x in range(width):
                        peak[x] = logits[x]
                else:
                    for x in range(width):
                        peak[x] = max(peak[x], logits[x])
            for x in range(width):
                norm[x] = zero
            for k in range(classes):
                row, logits = buffer[y, images + k], scratch[4 + k]
                for x in range(width):
                    row[x] = fast_exp2(max((logits[x] - peak[x]) * LOG2E, np.float32(-100)))
                    norm[x] += row[x]
            miss = zero
            for x in range(width):
                # Unlabeled voxels get no slope; the buffer index stays within the classes.
                known = mark[x] != UNLABELED
                norm[x] = one / norm[x]
                if known:
                    miss += one - buffer[y, images + np.int64(mark[x]), x] * norm[x]
            sums[1] += miss
            for k in range(classes):
                row, logits = buffer[y, images + k], scratch[4 + k]
                for x in range(width):
                    hit = one if mark[x] == k else zero
                    slope = seg_factor * (row[x] * norm[x] - hit) * inverse[x]
                    slope = slope if mark[x] != UNLABELED else zero
                    row[x] = slope
                    pull[x] -= slope * logits[x]
        for x in range(width):
            weights[x] = pull[x] if normalized else zero
        for c in range(planes):
            row = buffer[y, c]
            for x in range(width, padded):
                row[x] = zero


@njit(**_options)
def add_label_errors(logits: Any, labels: Any, factor: Any, out: Any) -> None:
    """Add one minus the probability of the true class, times a factor.

    Parameters
    ----------
    logits : (classes, rows, columns) float32
    labels : (rows, columns) uint8
        Class indices, 255 where unlabeled: nothing is added there.
    factor : float32
    out : (rows, columns) float32
    """
    classes, rows, width = logits.shape
    peak, norm = np.empty(width, np.float32), np.empty(width, np.float32)
    one = np.float32(1)
    for y in range(rows):
        mark, errors = labels[y], out[y]
        for x in range(width):
            peak[x] = logits[0, y, x]
            norm[x] = np.float32(0)
        for k in range(1, classes):
            row = logits[k, y]
            for x in range(width):
                peak[x] = max(peak[x], row[x])
        for k in range(classes):
            row = logits[k, y]
            for x in range(width):
                norm[x] += fast_exp2(max((row[x] - peak[x]) * LOG2E, np.float32(-100)))
        for x in range(width):
            if mark[x] != UNLABELED:
                truth = (logits[np.int64(mark[x]), y, x] - peak[x]) * LOG2E
                errors[x] += factor * (one - fast_exp2(max(truth, np.float32(-100))) / norm[x])
