"""The training of one network by Lightning: loaders, logs, checkpoints, failures in words."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs._util.threads import default_threads
from napari_medgs.errors import Cancelled, FileError, MemoryEstimateError, ParameterError
from napari_medgs.io._atomic import note_written
from napari_medgs.learning.card import SegmenterCard
from napari_medgs.learning.data.prepare import PreparedCase
from napari_medgs.learning.training.params import LearnParams

if TYPE_CHECKING:
    from napari_medgs.learning.networks.segmenter import SegmenterNetwork

LEAST_STEPS = 20
"""A network that was canceled before is not worth keeping."""
CHECKS = 10
FIRST = "all"
"""Name of the network that learns from all cases."""


@dataclass(frozen=True)
class FittedNetwork:
    """What became of one network.

    Attributes
    ----------
    state : dict
        Weights, on the CPU.
    history : list of dict
        step, loss, seconds, and dice where cases were held out.
    steps : int
    canceled : bool
    """

    state: dict[str, Any]
    history: list[dict[str, float]]
    steps: int
    canceled: bool


def check_run(params: LearnParams) -> None:
    """Refuse what Lightning would refuse after the cases were prepared.

    Raises
    ------
    FileError
        When there is no run to resume.
    ParameterError
        When the hardware is not there, or a package for the logs.
    """
    import lightning

    if params.resume:
        checkpoint = checkpoint_of(params, FIRST)
        if checkpoint is None or not checkpoint.is_file():
            raise FileError(f"{checkpoint}: there is no run to resume.")
    if params.logger == "tensorboard" and params.log_dir:
        known = ("tensorboard", "tensorboardX")
        if not any(importlib.util.find_spec(name) for name in known):
            raise ParameterError(
                "TensorBoard logs need the package tensorboard (pip install tensorboard); CSV "
                "logs need nothing."
            )
    with quiet():
        try:
            lightning.Trainer(
                accelerator=params.accelerator, devices=1, logger=False,
                enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
        except (
            ValueError,
            RuntimeError,
            lightning.fabric.utilities.exceptions.MisconfigurationException,
        ) as error:
            reason = str(error).strip().splitlines()[0]
            raise ParameterError(
                f"The accelerator {params.accelerator!r} cannot be trained on: {reason}"
            ) from None


def checkpoint_of(params: LearnParams, name: str) -> Path | None:
    """Return where the state of a network is kept, None where there is no folder for it."""
    if params.log_dir is None:
        return None
    return Path(params.log_dir) / name.replace(" ", "") / "last.ckpt"


def precision_for(
    network: SegmenterNetwork,
    card: SegmenterCard,
    cases: Sequence[PreparedCase],
    params: LearnParams,
    device: str,
) -> str:
    """Return Lightning's name of the precision: the one asked for, or the faster one."""
    from torch.utils.data import DataLoader

    from napari_medgs.learning.supervision.registry import build_supervision
    from napari_medgs.learning.training.precision import choose_precision

    named = {"32": "32-true", "bf16": "bf16-mixed"}.get(params.precision)
    if named is not None:
        return named
    data = _patches(cases, card, params, 0, params.batch_size)
    batch = next(iter(DataLoader(data, params.batch_size)))
    heads = card.network.supervision.multi_scale
    return choose_precision(network, build_supervision(card.network), batch, device, heads)


def fit_network(
    network: SegmenterNetwork,
    card: SegmenterCard,
    params: LearnParams,
    cases: Sequence[PreparedCase],
    checks: Sequence[PreparedCase],
    *,
    name: str,
    number: int,
    steps: int,
    seconds: float | None,
    precision: str,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> FittedNetwork:
    """Train one network.

    Parameters
    ----------
    network : SegmenterNetwork
        With what its supervision needs.
    card : SegmenterCard
    params : LearnParams
    cases, checks : sequence of PreparedCase
        To learn from, and to be measured on meanwhile.
    name : str
        For reports and logs.
    number : int
        Varies the seed.
    steps : int
        At most.
    seconds : float, optional
        At most.
    precision : str
        Lightning's name.
    progress, should_stop : callable

    Returns
    -------
    FittedNetwork
        The moving average of the weights; where it was stopped early, the best one measured.

    Raises
    ------
    Cancelled
        When it was stopped before there was anything to keep.
    FileError
        When a run cannot be resumed, or the folder of the logs cannot be made.
    MemoryEstimateError
        When memory was not enough.
    """
    import lightning
    import torch

    from napari_medgs.learning.training.module import CLIP_NORM, Conductor, SegmenterModule

    data = _patches(cases, card, params, number, steps * params.batch_size)
    every = max(20, min(200, steps // CHECKS)) if seconds is None else 50
    conductor = Conductor(
        f"train {name}", steps, seconds, every, params.patience, progress, should_stop
    )
    tile = tuple(2 * n for n in card.patch[3 - card.network.ndim :])
    module = SegmenterModule(network, card.network, params, conductor.fraction, checks, tile)
    callbacks: list[Any] = [conductor]
    checkpoint = checkpoint_of(params, name)
    folder = None if checkpoint is None else checkpoint.parent
    if folder is not None:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():
            raise FileError(f"{folder}: the folder of the logs cannot be made.")
        note_written(folder)
        callbacks.append(_checkpoints(folder, every))
    resumed = params.resume and checkpoint is not None and checkpoint.is_file()
    if resumed and checkpoint is not None:
        data.first = _resumed_steps(checkpoint, module, steps) * params.batch_size
    with quiet():
        trainer = lightning.Trainer(
            max_steps=steps, max_epochs=1, accelerator=params.accelerator, devices=1,
            precision=precision, gradient_clip_val=CLIP_NORM,
            logger=_logger(params, folder), callbacks=callbacks,
            enable_checkpointing=folder is not None, enable_progress_bar=False,
            enable_model_summary=False, log_every_n_steps=every,
        )  # fmt: skip
        try:
            trainer.fit(module, _loader(data, params), ckpt_path=checkpoint if resumed else None)
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryEstimateError(
                "The GPU has too little memory; use a smaller --batch-size, --width or a larger "
                "--spacing, or --accelerator cpu."
            ) from error
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise MemoryEstimateError(
                "A process that makes patches died, perhaps for lack of memory; use --workers 0."
            ) from error
    if trainer.interrupted:
        raise KeyboardInterrupt
    done = int(trainer.global_step)
    if conductor.canceled and done < min(LEAST_STEPS, steps):
        raise Cancelled("Training was canceled; no model was written.")
    early = conductor.canceled or (done < steps and seconds is None)
    state = module.average.module.state_dict()
    if early and module.best is not None and module.best[1]:
        state = module.best[1]
    state = {k: v.detach().cpu() for k, v in state.items() if not k.startswith("side_heads.")}
    return FittedNetwork(state, conductor.history, done, conductor.canceled)


def _patches(
    cases: Sequence[PreparedCase],
    card: SegmenterCard,
    params: LearnParams,
    number: int,
    count: int,
) -> Any:
    """Return the patches of a network's training."""
    from napari_medgs.learning.data.patches import (
        Augmentation,
        PatchDataset,
        has_lateral_classes,
    )

    return PatchDataset(
        cases, card.patch, card.spacing, card.network.classes, count,
        Augmentation(mirror=not has_lateral_classes(card.class_names)),
        params.seed * 1000 + number,
    )  # fmt: skip


def _resumed_steps(checkpoint: Path, module: Any, wanted: int) -> int:
    """Return the steps of a checkpoint, which must be of the same network.

    A run that did all of its steps has brought down its learning rate: more cannot be added.
    """
    import torch

    try:
        record = torch.load(checkpoint, map_location="cpu", weights_only=True)
        steps, state = int(record["global_step"]), dict(record["state_dict"])
        finished = bool(record["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"])
    except Exception as error:  # torch raises whatever the bytes lead it to
        raise FileError(
            f"{checkpoint}: damaged, or not written by this program ({type(error).__name__}); "
            "train without --resume."
        ) from error
    own = {k: v.shape for k, v in module.state_dict().items()}
    if own != {k: v.shape for k, v in state.items()}:
        raise FileError(
            f"{checkpoint}: the run to resume had other settings or cases; train without --resume."
        )
    if finished and steps < wanted:
        raise ParameterError(
            f"{checkpoint}: this run is finished, after {steps:,} steps; train its model further "
            "with --continue MODEL."
        )
    return steps


def _loader(data: Any, params: LearnParams) -> Any:
    from torch.utils.data import DataLoader

    workers = params.workers
    if workers is None:
        workers = min(4, (params.threads or default_threads()) // 2)
    return DataLoader(
        data, params.batch_size, num_workers=workers, drop_last=False,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread if workers else None,
    )  # fmt: skip


def _checkpoints(folder: Path, every: int) -> Any:
    from lightning.pytorch.callbacks import ModelCheckpoint

    return ModelCheckpoint(
        dirpath=folder, save_last=True, save_top_k=0, every_n_train_steps=every,
        enable_version_counter=False,
    )  # fmt: skip


def _logger(params: LearnParams, folder: Path | None) -> Any:
    from lightning.pytorch import loggers

    if folder is None or params.logger == "none":
        return False
    if params.logger == "tensorboard":
        return loggers.TensorBoardLogger(str(folder), name="", version="")
    return loggers.CSVLogger(str(folder), name="", version="")


def _one_thread(worker: int) -> None:
    """Let a process that makes patches use one thread."""
    import torch

    del worker
    torch.set_num_threads(1)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what Lightning and torch say to programmers."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", module=r"torch\..*")
        yield
