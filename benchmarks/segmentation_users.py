"""Simulated users: where they stroke next, and whether uncertainty knows what is wrong.

All begin with strokes on one slice, the same for all users of a seed. The first kind corrects: it
goes to the slice with most wrong voxels and strokes the middle of its largest wrong patch of each
class. The others choose a slice a round, scribble it as the first one (the same slice with the
same strokes) and correct what they see there in the same way. They differ in the choice alone: the
slice that is suggested, one drawn by chance among those that show the objects (which a real user
cannot know) or among all, or the one with most wrong voxels (which no rule can know).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.segmentation import Prompts
from segmentation_cases import BACKGROUND, scribble_slice
from segmentation_measure import Bench, Store, dice_of, indices

SUGGESTED, CHANCE, ANYWHERE, WORST = (
    "suggested slice",
    "chance, slices with objects",
    "chance, all slices",
    "slice with most errors",
)
CORRECTS = "corrects the largest errors"


@dataclass(frozen=True)
class User:
    """A simulated user: rounds at most, and seeds, each with other strokes to begin with.

    One curve is worth little: equal strokes a slice apart change the Dice by 0.05.
    """

    name: str
    rounds: int
    seeds: int = 1


USERS = (
    User(CORRECTS, 10, 3),
    User(SUGGESTED, 6, 3),
    User(CHANCE, 6, 3),
    User(ANYWHERE, 6, 3),
    User(WORST, 6, 3),
)
Marks = NDArray[np.uint8]
Choice = Callable[[Bench, Marks, NDArray[np.bool_], np.random.Generator], int | None]


def _others(bench: Bench) -> tuple[int, ...]:
    return tuple(a for a in range(3) if a != bench.axis)


def _index(bench: Bench, z: int) -> tuple[Any, ...]:
    return tuple(z if a == bench.axis else slice(None) for a in range(3))


def _suggested(
    bench: Bench, marks: Marks, wrong: NDArray[np.bool_], rng: np.random.Generator
) -> int | None:
    found = bench.model.suggest(1, bench.axis)
    return found[0].index if found else None


def _by_chance(
    bench: Bench, marks: Marks, wrong: NDArray[np.bool_], rng: np.random.Generator
) -> int | None:
    others = _others(bench)
    free = np.flatnonzero((bench.truth > 0).any(axis=others) & ~marks.any(axis=others))
    return int(rng.choice(free)) if len(free) else None


def _anywhere(
    bench: Bench, marks: Marks, wrong: NDArray[np.bool_], rng: np.random.Generator
) -> int | None:
    free = np.flatnonzero(~marks.any(axis=_others(bench)))
    return int(rng.choice(free)) if len(free) else None


def _worst(
    bench: Bench, marks: Marks, wrong: NDArray[np.bool_], rng: np.random.Generator
) -> int | None:
    others = _others(bench)
    count = np.where(marks.any(axis=others), 0, wrong.sum(axis=others))
    return int(count.argmax()) if count.any() else None


CHOICES: dict[str, Choice] = {
    SUGGESTED: _suggested,
    CHANCE: _by_chance,
    ANYWHERE: _anywhere,
    WORST: _worst,
}


def _correct(bench: Bench, marks: Marks, wrong: NDArray[np.bool_], z: int) -> None:
    """Stroke the middle of the largest wrong patch of each class in a slice."""
    from scipy.ndimage import distance_transform_edt
    from skimage.measure import label

    index = _index(bench, z)
    for k in range(bench.classes + 1):
        pieces = label(wrong[index] & (bench.truth[index] == k))
        if not pieces.any():
            continue
        sizes = np.bincount(pieces.reshape(-1))
        sizes[0] = 0
        inside = distance_transform_edt(pieces == sizes.argmax())
        stroke = inside >= max(1.0, 0.7 * inside.max())
        marks[index][stroke] = k + 1


def simulated_user(bench: Bench, name: str, rounds: int, seed: int) -> list[float]:
    """Return the mean Dice in the beginning and after each round of a simulated user."""
    rng = np.random.default_rng([seed, 77])
    marks = bench.marks(1, seed)
    scores = []
    for turn in range(rounds + 1):
        guess = bench.solve(marks)[1]
        scores.append(float(np.mean(dice_of(guess, bench.truth))))
        if turn == rounds:
            break
        wrong = guess != bench.truth
        if name == CORRECTS:
            _correct(bench, marks, wrong, int(wrong.sum(axis=_others(bench)).argmax()))
            continue
        z = CHOICES[name](bench, marks, wrong, rng)
        if z is None:
            continue
        index = _index(bench, z)
        fresh = scribble_slice(bench.truth[index], np.random.default_rng([z, 99]))
        marks[index] = np.where(fresh > 0, fresh, marks[index])
        _correct(bench, marks, wrong, z)
    return scores


def measure_users(
    bench: Callable[[], Bench], name: str, store: Store, most: int, say: Callable[[str], None]
) -> None:
    """Run the users of one case, for ``most`` rounds at most, as far as the store lacks them."""
    for user in USERS:
        rounds = min(user.rounds, most)
        for seed in range(user.seeds):
            scores = store.get(
                name,
                f"user/{user.name}/{rounds}/{seed}",
                lambda user=user, rounds=rounds, seed=seed: simulated_user(
                    bench(), user.name, rounds, seed
                ),
            )
            say(f"{name}, {user.name}: {' '.join(f'{s:.3f}' for s in scores)}")


def error_auc(bench: Bench, slices: int, seed: int) -> float | None:
    """Return how well uncertainty ranks wrong voxels: area under the ROC curve.

    Counted in the box of the truth and a margin of a tenth of the image; far air would flatter.
    None where nothing is wrong.
    """
    from sklearn.metrics import roc_auc_score

    prompts = Prompts(labels=bench.marks(slices, seed), background=BACKGROUND)
    result = bench.model.update(prompts)
    wrong = indices(result.labels) != bench.truth
    box = []
    for axis in range(3):
        hits = np.flatnonzero((bench.truth > 0).any(axis=tuple(a for a in range(3) if a != axis)))
        pad = int(0.1 * bench.truth.shape[axis]) + 1
        box.append(slice(max(0, int(hits[0]) - pad), int(hits[-1]) + 1 + pad))
    part = tuple(box)
    if not wrong[part].any():
        return None
    return float(roc_auc_score(wrong[part].reshape(-1), result.uncertainty()[part].reshape(-1)))
