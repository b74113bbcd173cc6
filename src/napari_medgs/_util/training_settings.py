"""Settings that all trainings have in common, declared once, each with its own default."""

from __future__ import annotations

from typing import Any

from napari_medgs._util.settings import LARGEST_SEED, setting

TRAINING, LOGS, LIGHTNING = "Training", "Logs and checkpoints", "Lightning's trainer"
COMMON = "Common options"


def learning_rate(default: float) -> Any:
    """Return the setting of the learning rate."""
    return setting(
        default,
        above=0,
        high=1,
        label="Learning rate",
        group=TRAINING,
        help="Highest learning rate of AdamW.",
    )


def weight_decay(default: float) -> Any:
    """Return the setting of the weight decay."""
    return setting(
        default,
        low=0,
        high=10,
        label="Weight decay",
        group=TRAINING,
        help="Weight decay of AdamW.",
    )


def ema(default: float) -> Any:
    """Return the setting of the moving average of the weights."""
    return setting(
        default,
        low=0,
        below=1,
        label="EMA decay",
        group=TRAINING,
        help="Decay of the exponential moving average of the weights; 0 keeps the last weights.",
    )


def accelerator() -> Any:
    """Return the setting of the hardware."""
    return setting(
        "auto", group=LIGHTNING, help="Hardware: auto, cpu, gpu and others that Lightning knows."
    )


def log_dir() -> Any:
    """Return the setting of the folder of a run."""
    return setting(
        None,
        none="none",
        label="Log folder",
        group=LOGS,
        metavar="DIR",
        help="Folder of the curves and of what --resume continues from.",
    )


def resume() -> Any:
    """Return the setting that continues a run."""
    return setting(
        False, label="Resume", group=LOGS, help="Continue the interrupted run in --log-dir."
    )


def seed() -> Any:
    """Return the setting of the seed."""
    return setting(
        0, low=0, high=LARGEST_SEED, label="Seed", group=COMMON, help="Seed of all random choices."
    )


def threads() -> Any:
    """Return the setting of the CPU threads."""
    return setting(
        None, low=1, none="all CPUs", label="CPU threads", group=COMMON, help="CPU threads to use."
    )
