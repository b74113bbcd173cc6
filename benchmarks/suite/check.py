"""The regression guard: ratios of a run against the stored ones; seconds are never compared.

A ratio is ours against a baseline of the same run on the same machine, so it says the same on a
slow machine as on a fast one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from napari_medgs.errors import FileError
from suite.results import plain

TOLERANCE = 0.7  # shares of ratios below this are no noise


def _key(ratio: dict[str, Any]) -> tuple[str, str]:
    """Name a ratio; how many Gaussians a fit ended with does not belong to the name."""
    return re.sub(r"[\d,]+ Gaussians", "Gaussians", ratio["what"]), ratio["baseline"]


def load_results(path: Path) -> dict[str, Any]:
    """Return stored results, by case.

    Raises
    ------
    FileError
        When the file is missing or holds something else.
    """
    try:
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"]
        return {name: dict(case) for name, case in cases.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path} holds no results of the benchmark.") from error


def store_results(path: Path, report: dict[str, Any]) -> None:
    """Replace a run's cases in a file of results; other cases stay."""
    from napari_medgs.io._atomic import atomic_path

    cases = load_results(path) if path.is_file() else {}
    for name, case in report["cases"].items():
        cases[name] = {**case, "machine": report["machine"]}
    text = json.dumps(plain({"cases": cases}), indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def compare(
    cases: dict[str, Any], stored: dict[str, Any], tolerance: float = TOLERANCE
) -> tuple[int, list[str]]:
    """Compare the ratios of a run with stored ones.

    Parameters
    ----------
    cases, stored : dict
        Results by case, as in the JSON files.
    tolerance : float
        A ratio may fall to this share of the stored one.

    Returns
    -------
    count : int
        Ratios that are in both.
    falls : list of str
        One line for each that fell further, or is not a number any more.
    """
    count, falls = 0, []
    for name, case in cases.items():
        before = {_key(r): r["ratio"] for r in stored.get(name, {}).get("ratios", [])}
        for ratio in case["ratios"]:
            then, now = before.get(_key(ratio)), ratio["ratio"]
            if then is None:
                continue
            count += 1
            if now is None or now < tolerance * then:
                text = "nothing" if now is None else f"{now:.3g}"
                falls.append(
                    f"{name}: {ratio['what']}, against {ratio['baseline']}: {text} x, "
                    f"was {then:.3g} x"
                )
    return count, falls
