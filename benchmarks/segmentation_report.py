"""The tables of the segmentation benchmark."""

from __future__ import annotations

from typing import Any

import numpy as np
from segmentation_baselines import BASELINES, OURS

from napari_medgs.benchmark.results import CaseResult, Ratio, Table, plain


def grouped(records: dict[str, Any]) -> dict[str, list[str]]:
    """Return names by group: all hippocampi count as one case, the others one each."""
    groups: dict[str, list[str]] = {}
    for name in records:
        groups.setdefault(name.split("_")[0] if "hippo" in name else name, []).append(name)
    return groups


def mean_of(records: dict[str, Any], names: list[str], count: int, method: str, key: str) -> float:
    """Return the mean over cases and seeds of one method, NaN where it never finished."""
    values = [
        run[key]
        for name in names
        for run in records[name]["strokes"][count].get(method, [])
        if key in run
    ]
    return float(np.mean(values)) if values else float("nan")


def summarise(
    records: dict[str, Any], slices: list[int], methods: list[str], limit: float
) -> CaseResult:
    """Turn records into tables and ratios."""
    result = CaseResult("segmentation", "segmentation: strokes and painted slices to masks")
    groups = grouped(records)
    shown = [m for m in (OURS, *BASELINES) if m in methods]
    rows: list[tuple[Any, ...]] = []
    means: dict[tuple[str, int], float] = {}
    for count in slices:
        for name, members in groups.items():
            cells = [mean_of(records, members, count, m, "dice") for m in shown]
            rows.append((name, count, *(_cell(c) for c in cells)))
        for m in shown:
            every = [mean_of(records, members, count, m, "dice") for members in groups.values()]
            means[m, count] = float(np.nanmean(every)) if np.isfinite(every).any() else np.nan
        rows.append(("mean", count, *(_cell(means[m, count]) for m in shown)))
    result.tables.append(Table("Dice, strokes", ("case", "slices", *shown), tuple(rows)))
    rows = []
    for count in slices:
        every = {
            m: [
                (
                    mean_of(records, members, count, m, "hd95"),
                    mean_of(records, members, count, m, "seconds"),
                )
                for members in groups.values()
            ]
            for m in shown
        }
        for k, title, form in ((0, "HD95 mm", ".1f"), (1, "s, median", ".2f")):
            middle = np.nanmean if k == 0 else np.nanmedian
            cells = [f"{middle([v[k] for v in every[m]]):{form}}" for m in shown]
            rows.append((count, title, *cells))
    result.tables.append(Table("Distance and latency", ("slices", "", *shown), tuple(rows)))
    for m in shown[1:]:
        for count in slices:
            pairs = [
                (a, b)
                for members in groups.values()
                if np.isfinite(b := mean_of(records, members, count, m, "dice"))
                and np.isfinite(a := mean_of(records, members, count, OURS, "dice"))
            ]
            if not pairs:
                continue
            won = sum(a >= b for a, b in pairs)
            late = len(groups) - len(pairs)
            result.ratios.append(
                Ratio(
                    f"mean Dice, strokes on {count} slices",
                    m,
                    float(np.mean([a for a, _ in pairs])),
                    float(np.mean([b for _, b in pairs])),
                    better="higher",
                    note=f"better or equal in {won} of {len(pairs)} cases"
                    + (f"; not done in {limit:.0f} s in {late}" if late else ""),
                )
            )
    painted = [c for c in slices if c > 1]
    rows = []
    for count in painted:
        for name, members in groups.items():
            cells = [
                np.mean([records[n]["painted"][count][m]["dice"] for n in members])
                for m in (OURS, "signed distance")
            ]
            rows.append((name, count, *(_cell(c) for c in cells)))
    result.tables.append(
        Table("Dice, painted slices", ("case", "slices", OURS, "signed distance"), tuple(rows))
    )
    rows = [
        (name, *(f"{np.mean([records[n]['auc'][c] for n in members]):.3f}" for c in slices))
        for name, members in groups.items()
    ]
    result.tables.append(
        Table("Uncertainty: area under the curve for wrong voxels",
              ("case", *(f"{c} slices" for c in slices)), tuple(rows))
    )  # fmt: skip
    users = {n: r["user"] for n, r in records.items() if "user" in r}
    if users:
        rows = []
        for kind in ("error", "suggested", "random"):
            curve = np.mean(
                [
                    np.mean([users[n][kind] for n in members], axis=0)
                    for members in groups.values()
                ],
                axis=0,
            )
            rows.append((kind, *(f"{v:.3f}" for v in curve)))
        result.tables.append(
            Table("Mean Dice by rounds of a simulated user, from one slice on",
                  ("user", *(str(k) for k in range(len(rows[0]) - 1))), tuple(rows))
        )  # fmt: skip
    splits = {r["split"] for r in records.values()}
    result.notes = [
        "Strokes: 70 % of each class's skeleton, an arc around, three wavy background lines, on "
        "1, 3 or 5 slices; seeds fixed. All hippocampi count as one case. Settings were chosen "
        "on the cases of the split 'tune' (spleen, aorta, pelvis, cord_t1, six hippocampi); shown "
        f"here: {', '.join(sorted(splits))}.",
        "Random walker: scikit-image, cg_j, beta 130. Random forest: 100 trees on "
        "multiscale_basic_features, 1 to 8 voxels. Voxel geodesic: MCP_Geometric on the gradient "
        "magnitude, a class at a time. Watershed: the nearest well-kept method to grow-cut. "
        f"Each had {limit:.0f} s; what was not done by then has no Dice. Ours: one full update, "
        "fit and set-up apart.",
    ]
    result.numbers = plain(records)
    return result


def _cell(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"
