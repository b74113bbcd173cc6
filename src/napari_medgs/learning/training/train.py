"""Train a segmenter on cases: check, prepare, one network on all, one more for every fold."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medgs._optional import require
from napari_medgs._util.progress import (
    ProgressCallback,
    ProgressEvent,
    StopCallback,
    ignore_progress,
    never_stop,
)
from napari_medgs._util.threads import limit_torch_threads
from napari_medgs.errors import (
    Cancelled,
    FileError,
    MedGSError,
    ParameterError,
)
from napari_medgs.learning.card import SegmenterCard
from napari_medgs.learning.data.checks import (
    CaseFacts,
    CheckedCases,
    check_cases,
    look_at,
    reason_of,
)
from napari_medgs.learning.data.prepare import (
    PreparedCase,
    Sizes,
    check_working_spacing,
    needed_bytes,
    plan_sizes,
    prepare_case,
)
from napari_medgs.learning.data.sources import TrainingSource
from napari_medgs.learning.segmenter import Segmenter
from napari_medgs.learning.training.cards import check_continued, make_card
from napari_medgs.learning.training.finish import measured, segmenter_of
from napari_medgs.learning.training.fit import FIRST, check_run, fit_network, precision_for
from napari_medgs.learning.training.folds import default_folds, fold_of_cases, left_out
from napari_medgs.learning.training.params import LearnParams
from napari_medgs.learning.training.time_budget import FOLD_SHARE, TimeBudget
from napari_medgs.learning.trust import describe_input, reference_of

if TYPE_CHECKING:
    from napari_medgs.learning.networks.features import FrozenFeatures

STEPS = 1000
RETRAINING_STEPS = 300


@dataclass(frozen=True)
class LearnResult:
    """A trained segmenter and how it came about.

    Attributes
    ----------
    segmenter : Segmenter
        Its card has the scores.
    left_out : dict of str to str
        Cases that could not be used, with the reason.
    history : dict of str to list of dict
        By network ("all", "fold 1"): step, loss, seconds, and dice where cases were held out.
    stopped_by : {"", "cancelled"}
    seconds : float
    """

    segmenter: Segmenter
    left_out: dict[str, str] = field(default_factory=dict)
    history: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    stopped_by: str = ""
    seconds: float = 0.0


def look_at_cases(
    source: TrainingSource,
    *,
    values: Collection[int] = (),
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> CheckedCases:
    """Read the cases of a data set and tell whether one can train on them.

    Parameters
    ----------
    source : TrainingSource
        From :func:`~napari_medgs.learning.data.sources.find_training_cases`.
    values : collection of int, optional
        The label values to learn.
    progress, should_stop : callable, optional
        Called with a ``ProgressEvent`` after each step; asked between steps whether to stop.

    Returns
    -------
    CheckedCases

    Raises
    ------
    MedGSError
        See :func:`~napari_medgs.learning.data.checks.check_cases`; also where a mask has another
        grid than its image.
    Cancelled
        When ``should_stop`` returned True.
    """
    facts, unread = [], {}
    started = time.perf_counter()
    for number, case in enumerate(source.cases):
        if should_stop():
            raise Cancelled("Training was canceled; no model was written.")
        spent = time.perf_counter() - started
        progress(ProgressEvent("check cases", number, len(source.cases), spent))
        try:
            facts.append(look_at(case))
        except MedGSError as error:
            unread[case.name] = reason_of(error)
    return check_cases(facts, source, unread, values)


def train_segmenter(
    source: TrainingSource | CheckedCases,
    params: LearnParams | None = None,
    *,
    values: Collection[int] = (),
    start: Segmenter | None = None,
    licence: str = "",
    progress: ProgressCallback = ignore_progress,
    should_stop: StopCallback = never_stop,
) -> LearnResult:
    """Train a segmenter.

    Parameters
    ----------
    source : TrainingSource or CheckedCases
    params : LearnParams, optional
    values : collection of int, optional
        The label values to learn, all by default.
    start : Segmenter, optional
        A model of the same contrasts and classes to continue from.
    licence : str
        Of the weights, kept in the card.
    progress, should_stop : callable, optional
        Once it is stopped, the best network so far is returned.

    Returns
    -------
    LearnResult

    Raises
    ------
    MedGSError
        See :func:`look_at_cases`.
    Cancelled
        When ``should_stop`` returned True before there was anything to keep.

    Examples
    --------
    >>> from napari_medgs.learning import LearnParams, find_training_cases, train_segmenter
    >>> cases = find_training_cases("liver/")  # doctest: +SKIP
    >>> train_segmenter(cases, LearnParams(minutes=10)).segmenter.card.dice  # doctest: +SKIP
    """
    params = params or LearnParams()
    require("torch", "lightning", feature="Training")
    check_run(params)
    started = time.perf_counter()
    if isinstance(source, TrainingSource):
        checked = look_at_cases(source, values=values, progress=progress, should_stop=should_stop)
    else:
        checked = source
    with limit_torch_threads(params.threads):
        run = _Run(checked, params, start, licence, started, progress, should_stop)
        return run.train()


class _Run:
    """One training: what all of its networks share."""

    def __init__(
        self,
        checked: CheckedCases,
        params: LearnParams,
        start: Segmenter | None,
        licence: str,
        started: float,
        progress: ProgressCallback,
        should_stop: StopCallback,
    ) -> None:
        import torch

        self.checked, self.params, self.start, self.started = checked, params, start, started
        self.progress, self.should_stop = progress, should_stop
        on_gpu = torch.cuda.is_available() and params.accelerator in ("auto", "gpu", "cuda")
        self.device = "cuda" if on_gpu else "cpu"
        self.frozen: FrozenFeatures | None = None
        self.card = self._card(licence)
        count = default_folds(len(checked.facts)) if params.folds is None else params.folds
        if count > len(checked.facts):
            raise ParameterError(
                f"{count} folds need at least as many cases; there are {len(checked.facts)}."
            )
        if params.polish and not count:
            raise ParameterError(
                f"Whether polishing helps is measured by folds, for which {len(checked.facts)} "
                "cases are too few; leave out --polish."
            )
        self.folds = count
        self.budget = TimeBudget(params, count, started)
        self.precision = ""
        self.reference: dict[str, Any] | None = None
        self.history: dict[str, list[dict[str, float]]] = {}
        self.done_steps: dict[str, int] = {}

    def _card(self, licence: str) -> SegmenterCard:
        """Return the card of the untrained model."""
        checked, params = self.checked, self.params
        if self.start is not None:
            check_continued(self.start.card, checked)
            own: Any = self.start.networks[0].features
            self.frozen = None if own is None else own.frozen
            before = self.start.card  # what was measured, was on its own networks
            return replace(
                before, licence=licence or before.licence, dice={}, training={}, trust={}
            )
        if params.spacing is not None:
            check_working_spacing(checked.facts, params.spacing)
        sizes = plan_sizes(
            checked.facts, self.device, spacing=params.spacing, levels=params.levels
        )
        source = None
        if params.features is not None:
            from napari_medgs.learning.networks.features import load_features

            self.frozen, source = load_features(
                params.features, len(sizes.strides[0]), len(checked.channels)
            )
        return make_card(checked, params, sizes, licence, source)

    def train(self) -> LearnResult:
        """Train all networks."""
        facts = self.checked.facts
        needed = needed_bytes(self.checked, Sizes(self.card.spacing, self.card.patch, (), ()))
        with tempfile.TemporaryDirectory(prefix="medgs-training-") as folder:
            if needed > (free := shutil.disk_usage(folder).free):
                raise FileError(
                    f"{folder}: training needs {needed / 2**30:.1f} GiB for prepared cases, "
                    f"{free / 2**30:.1f} GiB are free; set TMPDIR to a larger disk, or give a "
                    "larger --spacing."
                )
            prepared = self._prepare(facts, Path(folder))
            self.reference = reference_of([describe_input(case.image) for case in prepared])
            seconds = self.budget.of_first()
            held = self._held_out(len(facts))
            shown = [case for k, case in enumerate(prepared) if k not in held]
            checks = [prepared[k] for k in sorted(held)]
            first, canceled = self._network(FIRST, 0, shown, checks, seconds, 1.0)
            states, kept = [first], 0
            groups = self._groups()
            for k in range(self.folds):
                if canceled:
                    break
                out = left_out(k, self.folds)
                inside = [c for c, g in zip(prepared, groups, strict=True) if g not in out]
                outside = [c for c, g in zip(prepared, groups, strict=True) if g in out]
                try:
                    state, canceled = self._network(
                        f"fold {k + 1}", k + 1, inside, outside, seconds, FOLD_SHARE
                    )
                except Cancelled:
                    canceled = True
                if not canceled:
                    states.append(state)
        kept = len(states) - 1 if len(states) - 1 == self.folds else 0
        segmenter = self._finish(states[: 1 + kept], groups if kept else [-1] * len(facts))
        return LearnResult(
            segmenter,
            self.checked.left_out,
            self.history,
            "cancelled" if canceled else "",
            time.perf_counter() - self.started,
        )

    @property
    def continues_folds(self) -> bool:
        """Whether the networks of the folds continue those of the model to start from."""
        return self.start is not None and self.start.card.folds == self.folds > 0

    def _groups(self) -> list[int]:
        """Return the fold of every case; cases of a model that is continued keep theirs."""
        count, folds = len(self.checked.facts), self.folds
        if not folds:
            return []
        if not self.continues_folds or self.start is None:
            return fold_of_cases(count, folds, self.params.seed)
        known = {entry.name: entry.fold for entry in self.start.card.cases}
        found = [known.get(one.case.name, -1) for one in self.checked.facts]
        for k, fold in enumerate(found):
            if not 0 <= fold < folds:  # a new case goes to the smallest fold
                found[k] = min(range(folds), key=found.count)
        return found

    def _prepare(self, facts: Sequence[CaseFacts], folder: Path) -> list[PreparedCase]:
        found = []
        begun = time.perf_counter()
        for number, one in enumerate(facts):
            if self.should_stop():
                raise Cancelled("Training was canceled; no model was written.")
            spent = time.perf_counter() - begun
            self.progress(ProgressEvent("prepare cases", number, len(facts), spent))
            found.append(prepare_case(one, self.card, folder, number, self.params.seed))
        return found

    def _held_out(self, count: int) -> set[int]:
        """Return the cases that the first network is not shown."""
        part = self.params.held_out
        if not part and self.params.patience:
            part = 0.2
        if not part:
            return set()
        number = min(max(1, round(part * count)), count - 1)
        folds = fold_of_cases(count, count, self.params.seed + 1)
        return {k for k, place in enumerate(folds) if place < number}

    def _network(
        self,
        name: str,
        number: int,
        cases: Sequence[PreparedCase],
        checks: Sequence[PreparedCase],
        seconds: float | None,
        share: float,
    ) -> tuple[dict[str, Any], bool]:
        """Train one network; return its weights and whether it was canceled."""
        import torch

        from napari_medgs.learning.networks.segmenter import build_segmenter

        steps = self.params.steps
        if steps is None and seconds is None:
            steps = STEPS if self.start is None else RETRAINING_STEPS
        most = max(1, round(share * steps)) if steps is not None else 10_000_000
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.params.seed * 1000 + number)
            network = build_segmenter(self.card.network, True, self.frozen)
        if self.start is not None:
            known = self.start.networks
            if number < len(known) and (number == 0 or self.continues_folds):
                network.load_state_dict(known[number].state_dict(), strict=False)
        budget = None if seconds is None else seconds * share
        if not self.precision:
            self.precision = precision_for(network, self.card, cases, self.params, self.device)
        found = fit_network(
            network, self.card, self.params, cases, checks, name=name, number=number, steps=most,
            seconds=budget, precision=self.precision, progress=self.progress,
            should_stop=self.should_stop,
        )  # fmt: skip
        self.history[name], self.done_steps[name] = found.history, found.steps
        return found.state, found.canceled

    def _finish(self, states: Sequence[dict[str, Any]], folds: Sequence[int]) -> Segmenter:
        """Return the segmenter with its card, measured on what the folds left out."""
        numbers = {
            **self.params.to_dict(),
            "done_steps": self.done_steps,
            "precision_used": self.precision,
            "device": self.device,
            "continued": self.start is not None,
        }
        untested = segmenter_of(
            states, self.card, self.checked.facts, folds, numbers, self.reference, self.frozen
        )
        tested = measured(
            untested, self.checked.facts, folds, self.params, device=self.device,
            left=self.budget.left, progress=self.progress, should_stop=self.should_stop,
        )  # fmt: skip
        tested.card.training["seconds"] = time.perf_counter() - self.started
        return tested
