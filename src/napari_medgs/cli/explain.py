"""``--explain`` and ``--ranking``: what every contrast contributes to every class, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, Any

import typer

from napari_medgs._util.naming import naming
from napari_medgs.cli.report import label_title
from napari_medgs.errors import ParameterError

if TYPE_CHECKING:
    from napari_medgs.segmentation import ContrastExplanation


@dataclass(frozen=True)
class Explain:
    """That contributions are wanted, and the rankings to compare them with.

    Attributes
    ----------
    rankings : dict of int to tuple of str
        By label value the contrasts, the most important one for a reader first.
    """

    rankings: dict[int, tuple[str, ...]] = dataclass_field(default_factory=dict)

    @classmethod
    def of_options(cls, wanted: bool, rankings: Sequence[str]) -> Explain | None:
        """Return what the options ask for; None for nothing.

        Raises
        ------
        typer.BadParameter
            For a ranking that is not written as it should be.
        """
        found: dict[int, tuple[str, ...]] = {}
        for text in rankings:
            label, _, rest = text.partition("=")
            names = tuple(name.strip() for name in rest.split(",") if name.strip())
            if not label.strip().isdigit() or len(names) < 2 or len(set(names)) < len(names):
                raise typer.BadParameter(
                    f"--ranking {text!r}: write LABEL=CONTRAST,CONTRAST,... with the most "
                    "important contrast first, each once."
                )
            found[int(label)] = names
        if found and not wanted:
            raise typer.BadParameter("--ranking is for --explain.")
        return cls(found) if wanted else None

    def check(self, images: Sequence[str], contrasts: Sequence[str]) -> None:
        """Refuse images that cannot be explained, and rankings of other contrasts.

        Raises
        ------
        ParameterError
            Naming the image or the ranking.
        """
        from napari_medgs.segmentation.explain import check_explainable

        with naming(image=list(images)):
            check_explainable(len(contrasts))
        for label, names in self.rankings.items():
            if set(names) != set(contrasts):
                raise ParameterError(
                    f"--ranking of {label} names {', '.join(names)}; the contrasts are "
                    f"{', '.join(contrasts)}."
                )

    def numbers(self, found: ContrastExplanation) -> dict[str, Any]:
        """Return the contributions by class, with the agreement with the rankings."""
        from napari_medgs.metrics import ranking_agreement

        numbers = found.to_dict()
        for label, names in self.rankings.items():
            if str(label) in numbers:
                ranks = [names.index(contrast) + 1 for contrast in found.contrasts]
                shapley = found.shapley[:, found.classes.index(label)]
                numbers[str(label)]["ranking_agreement"] = ranking_agreement(shapley, ranks)
        return numbers


def contrast_rows(metrics: Mapping[str, Any], names: Mapping[int, str]) -> list[tuple[str, str]]:
    """Return one line for every class: the contrasts by their contribution, largest first."""
    rows = []
    for value, numbers in metrics.get("contrasts", {}).items():
        shares = sorted(numbers["shapley"].items(), key=lambda pair: -pair[1])
        weights = {c: f" (weight {w:.2f})" for c, w in numbers.get("weights", {}).items()}
        text = ", ".join(f"{c} {share:+.3f}{weights.get(c, '')}" for c, share in shares)
        if "ranking_agreement" in numbers:
            text += f"; agreement with the ranking {numbers['ranking_agreement']:.2f}"
        rows.append((f"contrasts of {label_title(int(value), names)}", text))
    return rows
