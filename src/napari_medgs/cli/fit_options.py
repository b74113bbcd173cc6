"""Options of a fit that ``fit`` and ``fit-many`` share; their defaults are FitParams' own."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Annotated, Any

import typer

from napari_medgs.cli.options import BackendOption, SeedOption
from napari_medgs.fitting.params import FitParams

MODEL, LOSS, STOP = "Model", "Loss", "When to stop"


class Blend(StrEnum):
    """How overlapping Gaussians combine."""

    normalized = "normalized"
    sum = "sum"
    alpha = "alpha"


class Loss(StrEnum):
    """Image errors."""

    l2 = "l2"
    l1 = "l1"


def every(text: str) -> int:
    """Read ``every:K``."""
    match = re.fullmatch(r"every:(\d+)", text)
    if match is None or int(match[1]) < 2:
        raise typer.BadParameter(f"{text!r}: write every:K with K of 2 or more.")
    return int(match[1])


GaussiansOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=20_000_000,
        help="How many.",
        show_default="by the size of the foreground",
        rich_help_panel=MODEL,
    ),
]
FoldOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=3,
        help="Degree of the polynomial by which Gaussians bend from slice to slice.",
        rich_help_panel=MODEL,
    ),
]
BlendOption = Annotated[
    Blend, typer.Option(help="How overlapping Gaussians combine.", rich_help_panel=MODEL)
]
SliceAxisOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=2,
        help="Fold along z (0), y (1) or x (2).",
        show_default="the coarsest",
        rich_help_panel=MODEL,
    ),
]
QualityOption = Annotated[
    float | None,
    typer.Option(
        min=5,
        max=100,
        metavar="DB",
        help="Stop at this PSNR; Gaussians are added until it is reached.",
        rich_help_panel=STOP,
    ),
]
TimeLimitOption = Annotated[
    float | None,
    typer.Option(min=0.01, metavar="S", help="Stop after seconds.", rich_help_panel=STOP),
]
IterationsOption = Annotated[
    int,
    typer.Option(min=1, max=100_000, help="Steps of one round.", rich_help_panel=STOP),
]
HoldoutOption = Annotated[
    Any,
    typer.Option(
        metavar="every:K",
        parser=every,
        help="Fit every K-th slice only; report the quality of the slices between.",
        rich_help_panel=LOSS,
    ),
]
InterpolateOption = Annotated[
    bool | None,
    typer.Option(
        "--interpolate/--no-interpolate",
        help="Fit what must lie between the slices too, along the motion of the structures.",
        show_default="where slices are left out or lie far apart",
        rich_help_panel=LOSS,
    ),
]
EmptyUnlabelledOption = Annotated[
    bool,
    typer.Option(
        "--empty-slices-unlabelled",
        help="The mask was painted on some slices only: where it is empty it says nothing.",
        rich_help_panel=LOSS,
    ),
]
LambdaImgOption = Annotated[
    float, typer.Option(min=0, help="Weight of the image's errors.", rich_help_panel=LOSS)
]
LambdaSegOption = Annotated[
    float, typer.Option(min=0, help="Weight of the mask's errors.", rich_help_panel=LOSS)
]
LossOption = Annotated[
    Loss, typer.Option(help="Squared or absolute image errors.", rich_help_panel=LOSS)
]
PercentilesOption = Annotated[
    tuple[float, float],
    typer.Option(
        metavar="LOW HIGH",
        help="Intensities at these percentiles become 0 and 1.",
        rich_help_panel=LOSS,
    ),
]


OPTIONS: dict[str, Any] = {
    "gaussians": GaussiansOption,
    "fold": FoldOption,
    "blend": BlendOption,
    "slice_axis": SliceAxisOption,
    "quality": QualityOption,
    "time_limit": TimeLimitOption,
    "iterations": IterationsOption,
    "holdout": HoldoutOption,
    "interpolate": InterpolateOption,
    "empty_slices_unlabelled": EmptyUnlabelledOption,
    "lambda_img": LambdaImgOption,
    "lambda_seg": LambdaSegOption,
    "loss": LossOption,
    "percentiles": PercentilesOption,
    "seed": SeedOption,
    "backend": BackendOption,
}


def takes_fit_params(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all options of a fit.

    Parameters
    ----------
    command : callable
        Has a parameter ``params``, which gets the options as one
        :class:`~napari_medgs.fitting.params.FitParams`; they stand in its place in the help.

    Returns
    -------
    callable
        With the signature that typer reads.
    """
    defaults = FitParams()
    options = []
    for name, annotation in OPTIONS.items():
        default = getattr(defaults, name)
        kind = annotation.__origin__
        if isinstance(kind, type) and issubclass(kind, Enum):
            default = kind(default)
        options.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
        )
    own = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in own.parameters.values():
        if parameter.name == "params":
            parameters += options
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def run(**values: Any) -> None:
        chosen = {name: values.pop(name) for name in OPTIONS}
        plain = {n: v.value if isinstance(v, Enum) else v for n, v in chosen.items()}
        command(params=FitParams(**plain), **values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    return run
