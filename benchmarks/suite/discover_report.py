"""Tables and notes of the case "discover"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from suite.results import Ratio, Table

if TYPE_CHECKING:
    from suite.discover_case import Scores

ORGANS = ("spleen", "kidney right", "kidney left", "liver", "bladder")
NAME = "Gaussian cells, this cost"


def _is_hippocampus(row: Scores) -> bool:
    return row.case.name.startswith("hippocampus")


def _three(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"


def ratios(rows: list[Scores]) -> list[Ratio]:
    """Return ours against every baseline: mean Dice of the best region, same targets."""
    names = dict.fromkeys(name for row in rows for name in row.baselines)
    out = []
    for name in names:
        both = [row for row in rows if name in row.baselines]
        ours = float(np.mean([row.node for row in both]))
        theirs = float(np.mean([row.baselines[name][0] for row in both]))
        what = f"Dice of the best region, mean over {len(both)} targets"
        out.append(Ratio(what, name, ours, theirs, better="higher"))
    return out


def _means(rows: list[Scores]) -> list[tuple[str, list[Scores]]]:
    """Group targets: one row each, hippocampi of one split together."""
    groups: dict[tuple[str, str], list[Scores]] = {}
    for row in rows:
        name = "hippocampi" if _is_hippocampus(row) else row.case.name
        target = "hippocampus" if _is_hippocampus(row) else row.target
        groups.setdefault((f"{name} ({row.case.kind}, {row.case.split})", target), []).append(row)
    return [(f"{name}: {target}", group) for (name, target), group in groups.items()]


def tables(rows: list[Scores], times: list[tuple[str, dict[str, Any]]]) -> list[Table]:
    """Return all tables."""
    return [_targets(rows), _summary(rows), _costs(rows), _needed(rows), _times(times)]


def _targets(rows: list[Scores]) -> Table:
    lines = []
    for name, group in _means(rows):
        count = f" (mean of {len(group)})" if len(group) > 1 else ""
        distances = [d for row in group for d in row.distance]
        lines.append(
            (
                name + count,
                *(
                    _three(float(np.mean([getattr(row, key) for row in group])))
                    for key in ("node", "rendered", "best_level", "preselected")
                ),
                f"{np.mean([row.levels for row in group]):.3g}",
                f"{np.median(distances):.3g}, {max(distances)}",
            )
        )
    columns = (
        "image (masks, settings): target",
        "best node, cells",
        "best node, rendered",
        "best level",
        "preselected",
        "levels",
        "levels away: median, most",
    )
    return Table("One node for one target, Dice", columns, tuple(lines))


def _summary(rows: list[Scores]) -> Table:
    def line(name: str, chosen: list[Scores]) -> tuple[str, ...]:
        if not chosen:
            return (name, "0", "-", "-", "-", "-")
        distances = [d for row in chosen if row.best_level >= 0.5 for d in row.distance]
        away = f"{np.median(distances):.3g}, {max(distances)}" if distances else "-"
        return (
            name,
            str(len(chosen)),
            _three(float(np.mean([row.rendered for row in chosen]))),
            _three(float(np.mean([row.best_level for row in chosen]))),
            _three(float(np.mean([row.preselected for row in chosen]))),
            away,
        )

    ct = [r for r in rows if r.case.name == "abdominal CT" and r.target in ORGANS]
    glioma = [r for r in rows if r.case.name.startswith("glioma")]
    lines = (
        line("liver, spleen, kidneys, bladder of the abdominal CT", ct),
        line("whole tumor and core of the glioma",
             [r for r in glioma if r.target in ("whole tumor", "core")]),
        line("five parts of the glioma", glioma),
        line("all targets of images that settings were chosen on",
             [r for r in rows if r.case.split == "tune"]),
        line("all targets of the other images", [r for r in rows if r.case.split == "report"]),
    )  # fmt: skip
    columns = (
        "targets", "number", "best node", "best level", "preselected", "levels away, if found",
    )  # fmt: skip
    return Table("Means, rendered masks", columns, lines)


def _costs(rows: list[Scores]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row.baselines))
    images = list(dict.fromkeys(
        "hippocampi" if _is_hippocampus(row) else row.case.name for row in rows
    ))  # fmt: skip
    lines = []
    for image in images:
        group = [
            r for r in rows
            if (_is_hippocampus(r) if image == "hippocampi" else r.case.name == image)
        ]  # fmt: skip
        cells = [_three(float(np.mean([row.node for row in group])))]
        for name in names:
            found = [row.baselines[name][0] for row in group if name in row.baselines]
            cells.append(_three(float(np.mean(found))) if found else "-")
        lines.append((f"{image} ({len(group)})", *cells))
    return Table(
        "Dice of the best region (cells, mean over the targets of an image)",
        ("image (targets)", NAME, *names),
        tuple(lines),
    )


def _needed(rows: list[Scores]) -> Table:
    names = [n for n in dict.fromkeys(n for row in rows for n in row.baselines)
             if "k-means" not in n]  # fmt: skip
    lines = []
    for row in rows:
        if _is_hippocampus(row) or (row.nodes_needed is None and row.node < 0.6):
            continue
        others = [row.baselines.get(name, (0.0, None))[1] for name in names]
        cells = ["-" if k is None else f"{k:,}" for k in (row.nodes_needed, *others)]
        lines.append((f"{row.case.name}: {row.target}", *cells))
    return Table("Nodes that reach Dice 0.85 together", ("target", NAME, *names), tuple(lines))


def _times(times: list[tuple[str, dict[str, Any]]]) -> Table:
    lines = []
    for name, numbers in times:
        hover = [numbers[f"hover {axis}"] for axis in range(3)]
        wall, cpu = max(h[0] for h in hover), max(h[1] for h in hover)
        lines.append(
            (
                name,
                f"{numbers['gaussians']:,}",
                f"{numbers['tree'][1]:.2f} ({numbers['tree'][0]:.2f})",
                f"{1000 * cpu:.1f} ({1000 * wall:.1f})",
                f"{1000 * numbers['mask'][1]:.0f} ({1000 * numbers['mask'][0]:.0f})",
            )
        )
    columns = ("image", "Gaussians", "tree, s", "hover to outline, ms", "node to 3D mask, ms")
    return Table("Times on one thread, CPU (wall)", columns, tuple(lines))


def notes() -> list[str]:
    """Return how it was measured."""
    return [
        "Best node: the node of the tree with the highest Dice, found with the truth: what a user "
        "reaches who stops at the right size. Best level: the same among the sizes that the wheel "
        "offers at the target's deepest voxel. Preselected: the size shown first. Levels away: "
        "between the preselected size and the best one, over five clicks (the deepest voxel and "
        "four random ones at half its depth or more); in the table of means only for targets "
        "whose best level has Dice 0.5 or more.",
        "Settings (cost, noise, preselection) were chosen on the images marked tune, those for "
        "several contrasts on the glioma alone; the images marked report were scored afterwards. "
        "Masks marked model are the output of other programs: agreement, not accuracy. Single "
        "numbers move by some hundredths with small changes of the settings, because greedy "
        "merging does.",
        "Structures of low contrast are not found (thalamus, brain stem, gray matter of the "
        "cord), nor are those smaller than a cell (MS lesions), nor bones whose marrow differs "
        "from their cortex.",
        "Baselines on the same Gaussian cells, their boundaries and the same contrasts: watershed "
        "hierarchies, average linkage of boundary strength (an ultrametric contour map) and Ward "
        "linkage of the library higra; connected pieces of k-means classes. SLIC: as many "
        "supervoxels of scikit-image as there are cells (compactness 0.1, contrasts to unit "
        "variance), merged with the same cost. SLIC is left out above 2 million voxels, the "
        "linkages above 45,000 cells, where each takes minutes.",
        "Nodes that reach Dice 0.85 together: largest nodes of some least purity, those with most "
        "of the target first, the best of five purities.",
    ]
