"""What ``napari-medgs segment --session`` does: a mask from a session saved in the viewer."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medgs._util.naming import naming
from napari_medgs.cli.command import NOTHING, print_error, stoppable
from napari_medgs.cli.field_inputs import load_field_of
from napari_medgs.cli.segment_warnings import FILLED_SESSION, warn_of_boxes, warn_of_gaps

if TYPE_CHECKING:
    from napari_medgs.cli.segment_job import SegmentJob
    from napari_medgs.segmentation import SegmentResult


def replay_session(
    job: SegmentJob, images: list[str], session: Path, field: Path | None
) -> tuple[SegmentResult, dict[str, Any], dict[int, str]]:
    """Replay a session with its own settings; only the number of threads is this run's.

    Parameters
    ----------
    job : SegmentJob
    images : list of str
    session : Path
    field : Path or None
        By default the one that lies beside the session; else one is fitted.

    Returns
    -------
    result : SegmentResult
    metrics : dict
        For the JSON file.
    names : dict of int to str
        Of the classes in the mask.
    """
    from napari_medgs.segmentation import load_session
    from napari_medgs.segmentation.api import FIT_PARAMS, fit_for_segmentation
    from napari_medgs.segmentation.memory import check_memory
    from napari_medgs.segmentation.model import SegmentModel
    from napari_medgs.segmentation.session.replay import digest

    volume = job.read(images)
    restored, expected = load_session(session, volume.grid)
    settings = restored.settings
    started = time.perf_counter()
    with (
        naming(image=images, session=session, field=field),
        stoppable(NOTHING) as should_stop,
        job.reporter.progress() as progress,
    ):
        own = session.parent / restored.field if restored.field else None
        if field is None and own is not None and own.is_file():
            field = own
        working_voxels = settings.params.working_voxels
        known = None
        if field is not None:
            known = load_field_of(volume, images[0], field, working_voxels)
        check_memory(volume, settings.params, field=known)
        warn_of_gaps(
            str(session),
            restored.strokes,
            settings.unlabeled,
            volume.grid,
            settings.fully_labeled,
        )
        warn_of_boxes(str(session), restored.prompts(), restored.names, volume.grid)
        if known is not None:
            gaussians = known
        else:
            gaussians = fit_for_segmentation(
                volume,
                replace(FIT_PARAMS, backend=job.backend, threads=job.params.threads),
                working_voxels=working_voxels,
                progress=progress,
                should_stop=should_stop,
            )
        seconds_fit = time.perf_counter() - started if field is None else 0.0
        model = SegmentModel(volume, gaussians, settings.params)
        result = restored.solve(model, progress=progress, should_stop=should_stop)
    seconds = time.perf_counter() - started
    result = replace(result, seconds=seconds, seconds_fit=seconds_fit)
    if not result.has_background:
        print_error(f"warning: {session}: {FILLED_SESSION}")
    same = digest(result.labels) == expected if expected else None
    if same is False:
        made_of = ", ".join(Path(x).name for x in restored.images)
        print_error(
            "warning: this mask differs from the one in the session"
            + (f", which is one of {made_of}" if made_of else "")
            + "; were the images, their order, the field or the program others?"
        )
    names = {k: name for k, name in restored.names.items() if k in result.voxels}
    metrics = {**job.metrics(result, settings.params), "same_as_session": same}
    return result, metrics, names
