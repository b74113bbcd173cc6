"""The segmentation case: simulated prompts, kept numbers, tables."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from suite import registry

pytestmark = pytest.mark.skipif(
    registry.source_folder() is None, reason="the case is only in the source tree"
)


@pytest.fixture(scope="module", autouse=True)
def scripts():
    folder = str(registry.source_folder() / "benchmarks")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)


def two_balls():
    z, y, x = np.meshgrid(*[np.arange(n) for n in (16, 40, 40)], indexing="ij")
    truth = np.zeros((16, 40, 40), np.uint8)
    truth[((z - 8) * 2) ** 2 + (y - 20) ** 2 + (x - 12) ** 2 < 49] = 1
    truth[((z - 8) * 2) ** 2 + (y - 20) ** 2 + (x - 28) ** 2 < 49] = 2
    return truth


@pytest.mark.parametrize("count", [1, 3, 5])
def test_strokes_lie_in_their_classes_and_repeat(count):
    from segmentation_cases import simulate_scribbles

    truth = two_balls()
    marks = simulate_scribbles(truth, 0, count, 0)
    assert np.array_equal(marks, simulate_scribbles(truth, 0, count, 0))
    assert not np.array_equal(marks, simulate_scribbles(truth, 0, count, 1))
    assert marks.any(axis=(1, 2)).sum() == count
    seen = marks > 0
    assert set(np.unique(marks[seen])) == {1, 2, 3}
    assert np.array_equal(marks[seen] - 1, truth[seen])
    assert seen.mean() < 0.05 * count


def test_every_baseline_finds_two_bright_balls(rng):
    from segmentation_baselines import BASELINES
    from segmentation_cases import simulate_scribbles
    from segmentation_measure import dice_of

    truth = two_balls()
    image = (truth * 0.4 + rng.normal(0.1, 0.02, truth.shape)).astype(np.float32)[None]
    marks = simulate_scribbles(truth, 0, 3, 0)
    for name, method in BASELINES.items():
        guess = method(image, marks, (2.0, 1.0, 1.0))
        assert guess.shape == truth.shape
        least = 0.3 if name == "nearest stroke" else 0.7  # it does not look at the image
        assert np.mean(dice_of(guess, truth)) > least, name


def test_a_late_baseline_is_stopped(monkeypatch):
    import time

    import segmentation_baselines

    def slow(images, marks, spacing):
        time.sleep(30)

    monkeypatch.setitem(segmentation_baselines.BASELINES, "slow", slow)
    marks = np.ones((2, 2, 2), np.uint8)
    began = time.perf_counter()
    seconds, labels = segmentation_baselines.run_limited(
        "slow", (np.zeros((1, 2, 2, 2), np.float32), marks, (1.0, 1.0, 1.0)), 0.3
    )
    assert labels is None
    assert seconds == 0.3
    assert time.perf_counter() - began < 10


def test_the_store_goes_on_where_it_stopped(tmp_path):
    from segmentation_measure import Store

    store = Store(tmp_path)
    assert store.get("a", "strokes/1/0/ours", lambda: {"dice": np.float64(0.5)}) == {"dice": 0.5}
    store.get("a", "strokes/1/0/watershed", lambda: {"dice": 0.4})
    store.get("a", "auc/1", lambda: 0.9)
    again = Store(tmp_path)
    assert again.get("a", "auc/1", lambda: 0.0) == 0.9
    again.forget_ours("a")
    assert set(again.case("a")) == {"strokes/1/0/watershed"}
    assert again.get("a", "strokes/1/0/ours", lambda: {"dice": 0.6}) == {"dice": 0.6}


def records():
    from segmentation_users import ANYWHERE, CHANCE, CORRECTS, SUGGESTED, WORST

    def case(ours, theirs):
        rows = {"split": "report", "auc/3": 0.9, "facts/ours": {}}
        rows["strokes/3/0/ours"] = {"dice": ours, "hd95": 1.0, "seconds": 0.2}
        late = {"seconds": 60.0, "late": True}
        walker = late if theirs is None else {"dice": theirs, "hd95": 2.0, "seconds": 8.0}
        rows["strokes/3/0/random walker"] = walker
        rows["painted/3/ours"] = {"dice": 0.9}
        rows["painted/3/signed distance"] = {"dice": 0.8}
        for seed in range(3):
            rows[f"user/{CORRECTS}/2/{seed}"] = [0.5, 0.6, ours]
        if ours > 0.8:  # all others were interrupted
            for seed in range(3):
                rows[f"user/{SUGGESTED}/2/{seed}"] = [0.5, 0.65, 0.72]
                rows[f"user/{WORST}/2/{seed}"] = [0.5, 0.7, 0.75]
                rows[f"user/{CHANCE}/2/{seed}"] = [0.5, 0.55 + 0.05 * seed, 0.6 + 0.1 * seed]
                rows[f"user/{ANYWHERE}/2/{seed}"] = [0.5, 0.5, 0.5]
        return rows

    return {
        "x": case(0.9, 0.5),
        "y": case(0.6, None),
        "z": case(0.5, 0.7),
        "hippocampus_1": case(0.8, 0.6),
        "hippocampus_2": case(0.4, 0.4),
    }


def test_tables_count_late_ones_and_group_hippocampi():
    from segmentation_report import summarize

    result = summarize(records(), [3], 1, ["ours", "random walker"], 60.0)
    ratio = result.ratios[0]
    assert ratio.ours == pytest.approx((0.9 + 0.5 + 0.6) / 3)
    assert ratio.theirs == pytest.approx((0.5 + 0.7 + 0.5) / 3)
    assert ratio.note == "better or equal in 2 of 3 cases; not done in 60 s in 1"
    dice = {row[0]: row[2:] for row in result.tables[0].rows}
    assert dice["y"] == ("0.600", "-")
    assert dice["hippocampus"] == ("0.600", "0.500")
    assert dice["best of all"] == ("3 of 4", "")
    assert dice["**mean**"] == ("0.650", "0.567")


def test_users_and_latency_have_their_tables():
    from segmentation_report import summarize
    from segmentation_users import CHANCE, SUGGESTED

    seconds = {"full": [0.3, 0.5, 0.4], "quick": [0.2], "preview": [0.05]}
    latency = {
        "shape": [150, 256, 256], "classes": 5, "gaussians": 1000, "threads": 2,
        "seconds": seconds, "seconds_fit": 9.0, "seconds_setup": 1.0, "peak_bytes": 1.5e9,
    }  # fmt: skip
    result = summarize(records(), [3], 1, ["ours", "random walker"], 60.0, latency)
    dice, gains, slices = result.tables[-4:-1]
    assert dice.title.endswith(", 1 cases")
    assert [row[1:] for row in dice.rows] == [
        ("0.500", "0.600", "0.900"),
        ("0.500", "0.650", "0.720"),
        ("0.500", "0.600", "0.700"),
        ("0.500", "0.500", "0.500"),
        ("0.500", "0.700", "0.750"),
    ]
    assert gains.rows[0] == (
        SUGGESTED, CHANCE, 2, "+0.035", "+0.035 to +0.035", "1 of 1",
    )  # fmt: skip
    assert [row[3] for row in gains.rows] == ["+0.035", "+0.185", "+0.075", "+0.225"]
    assert slices.rows == (
        (1, "0.600", "0.7", "> 2", "0.5", "1 of 1"),
        (2, "0.700", "1.7", "> 2", "1.0", "1 of 1"),
    )
    (ratio,) = (r for r in result.ratios if r.what.startswith("slices for"))
    assert (ratio.ours, ratio.theirs) == (pytest.approx(1 + 5 / 7), 2)
    assert result.tables[-1].rows[0] == ("full update", "0.400", "0.500")
    assert ("peak memory, GB", "1.50", "") in result.tables[-1].rows


def test_gains_over_chance_are_paired_by_case():
    from segmentation_users import CHANCE, SUGGESTED, USERS
    from segmentation_users_report import UserNumbers

    def case(start, more):
        rows = {}
        for user in USERS:
            for seed in range(user.seeds):
                better = more if user.name == SUGGESTED else 0.0
                rows[f"user/{user.name}/2/{seed}"] = [start, start + better, start + 3 * better]
        return rows

    cases = {"a": case(0.1, 0.01), "b": case(0.8, 0.03), "c": case(0.4, -0.01)}
    numbers = UserNumbers(cases, {name: [name] for name in cases})
    mean, low, high, more = numbers.gain(SUGGESTED, CHANCE, 2)
    assert (mean, more) == (pytest.approx(0.02), 2)
    assert -0.021 < low < mean < high < 0.061
    assert numbers.gain(SUGGESTED, CHANCE, 1)[0] == pytest.approx(0.01)


def test_curves_of_several_lengths_are_cut_to_the_shortest():
    from segmentation_users import USERS
    from segmentation_users_report import curves_of

    def case(*lengths):
        return {
            f"user/{user.name}/{n - 1}/{seed}": [0.1] * n
            for user in USERS
            for seed in range(user.seeds)
            for n in lengths
        }

    found = curves_of({"a": case(3, 5), "b": case(4), "c": {"user/unknown/2/0": [0.0]}})
    assert set(found) == {"a", "b"}
    for curves in found.values():
        assert [len(curves[user.name]) for user in USERS] == [user.seeds for user in USERS]
        assert {len(c) for seeds in curves.values() for c in seeds} == {4}


def test_slices_needed_lie_between_rounds():
    from segmentation_users_report import needed

    assert needed([0.5, 0.6, 0.8], 0.7) == pytest.approx(1.5)
    assert needed([0.5, 0.6, 0.8], 0.4) == 0
    assert needed([0.5, 0.4, 0.8], 0.6) == pytest.approx(1.5)
    assert np.isinf(needed([0.5, 0.6], 0.7))


def test_users_of_one_choice_differ_in_the_slice_alone(monkeypatch):
    import segmentation_users as users

    truth = np.zeros((9, 40, 40), np.uint8)
    truth[2:7, 12:28, 12:28] = 1

    class FakeBench:
        axis, classes = 0, 1

        def __init__(self):
            self.truth, self.asked = truth, []
            self.model = SimpleNamespace(suggest=lambda count, axis: [SimpleNamespace(index=4)])

        def marks(self, count, seed):
            marks = np.zeros(truth.shape, np.uint8)
            marks[3, 20, 15:25] = 2
            return marks

        def solve(self, marks):
            self.asked.append(marks.copy())
            guess = np.zeros_like(truth)
            guess[marks.any(axis=(1, 2))] = truth[marks.any(axis=(1, 2))]
            return 0.0, guess

    bench = FakeBench()
    assert users.simulated_user(bench, users.WORST, 2, 0) == pytest.approx(
        [2 / 6, 4 / 7, 6 / 8], abs=1e-6
    )
    worst = bench.asked[-1]
    monkeypatch.setitem(users.CHOICES, users.CHANCE, lambda *_: 4)
    users.simulated_user(bench, users.CHANCE, 1, 3)
    by_chance = bench.asked[-1]
    users.simulated_user(bench, users.SUGGESTED, 1, 0)
    np.testing.assert_array_equal(bench.asked[-1], by_chance)
    np.testing.assert_array_equal(worst[4], by_chance[4])
    assert set(np.unique(by_chance[4, 14:26, 14:26])) == {0, 2}  # corrected, too
    scores = users.simulated_user(bench, users.CORRECTS, 1, 0)
    assert scores[1] > scores[0]
    assert set(np.unique(bench.asked[-1])) <= {0, 1, 2}


def test_fast_grow_cut_takes_the_seed_of_the_shortest_path(rng):
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    from fast_grow_cut import fast_grow_cut

    shape = (3, 5, 6)
    image = rng.random((1, *shape), np.float32)
    marks = np.zeros(shape, np.uint8)
    marks[0, 0, 0], marks[2, 4, 5], marks[1, 2, 0] = 1, 2, 2
    voxels = np.argwhere(np.ones(shape, bool))
    near = np.abs(voxels[:, None] - voxels[None]).max(axis=-1) == 1
    one, other = np.nonzero(near)
    flat = image.reshape(-1).astype(float)
    graph = coo_matrix((np.abs(flat[one] - flat[other]), (one, other)), [len(flat)] * 2).tocsr()
    seeds = np.flatnonzero(marks)
    nearest = seeds[dijkstra(graph, indices=seeds).argmin(axis=0)]
    expected = marks.reshape(-1)[nearest].reshape(shape).astype(int) - 1
    np.testing.assert_array_equal(fast_grow_cut(image, marks, (1.0, 1.0, 1.0)), expected)
    # Where the way counts most, the nearest seed wins.
    far = fast_grow_cut(image, marks, (1.0, 1.0, 1.0), seed_locality=100.0)
    assert far[0, 0, 1] == 0
    assert far[2, 4, 4] == 1


def test_random_groups_touch_and_leave_out_what_cases_have():
    from segmentation_wide import KINDS, LEAST, contacts, draw_groups, taken

    kind = next(kind for kind in KINDS if "ct_totalseg" in kind.mask)
    # Slabs of thirty labels, one of them too small; some belong to cases.
    labels = np.repeat(np.arange(1, 31), 8)[None, None] * np.ones((6, 6, 1), int)
    labels[:, :, labels[0, 0] == 30] = 29
    labels[0, 0, -1] = 30
    groups = draw_groups(labels, kind)
    assert groups == draw_groups(labels, kind)
    drawn = [v for group in groups for v in group]
    assert len(drawn) == len(set(drawn)) > 1
    assert not taken(kind.mask) & set(drawn)
    assert 30 not in drawn
    assert all((labels == v).sum() >= LEAST for v in drawn)
    faces = contacts(labels)
    assert faces[1, 2] == 36
    for group in groups:
        assert all(any(faces.get((min(v, w), max(v, w))) for w in group) for v in group[1:])
