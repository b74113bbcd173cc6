"""The case "hyperbolic": the tree of parts in hyperbolic and flat space, given and learned."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.hierarchy import PartTree, embed_parts, hyperbolic, part_features, part_tree
from suite.discover_case import Case, cases
from suite.registry import Context
from suite.results import CaseResult, Ratio, Table

PARTS = 150
SPACES = ("euclidean", "poincare")
MARGIN, BATCH = 0.2, 512


def parts_of(tree: PartTree) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the nodes of a cut, and the part of every leaf."""
    cut = tree.cut(PARTS)
    return np.array(cut.nodes), cut.leaf_part


def common_heights(tree: PartTree, nodes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the cost at which every pair of nodes is joined, (P, P)."""
    heights = np.zeros((len(nodes), len(nodes)))
    chains = [set(tree.ancestors(int(n)).tolist()) for n in nodes]
    for a in range(len(nodes)):
        for b in range(a):
            heights[a, b] = heights[b, a] = tree.height[min(chains[a] & chains[b])]
    return heights


def triplets(heights: NDArray[Any], chosen: NDArray[Any], count: int, seed: int) -> NDArray[Any]:
    """Return (anchor, nearer, further) by the tree, (T, 3), among chosen parts."""
    rng = np.random.default_rng(seed)
    found = chosen[rng.integers(len(chosen), size=(count, 3))]
    near, far = heights[found[:, 0], found[:, 1]], heights[found[:, 0], found[:, 2]]
    swap = near > far
    found[swap] = found[swap][:, [0, 2, 1]]
    different = (found[:, 0] != found[:, 1]) & (found[:, 1] != found[:, 2])
    return found[(near != far) & different & (found[:, 0] != found[:, 2])]


def learn(
    features: NDArray[Any], heights: NDArray[Any], known: NDArray[Any], dim: int, space: str,
    seed: int, steps: int,
) -> NDArray[np.float64]:  # fmt: skip
    """Train an encoder on triplets of known parts; return the points of all parts."""
    import torch

    mean, spread = features[known].mean(axis=0), features[known].std(axis=0) + 1e-9
    x = torch.from_numpy((features - mean) / spread)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], 64), torch.nn.ReLU(), torch.nn.Linear(64, 64),
            torch.nn.ReLU(), torch.nn.Linear(64, dim),
        ).double()  # fmt: skip

    def place(rows: Any) -> Any:
        flat = network(rows)
        if space == "euclidean":
            return flat
        length = flat.norm(dim=1, keepdim=True).clamp_min(1e-9)
        return torch.tanh(length / 2) / length * flat

    def distance(a: Any, b: Any) -> Any:
        squared = ((a - b) ** 2).sum(dim=1)
        if space == "euclidean":
            return (squared + 1e-12).sqrt()
        room = (1 - (a**2).sum(dim=1)).clamp_min(1e-9) * (1 - (b**2).sum(dim=1)).clamp_min(1e-9)
        return 2 * torch.asinh((squared / room + 1e-12).sqrt())

    optimizer = torch.optim.Adam(network.parameters(), 1e-2 if space == "euclidean" else 3e-3)
    for step in range(steps):
        found = torch.from_numpy(triplets(heights, known, BATCH, seed + 1 + step))
        points = place(x)
        near = distance(points[found[:, 0]], points[found[:, 1]])
        far = distance(points[found[:, 0]], points[found[:, 2]])
        loss = torch.relu(near - far + MARGIN).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        return np.asarray(place(x).numpy())


def pair_distances(points: NDArray[Any], space: str) -> NDArray[np.float64]:
    """Return the distances of all points, (P, P)."""
    if space == "poincare":
        return hyperbolic.distance(points[:, None], points[None])
    return np.asarray(np.linalg.norm(points[:, None] - points[None], axis=-1))


def right_order(distances: NDArray[Any], found: NDArray[Any]) -> float:
    """Return the share of triplets whose nearer part is nearer."""
    return float(
        (distances[found[:, 0], found[:, 1]] < distances[found[:, 0], found[:, 2]]).mean()
    )


def best_nodes(
    distances: NDArray[Any], leaf_part: NDArray[Any], tree: PartTree, masks: dict[str, Any]
) -> float:
    """Return the Dice of the best node of average linkage, mean over masks."""
    from scipy.cluster.hierarchy import average
    from scipy.spatial.distance import squareform

    np.fill_diagonal(distances, 0)
    joins = average(squareform((distances + distances.T) / 2, checks=False))[:, :2].astype(int)
    count = len(distances)
    part = leaf_part[tree.cells]
    sizes = np.bincount(part.reshape(-1), minlength=count).astype(float)
    scores = []
    for mask in masks.values():
        inside = np.bincount(part[mask], minlength=count).astype(float)
        values, total = [*zip(inside, sizes, strict=True)], mask.sum()
        for a, b in joins:
            values.append((values[a][0] + values[b][0], values[a][1] + values[b][1]))
        scores.append(max(2 * i / (s + total) for i, s in values))
    return float(np.mean(scores))


@dataclass(frozen=True)
class Measured:
    """Rows of both tables for one image, and the numbers by image, dimensions and space."""

    given: list[tuple[str, ...]]
    learned: list[tuple[str, ...]]
    numbers: dict[str, dict[str, float]]


def measure_case(case: Case, context: Context) -> Measured:
    """Embed the parts of one image by optimization and by an encoder, in both spaces."""
    from napari_medgs.segmentation.api import FIT_PARAMS, fit_for_segmentation

    volume, masks = case.load(context)
    tree = part_tree(volume, field=fit_for_segmentation(volume, FIT_PARAMS))
    nodes, leaf_part = parts_of(tree)
    heights = common_heights(tree, nodes)
    features = part_features(tree, volume.data)[nodes]
    parts = np.random.default_rng(context.seed).permutation(len(nodes))
    known, left_out = parts[: 2 * len(parts) // 3], parts[2 * len(parts) // 3 :]
    held = triplets(heights, left_out, 20_000, context.seed)

    def row(dim: str, what: str, order: float, distances: NDArray[Any]) -> tuple[str, ...]:
        dice = best_nodes(distances.copy(), leaf_part, tree, masks)
        return case.name, dim, what, f"{order:.3f}", f"{dice:.3f}"

    plain = pair_distances(features, "euclidean")
    found = Measured(
        [],
        [
            row("-", "features, no encoder", right_order(plain, held), plain),
            row("-", "the tree itself", 1.0, heights),
        ],
        {},
    )
    for dim in (2,) if context.quick else (2, 4, 8):
        for space in SPACES:
            before = time.process_time()
            e = embed_parts(tree, dim, space, count=min(PARTS, len(nodes)))  # type: ignore[arg-type]
            spent = time.process_time() - before
            where = np.array([int(np.flatnonzero(e.nodes == n)[0]) for n in nodes])
            decoded = best_nodes(pair_distances(e.points[where], space), leaf_part, tree, masks)
            found.given.append(
                (case.name, str(dim), space, f"{e.distortion:.3f}", f"{e.rank_correlation:.3f}",
                 f"{decoded:.3f}", f"{spent:.1f}")
            )  # fmt: skip
            steps = 20 if context.quick else 400
            points = learn(features, heights, known, dim, space, context.seed, steps)
            distances = pair_distances(points, space)
            order = right_order(distances, held)
            found.learned.append(row(str(dim), space, order, distances))
            found.numbers[f"{case.name}, {dim}, {space}"] = {
                "distortion": e.distortion, "rank correlation": e.rank_correlation,
                "decoded": decoded, "held-out order": order,
                "dice": float(found.learned[-1][-1]),
            }  # fmt: skip
            context.say(f"  {case.name} {dim} {space}: {e.distortion:.3f}, order {order:.3f}")
    return found


def run(context: Context) -> CaseResult:
    """Run the case; a few minutes."""
    from napari_medgs._util.threads import limit_threads

    wanted = ("spinal cord T2",) if context.quick else ("abdominal CT", "glioma MR, 4 contrasts")
    given: list[tuple[str, ...]] = []
    learned: list[tuple[str, ...]] = []
    numbers: dict[str, dict[str, float]] = {}
    for case in cases(context.quick):
        if case.name not in wanted:
            continue
        with limit_threads(context.threads):
            found = measure_case(case, context)
        given += found.given
        learned += found.learned
        numbers |= found.numbers
    ratios = [
        Ratio(f"{name.rpartition(',')[0]} dimensions, distortion", "flat space",
              values["distortion"],
              numbers[name.replace("poincare", "euclidean")]["distortion"])
        for name, values in numbers.items() if name.endswith("poincare")
    ]  # fmt: skip
    return CaseResult(
        "hyperbolic",
        "the tree of parts in hyperbolic and flat space",
        ratios=ratios,
        tables=[
            Table("Parts as points, by optimization",
                  ("image", "dimensions", "space", "distortion", "rank correlation",
                   "Dice of decoded nodes", "CPU s"), tuple(given)),
            Table("An encoder of features, by triplets from the tree",
                  ("image", "dimensions", "space", "held-out triplets in order",
                   "Dice of decoded nodes"), tuple(learned)),
        ],
        notes=[
            "Distortion: mean relative error of the distances of all pairs. Decoded: average "
            "linkage of the distances, Dice of the best node, mean over the targets of the case "
            "discover.",
            f"Encoder: two hidden layers of 64, 400 steps of {BATCH} triplets of two thirds of "
            f"the {PARTS} parts, margin {MARGIN}; the order is measured on the other third. One "
            "seed.",
        ],
        numbers=numbers,
    )  # fmt: skip
