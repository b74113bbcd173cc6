"""A training of a learned codec: scales, steps, tables, and what it keeps of other fields."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from napari_medgs._typing import Floats
from napari_medgs._util.progress import ProgressCallback, StopCallback
from napari_medgs._util.threads import limit_torch_threads
from napari_medgs.compression.learned.card import CodecCard
from napari_medgs.compression.learned.codec import Codec
from napari_medgs.compression.learned.entropy import frequencies_of
from napari_medgs.compression.learned.model import SMALLEST, CodecModel
from napari_medgs.compression.learned.params import CodecParams
from napari_medgs.compression.learned.table import centers_from, to_ellipses, whole_centers
from napari_medgs.compression.learned.training import make_case, train_model
from napari_medgs.data.field import GaussianField
from napari_medgs.errors import ParameterError
from napari_medgs.io.fields import info_to_json
from napari_medgs.rendering import render_stack
from napari_medgs.rendering.parameters import LOG_R1, LOG_R2, LOG_RT, to_parameters

KEPT_OUT = 5
"""Every so many-th field measures the codec instead of training it."""
PUBLISHED_STEP = 0.3
"""Of latents that are rounded after training, in their standard deviations: about 3.8 bits."""
ROOM = 0.3


def run_training(
    fields: Sequence[GaussianField],
    params: CodecParams,
    start: GaussianField | None,
    progress: ProgressCallback,
    should_stop: StopCallback,
) -> Codec:
    """Train a codec; see :func:`~napari_medgs.compression.learned.train_codec`.

    Parameters
    ----------
    fields : sequence of GaussianField
    params : CodecParams
    start : GaussianField or None
    progress, should_stop : callable
    """
    _check(fields, start, params)
    began = time.perf_counter()
    with limit_torch_threads(params.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        kept = list(fields[KEPT_OUT - 1 :: KEPT_OUT])
        used = [f for k, f in enumerate(fields) if k % KEPT_OUT != KEPT_OUT - 1]
        model = _model(used, params, start)
        codec = Codec(model.card, model)
        cases = []
        for field in used:
            blocks, centers = codec.network_input(field)
            cases.append(make_case(field, blocks, centers, rendered=params.loss == "render"))
        train_model(model, cases, params, progress=progress, should_stop=should_stop)
        if params.published:
            with torch.inference_mode():
                latents = torch.cat([model.network.encode(c.blocks)[0] for c in cases])
            model.scale.copy_(PUBLISHED_STEP * latents.std(0).clamp_min(1e-4))
        whole = np.concatenate([model.encode(c.blocks) for c in cases])
        model.frequencies.copy_(torch.from_numpy(frequencies_of(whole)))
        measured = measure(codec, kept or used)
    own = {} if start is None else fields[0].info.params
    record: dict[str, Any] = {
        **asdict(params),
        "fit_iterations": own.get("iterations", 0),
        "fields": len(fields),
        "kept_out": len(kept),
        "seconds": time.perf_counter() - began,
    }
    card = replace(model.card, training=record, metrics=measured)
    model.card = card
    return Codec(card, model)


def measure(codec: Codec, fields: Sequence[GaussianField]) -> dict[str, Any]:
    """Return what a codec costs and keeps.

    Parameters
    ----------
    codec : Codec
    fields : sequence of GaussianField

    Returns
    -------
    dict
        Bytes a field (mean), PSNR in dB of the images to the fields' own renderings (of the mean
        squared error, values count from 0 to 1), explained variance per attribute.
    """
    sizes, errors = [], []
    for field in fields:
        count = len(field.info.image_channels) or field.info.channels
        sizes.append(len(codec.compress(field)))
        apart = render_stack(codec.restored(field))[:count] - render_stack(field)[:count]
        errors.append(float(np.mean(apart.astype(np.float64) ** 2)))
    return {
        "bytes": float(np.mean(sizes)),
        "bits": codec.bits(fields),
        "psnr_to_field": -10 * float(np.log10(max(float(np.mean(errors)), 1e-12))),
        "explained": codec.explained(fields),
    }


def _check(
    fields: Sequence[GaussianField], start: GaussianField | None, params: CodecParams
) -> None:
    if len(fields) < 4:
        raise ParameterError(f"A codec learns from at least 4 fields, not {len(fields)}.")
    channels = fields[0].info.channels
    for k, field in enumerate(fields):
        if field.info.channels != channels:
            raise ParameterError(
                f"Field {k + 1} has {field.info.channels} channels and classes, the first "
                f"{channels}; a codec needs the same in all."
            )
        if not len(field):
            raise ParameterError(f"Field {k + 1} has no Gaussians; leave it out.")
        if params.loss == "render" and field.info.blend == "alpha":
            raise ParameterError(
                f"Field {k + 1} is blended by alpha, which gives no gradient; learn parameters "
                "instead of the rendering."
            )
        if start is not None and len(field) != len(start):
            raise ParameterError(
                f"Field {k + 1} has {len(field)} Gaussians, the start {len(start)}."
            )
    if start is not None and len(start) > params.block:
        raise ParameterError(
            f"The start has {len(start)} Gaussians, a block {params.block}; give a block that "
            "holds all."
        )


def _model(
    fields: list[GaussianField], params: CodecParams, start: GaussianField | None
) -> CodecModel:
    """Return an untrained codec with the scales of its fields."""
    tables = [_ordered(f, start is not None) for f in fields]
    rows = np.concatenate(tables)
    forms = [to_ellipses(t) if params.published else t for t in tables]
    slots = 0 if start is None else len(start)
    local = not slots and not params.published and max(map(len, tables)) > params.block
    spread = np.concatenate(forms).std(axis=0)
    columns = tuple(int(k) for k in np.flatnonzero(spread > SMALLEST))
    if not columns:
        raise ParameterError("All fields are the same: there is nothing to learn.")
    card = CodecCard(
        network=params.network,
        loss=params.loss or "render",
        published=params.published,
        channels=fields[0].info.channels,
        block=params.block,
        latents=params.latents,
        columns=columns,
        slots=slots,
        local=local,
        info={} if start is None else json.loads(info_to_json(start.info)),
        step=PUBLISHED_STEP if params.published else 0.0,
    )
    model = CodecModel(card)
    card = replace(card, weights=sum(p.numel() for p in model.network.parameters()))
    model.card = card
    lower, upper = rows.min(axis=0), rows.max(axis=0)
    for column in (LOG_R1, LOG_R2, LOG_RT):
        lower[column] -= ROOM
        upper[column] += ROOM
    centers = None
    stacked: list[Floats] = []
    for field, table in zip(fields, tables, strict=True):
        blocks = model.blocks(table)
        if local:
            shape = field.info.stack_shape
            centers = centers_from(whole_centers(blocks, shape), shape)
            blocks = blocks.copy()
            blocks[:, :, :3] -= centers[:, None]
        stacked.append(blocks[:, :, list(columns)])
    numbers = np.concatenate(stacked)
    if slots:
        mean = numbers[:, :slots].mean(axis=0)
        deviation = (numbers[:, :slots] - mean).std(axis=(0, 1))[None].repeat(slots, axis=0)
    else:
        mean = numbers.mean(axis=(0, 1))[None]
        deviation = numbers.std(axis=(0, 1))[None]
    values = {
        "mean": mean,
        "deviation": np.maximum(deviation, SMALLEST),
        "usual": np.concatenate(forms).mean(axis=0),
        "lower": lower,
        "upper": upper,
    }
    if start is not None:
        values["start"] = to_parameters(start)
        values["background"] = start.background
    for name, array in values.items():
        getattr(model, name).copy_(torch.from_numpy(np.ascontiguousarray(array, np.float32)))
    return model


def _ordered(field: GaussianField, fixed: bool) -> Floats:
    table = to_parameters(field)
    return table if fixed else table[field.morton_order()]
