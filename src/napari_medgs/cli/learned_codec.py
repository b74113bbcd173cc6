"""What ``compress`` and ``decompress`` do with a learned codec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_medgs._util.naming import naming
from napari_medgs.cli.outputs import check_distinct
from napari_medgs.cli.report import Reporter, check_output
from napari_medgs.errors import ParameterError


def compress_by_model(
    source: Path, output: Path, model: Path, threads: int | None, reporter: Reporter,
    json_file: Path | None, *, reading: Mapping[str, Any],
) -> None:  # fmt: skip
    """Code a field, or an image that is fitted from the codec's start, by a learned codec.

    Parameters
    ----------
    source, output, model : Path
    threads : int, optional
        CPU threads; all by default.
    reporter : Reporter
    json_file : Path, optional
    reading : mapping
        How an image is read.
    """
    from napari_medgs.compression.learned import fit_alike, load_codec
    from napari_medgs.compression.learned.files import CODED_SUFFIX, save_coded
    from napari_medgs.io import read_volume
    from napari_medgs.io.fields import is_field_file, load_field
    from napari_medgs.rendering import render_stack

    check_output(output, (CODED_SUFFIX,))
    check_distinct([source, model], {"-o": output, "--json": json_file})
    codec = load_codec(model)
    with reporter.doing("reading"), naming(field=source, image=source):
        if is_field_file(source):
            field = load_field(source)
        else:
            start = codec.start()
            if start is None:
                raise ParameterError("The codec has no start to fit an image from; give a field.")
            iterations = int(codec.card.training.get("fit_iterations") or 60)
            field = fit_alike(
                [read_volume(source, **reading)], start, iterations, threads=threads
            )[0]
        codec.check(field)
    size = save_coded(output, field, codec)
    images = len(field.info.image_channels) or field.info.channels
    apart = (render_stack(codec.restored(field)) - render_stack(field))[:images]
    psnr = -10 * math.log10(max(float((apart**2).mean()), 1e-12))
    numbers = {
        "output": str(output),
        "bytes": output.stat().st_size,
        "bytes_of_latents": size,
        "gaussians": len(field),
        "psnr_to_field": psnr,
    }
    reporter.finish(numbers)
    rows = [
        ("latents", f"{size:,} bytes for {len(field):,} Gaussians"),
        ("file", f"{numbers['bytes']:,} bytes with grid and scale"),
        ("PSNR to the field", f"{psnr:.2f} dB"),
    ]
    reporter.pairs(str(output), rows)


def decompress_by_model(
    source: Path, output: Path, model: Path, reporter: Reporter, json_file: Path | None
) -> None:
    """Write a field that a learned codec has coded as an exact one.

    Parameters
    ----------
    source, output, model : Path
    reporter : Reporter
    json_file : Path, optional
    """
    from napari_medgs.compression.learned import load_codec
    from napari_medgs.compression.learned.files import load_coded
    from napari_medgs.io.fields import SUFFIX, save_field

    check_output(output, (SUFFIX,))
    check_distinct([source, model], {"-o": output, "--json": json_file})
    field = load_coded(source, load_codec(model))
    save_field(output, field)
    sizes = {"bytes": output.stat().st_size, "input_bytes": source.stat().st_size}
    reporter.finish({"gaussians": len(field), "output": str(output), **sizes})
    reporter.note(f"{output}: {len(field):,} Gaussians, {sizes['bytes']:,} bytes")


def pack_by_model(folder: Path, output: Path, model: Path, reporter: Reporter) -> None:
    """Code all fields of a folder by a learned codec into one file.

    Parameters
    ----------
    folder, output, model : Path
    reporter : Reporter
    """
    from napari_medgs.compression.learned import load_codec
    from napari_medgs.compression.learned.cohort import pack_coded

    codec = load_codec(model)
    with reporter.progress() as progress:
        pack_coded(folder, output, codec, progress=progress)


def unpack_by_model(
    cohort: Path, output: Path, model: Path, names: list[str] | None, reporter: Reporter
) -> list[Path]:
    """Write fields that a learned codec has coded into a folder; return their paths.

    Parameters
    ----------
    cohort, output, model : Path
    names : list of str, optional
    reporter : Reporter
    """
    from napari_medgs.compression.learned import load_codec
    from napari_medgs.compression.learned.cohort import unpack_coded

    codec = load_codec(model)
    with reporter.progress() as progress:
        return unpack_coded(cohort, output, codec, names, progress=progress)


def describe_codec(path: Path) -> dict[str, Any]:
    """Return what a codec codes and what was measured when it was trained.

    Parameters
    ----------
    path : Path
    """
    from napari_medgs.compression.learned.files import load_codec_card

    card = load_codec_card(path)
    measured = card.metrics
    return {
        "kind": "codec",
        "network": card.network,
        "form": "as published" if card.published else f"loss: {card.loss}",
        "latents": card.latents,
        "gaussians_of_a_block": card.block,
        "order": "fixed" if card.slots else "Morton",
        "training_fields": card.training.get("fields"),
        "bytes_a_field": measured.get("bytes"),
        "psnr_to_field": measured.get("psnr_to_field"),
        "variance_explained": [f"{k} {v:.2f}" for k, v in measured.get("explained", {}).items()],
        "parameters": card.weights,
        "bytes": path.stat().st_size,
        "note": card.note,
    }
