"""Dice after simulated prompts through the server, and of baselines with prompts of their own.

A simulated user segments one structure at a time: the first click is its deepest voxel, every
further one the deepest voxel of the largest connected error (of the object or not). A box is the
tight one around the structure, a scribble the middle of its largest section; clicks follow them.
Baselines get the same kind of prompts (balls of 1.5 voxels) of their own sequence, and the image's
border as background, which they need.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation_baselines import run_limited, scaled
from segmentation_cases import Case, _middle, cases_of
from segmentation_measure import cropped
from serve_client import connect, dice, wait_for
from serve_records import Records
from suite.registry import Context

Mask = NDArray[np.bool_]
Click = tuple[tuple[int, int, int], bool]
CLICKS = 6
ORGANS = {
    "abdomen": ("spleen", "kidney right", "kidney left", "liver", "stomach"),
    "tumour": ("whole tumor",),
    "tumour_parts": ("necrosis", "edema", "enhancing"),
}
OTHERS = {
    "lumen": ("true lumen", "false lumen"),
    "cord_t2": ("cord",),
    "hippocampus_008": ("anterior", "posterior"),
    "hippocampus_017": ("anterior", "posterior"),
    "hippocampus_025": ("anterior", "posterior"),
}
TUNED = {
    "spleen": ("spleen",),
    "aorta": ("aorta",),
    "pelvis": ("femur left", "femur right", "hip left", "hip right", "bladder"),
    "cord_t1": ("cord",),
    "hippocampus_003": ("anterior", "posterior"),
    "hippocampus_019": ("anterior", "posterior"),
    "hippocampus_049": ("anterior", "posterior"),
}
REPORTED = ORGANS | OTHERS
BASELINES = ("fast GrowCut", "watershed", "random walker")
KINDS = ("clicks", "box", "scribble")
LIMIT = 20.0  # seconds for an answer of a baseline
Scores = list[float] | None


def deepest(piece: Mask, sampling: NDArray[Any]) -> tuple[int, int, int]:
    """Return the voxel of a piece that is farthest from its border."""
    from scipy.ndimage import distance_transform_edt, find_objects

    box = find_objects(piece.astype(np.uint8))[0]
    depth = distance_transform_edt(np.pad(piece[box], 1), sampling=sampling)
    place = np.unravel_index(depth.argmax(), depth.shape)
    z, y, x = (int(p) - 1 + s.start for p, s in zip(place, box, strict=True))
    return z, y, x


def next_click(guess: Mask, truth: Mask, sampling: NDArray[Any]) -> Click | None:
    """Return the click in the middle of the largest error; None where there is none."""
    from scipy.ndimage import label

    best, chosen, positive = 0, None, True
    for kind, wrong in ((True, truth & ~guess), (False, guess & ~truth)):
        pieces, count = label(wrong)
        if count:
            sizes = np.bincount(pieces.reshape(-1))[1:]
            if sizes.max() > best:
                best, positive = int(sizes.max()), kind
                chosen = pieces == sizes.argmax() + 1
    return None if chosen is None else (deepest(chosen, sampling), positive)


def targets(
    context: Context, wanted: dict[str, tuple[str, ...]]
) -> Iterator[tuple[str, Any, list[tuple[str, Mask]]]]:
    """Iterate over images with the structures to find in them."""
    case: Case
    for case in cases_of("all", tuple(wanted)):
        volume, truth = cropped(*case.load(context.data))
        structures = [(name, truth == k + 1) for k, name in enumerate(wanted[case.name])]
        yield case.name, volume, structures


def begin_with(client: Any, kind: str, truth: Mask, sampling: NDArray[Any]) -> None:
    """Give the first prompt of a kind."""
    if kind == "clicks":
        client.add_point_interaction(deepest(truth, sampling), True)
    elif kind == "box":
        where = np.argwhere(truth)
        sides = zip(where.min(axis=0), where.max(axis=0) + 1, strict=True)
        client.add_bbox_interaction([[int(a), int(b)] for a, b in sides], True)
    else:
        z = int(truth.sum(axis=(1, 2)).argmax())
        stroke = np.zeros(truth.shape, np.uint8)
        stroke[z] = _middle(truth[z], 0.7, np.random.default_rng(0))
        client.add_scribble_interaction(stroke, True)


def ours(client: Any, kind: str, truth: Mask, sampling: NDArray[Any]) -> list[float]:
    """Return the Dice after the first prompt and after every click that follows."""
    client.reset_interactions()
    begin_with(client, kind, truth, sampling)
    scores = [dice(client.target_buffer, truth)]
    while len(scores) < CLICKS:
        click = next_click(client.target_buffer > 0, truth, sampling)
        if click is not None:
            client.add_point_interaction(*click)
        scores.append(dice(client.target_buffer, truth))
    return scores


def marks_of(clicks: list[Click], shape: tuple[int, ...], sampling: NDArray[Any]) -> Any:
    """Return what baselines take: balls of 1.5 voxels, the border as background."""
    marks = np.zeros(shape, np.uint8)
    for axis in range(3):
        if shape[axis] > 4:
            edge = np.moveaxis(marks, axis, 0)
            edge[0] = edge[-1] = 1
    reach = np.ceil(1.5 / sampling).astype(int)
    offsets = np.indices(2 * reach + 1).reshape(3, -1).T - reach
    offsets = offsets[((offsets * sampling) ** 2).sum(axis=1) <= 1.5**2]
    for place, positive in clicks:
        voxels = offsets + np.asarray(place)
        good = ((voxels >= 0) & (voxels < shape)).all(axis=1)
        marks[tuple(voxels[good].T)] = 2 if positive else 1
    return marks


def baseline(
    name: str, images: Any, truth: Mask, spacing: tuple[float, ...], sampling: NDArray[Any]
) -> Scores:
    """Return the Dice after every click; None where one took too long."""
    clicks: list[Click] = [(deepest(truth, sampling), True)]
    scores: list[float] = []
    while len(scores) < CLICKS:
        marks = marks_of(clicks, truth.shape, sampling)
        _, guess = run_limited(name, (images, marks, spacing), LIMIT)
        if guess is None:
            return None
        scores.append(dice(guess, truth))
        click = next_click(guess > 0, truth, sampling)
        if click is None:
            scores += [scores[-1]] * (CLICKS - len(scores))
        else:
            clicks.append(click)
    return scores


def measure(
    context: Context,
    url: str,
    wanted: dict[str, tuple[str, ...]],
    methods: tuple[str, ...],
    records: Records,
) -> None:
    """Measure the Dice of what is not in the records yet.

    Parameters
    ----------
    context : Context
    url : str
        Of the server.
    wanted : dict
        Names of the structures by case.
    methods : tuple of str
        Of KINDS and BASELINES.
    records : Records
        "case: structure" to methods to scores.
    """
    missing = {
        case: names
        for case, names in wanted.items()
        if any(m not in records.values.get(f"{case}: {n}", {}) for n in names for m in methods)
    }
    for case, volume, structures in targets(context, missing):
        sampling = np.asarray(volume.spacing) / min(volume.spacing)
        images = scaled(volume.data)
        client = connect(url, volume.data, volume.spacing)
        wait_for(client)
        for name, truth in structures:
            found = records.values.setdefault(f"{case}: {name}", {})
            for method in methods:
                if method in found or records.is_time_up:
                    continue
                if method in KINDS:
                    scores: Scores = ours(client, method, truth, sampling)
                else:
                    scores = baseline(method, images, truth, volume.spacing, sampling)
                found[method] = scores
                records.keep()
                cells = " ".join(f"{s:.3f}" for s in scores) if scores else "too slow"
                context.say(f"{case}: {name}, {method}: {cells}")
        client.close()
