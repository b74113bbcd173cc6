"""The case "part-strokes": a part and two corrections, against six strokes.

Both users know the truth. One clicks on a part and corrects twice, each time by one stroke in the
slice with most errors. The other one paints: one stroke inside, one around, four corrections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.volume import Volume
from napari_medgs.hierarchy import PartTree, part_tree
from napari_medgs.segmentation import Prompts, SegmentParams
from napari_medgs.segmentation.model import SegmentModel
from suite.discover_case import Case, cases, clicks, dice
from suite.registry import Context
from suite.results import CaseResult, Table

Mask = NDArray[np.bool_]
OPEN, OUTSIDE, INSIDE = -1, 0, 1
CORRECTIONS, MORE_CORRECTIONS = 2, 4
HIPPOCAMPI = 4  # of either split
GOOD = 0.85  # Dice of a part that a user would take
IMAGES = ("abdominal CT", "spleen CT", "spinal cord T1", "spinal cord T2",
          "glioma MR, 4 contrasts")  # fmt: skip
PARTS_OF_GLIOMA = ("whole tumor", "core", "edema")


@dataclass(frozen=True)
class Course:
    """Dice of one target, of the part or the first two strokes, and after each correction."""

    target: str
    click: list[float]  # on the deepest voxel
    hover: list[float]  # on the best of five places
    strokes: list[float]


def chosen(quick: bool) -> Iterator[Case]:
    """Iterate over the images, with the targets of each."""
    count = {"tune": 0, "report": 0}
    for case in cases(quick):
        if case.name.startswith("hippocampus"):
            count[case.split] += 1
            if count[case.split] <= HIPPOCAMPI:
                yield case
        elif case.name in IMAGES:
            glioma = case.name.startswith("glioma")
            names = PARTS_OF_GLIOMA if glioma else tuple(case.targets)
            yield replace(case, targets={k: case.targets[k] for k in names})


def _plane(axis: int, index: int) -> tuple[Any, ...]:
    return tuple(index if a == axis else slice(None) for a in range(3))


def _fullest(mask: Mask, axis: int) -> int:
    return int(mask.sum(axis=tuple(a for a in range(3) if a != axis)).argmax())


def largest_piece(mask: Mask) -> Mask:
    """Return the largest connected piece of a 2D mask."""
    from skimage.measure import label

    pieces = label(mask)
    sizes = np.bincount(pieces.reshape(-1))
    sizes[0] = 0
    return np.asarray(pieces == sizes.argmax())


def first_strokes(truth: Mask, axis: int, seed: int) -> NDArray[np.int32]:
    """Return a stroke inside the target and one around it, in its largest slice."""
    from scipy.ndimage import distance_transform_edt

    from segmentation_cases import _middle

    marks = np.full(truth.shape, OPEN, np.int32)
    where = _plane(axis, _fullest(truth, axis))
    shape = truth[where]
    away = distance_transform_edt(~shape)
    gap = max(3.0, 0.25 * np.sqrt(shape.sum() / np.pi))
    marks[where][(away > gap - 0.7) & (away <= gap + 0.7)] = OUTSIDE
    marks[where][_middle(largest_piece(shape), 0.7, np.random.default_rng(seed))] = INSIDE
    return marks


def correct(marks: NDArray[np.int32], found: Mask, truth: Mask, axis: int) -> None:
    """Add the middle of the largest wrong piece of the slice with most errors to strokes."""
    from scipy.ndimage import distance_transform_edt

    wrong = found != truth
    if not wrong.any():
        return
    where = _plane(axis, _fullest(wrong, axis))
    missing, excess = (truth & ~found)[where], (found & ~truth)[where]
    pieces = {
        value: largest_piece(piece)
        for value, piece in ((OUTSIDE, excess), (INSIDE, missing))
        if piece.any()
    }
    value = max(pieces, key=lambda v: int(pieces[v].sum()))
    piece = pieces[value]
    depth = distance_transform_edt(piece)
    marks[where][depth >= max(1.0, 0.7 * depth.max())] = value


def solve(model: SegmentModel, marks: NDArray[np.int32], part: Mask | None = None) -> Mask:
    """Return the mask of strokes, from a part where there is one."""
    initial = None if part is None else part.astype(np.uint8)
    prompts = Prompts(labels=marks, background=OUTSIDE, unlabeled=OPEN, initial=initial)
    return np.asarray(model.update(prompts).labels == INSIDE)


def best_part(tree: PartTree, truth: Mask, places: list[tuple[int, ...]]) -> Mask:
    """Return the mask of the best size at the best of some places."""
    inside = tree.sum_up(np.bincount(tree.cells[truth], minlength=tree.leaves))
    best, nodes = -1.0, (tree.root,)
    for place in places:
        part = tree.at(place)
        sizes = tree.voxels[[n[0] for n in part.levels]]
        overlap = 2 * inside[[n[0] for n in part.levels]] / (sizes + truth.sum())
        if overlap.max() > best:
            best, nodes = float(overlap.max()), part.levels[int(overlap.argmax())]
    return tree.mask(nodes)


def with_part(model: SegmentModel, part: Mask, truth: Mask, axis: int) -> list[float]:
    """Return the Dice of a part, and after each of its corrections."""
    marks = np.full(truth.shape, OPEN, np.int32)
    found, course = part, [dice(part, truth)]
    for _ in range(CORRECTIONS):
        correct(marks, found, truth, axis)
        found = solve(model, marks, part)
        course.append(dice(found, truth))
    return course


def with_strokes(model: SegmentModel, truth: Mask, axis: int, seed: int) -> list[float]:
    """Return the Dice of two strokes, and after each of their corrections."""
    marks = first_strokes(truth, axis, seed)
    found = solve(model, marks)
    course = [dice(found, truth)]
    for _ in range(MORE_CORRECTIONS):
        correct(marks, found, truth, axis)
        found = solve(model, marks)
        course.append(dice(found, truth))
    return course


def measure_case(case: Case, context: Context) -> list[Course]:
    """Measure all targets of one image."""
    from napari_medgs.segmentation.api import FIT_PARAMS, fit_for_segmentation

    volume: Volume
    volume, masks = case.load(context)
    field = fit_for_segmentation(volume, FIT_PARAMS)
    tree = part_tree(volume, field=field)
    model = SegmentModel(volume, field, SegmentParams())
    axis = volume.grid.coarsest_axis()
    courses = []
    for target, truth in masks.items():
        places = list(clicks(truth, context.seed))
        click, hover = (best_part(tree, truth, p) for p in (places[:1], places))
        courses.append(
            Course(
                f"{case.name}: {target}",
                with_part(model, click, truth, axis),
                with_part(model, hover, truth, axis),
                with_strokes(model, truth, axis, context.seed),
            )
        )
        context.say(f"  {courses[-1].target} {courses[-1].hover[-1]:.3f}")
    return courses


def run(context: Context) -> CaseResult:
    """Run the case; some minutes."""
    from napari_medgs._util.threads import limit_threads

    courses: list[Course] = []
    for case in chosen(context.quick):
        with limit_threads(context.threads):
            courses += measure_case(case, context)
    rows, wins = [], []
    for c in courses:
        texts = [f"{v:.3f}" for v in (c.click[0], c.click[-1], c.hover[0], c.hover[-1])]
        texts += [f"{c.strokes[k]:.3f}" for k in (1, MORE_CORRECTIONS)]
        rows.append((c.target, *texts))
    for name, group in (
        ("all targets", courses),
        ("whose part has Dice 0.85 or more", [c for c in courses if c.hover[0] >= GOOD]),
        ("all others", [c for c in courses if c.hover[0] < GOOD]),
    ):
        wins.append(
            (
                name,
                str(len(group)),
                *(
                    str(sum(getattr(c, user)[-1] > c.strokes[k] for c in group))
                    for user in ("click", "hover")
                    for k in (1, MORE_CORRECTIONS)
                ),
            )
        )
    return CaseResult(
        "part-strokes",
        "a part and two corrections, against strokes",
        tables=[
            Table(
                "Dice",
                ("target", "part at the deepest voxel", "and two strokes",
                 "best part of five places", "and two strokes", "three strokes", "six strokes"),
                tuple(rows),
            ),
            Table(
                "Targets in which a part and two strokes are better",
                ("", "number", "deepest voxel, than three strokes", "than six",
                 "best of five places, than three strokes", "than six"),
                tuple(wins),
            ),
        ],
        notes=[
            "Users know the truth. A part has the best size of those on offer at its place. The "
            "best of five places stands for a user who looks at outlines before the click: the "
            "deepest voxel and four random ones at half its depth or more.",
            "A correction is one stroke: the middle of the largest wrong piece of the slice with "
            "most errors. Six strokes are one inside, one around, and four corrections. One seed.",
        ],
        numbers={c.target: {"click": c.click, "hover": c.hover, "strokes": c.strokes}
                 for c in courses},
    )  # fmt: skip
