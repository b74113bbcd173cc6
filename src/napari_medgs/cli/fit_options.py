"""Options that ``fit`` and ``fit-many`` share, made from the declarations in FitParams."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from napari_medgs._util.settings import settings_of
from napari_medgs.cli.setting_options import takes_settings
from napari_medgs.fitting.params import FitParams

NAMES = (
    "gaussians",
    "fold",
    "blend",
    "slice_axis",
    "quality",
    "time_limit",
    "iterations",
    "holdout",
    "interpolate",
    "empty_slices_unlabeled",
    "lambda_img",
    "lambda_seg",
    "loss",
    "percentiles",
    "seed",
    "backend",
)
"""The settings of a fit that are options, in the order of the help page."""


def parse_holdout(text: str) -> int:
    """Read ``every:K``.

    Raises
    ------
    typer.BadParameter
        When the text is written otherwise or K is below 2.
    """
    match = re.fullmatch(r"every:(\d+)", text)
    if match is None or int(match[1]) < 2:
        raise typer.BadParameter(f"{text!r}: write every:K with K of 2 or more.")
    return int(match[1])


_HOLDOUT = settings_of(FitParams)["holdout"]
HoldoutOption = Annotated[
    Any,
    typer.Option(
        metavar=_HOLDOUT.metavar,
        parser=parse_holdout,
        help=_HOLDOUT.help,
        show_default=_HOLDOUT.none,
        rich_help_panel=_HOLDOUT.group,
    ),
]


def takes_fit_params(*more: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options of a fit as one ``params``.

    Parameters
    ----------
    *more : str
        Further settings of :class:`~napari_medgs.fitting.params.FitParams` that are options.

    Returns
    -------
    callable
        See :func:`~napari_medgs.cli.setting_options.takes_settings`.
    """
    return takes_settings(FitParams, (*NAMES, *more), {"holdout": HoldoutOption})
