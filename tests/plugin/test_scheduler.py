"""Which background job runs next, without a window."""

from types import SimpleNamespace

import pytest

from napari_medgs.errors import ParameterError
from napari_medgs.plugin.segment.model import JobKind, SegmentState
from napari_medgs.plugin.segment.scheduler import JobScheduler
from napari_medgs.plugin.segment.session_jobs import SessionJobs


class ManualRunner:
    """Runs nothing by itself: :meth:`end` delivers an outcome."""

    def __init__(self):
        self.callbacks = None
        self.stopped = 0

    @property
    def busy(self):
        return self.callbacks is not None

    def start(self, job, **callbacks):
        assert not self.busy
        self.callbacks = callbacks

    def stop(self):
        self.stopped += 1

    def end(self, outcome="returned", value=None):
        callbacks, self.callbacks = self.callbacks, None
        callbacks[outcome](*([] if outcome == "cancelled" else [value]))
        callbacks["finished"]()


def make_scheduler(nothing_to_do=()):
    runner, seen = ManualRunner(), []
    scheduler = JobScheduler(runner, lambda kind: None if kind in nothing_to_do else kind)
    scheduler.job_changed.connect(lambda kind: seen.append(kind))
    return scheduler, runner, seen


def test_jobs_run_one_by_one_in_their_order():
    scheduler, runner, seen = make_scheduler()
    scheduler.request(JobKind.MAPS, JobKind.FULL, JobKind.PREVIEW)
    assert seen == [JobKind.PREVIEW]
    scheduler.request(JobKind.PREPARE)
    runner.end()
    assert seen[-1] is JobKind.PREPARE
    runner.end()
    runner.end("errored", ValueError("no"))
    runner.end("cancelled")
    assert seen == [
        JobKind.PREVIEW,
        JobKind.PREPARE,
        JobKind.FULL,
        JobKind.MAPS,
        None,
    ]


def test_jobs_without_anything_to_do_are_passed_over():
    scheduler, runner, seen = make_scheduler({JobKind.PREVIEW, JobKind.INCREMENTAL})
    scheduler.request(JobKind.PREVIEW, JobKind.INCREMENTAL, JobKind.SUGGEST)
    assert seen == [JobKind.SUGGEST]
    assert not scheduler.waiting
    runner.end()
    assert seen == [JobKind.SUGGEST, None]


def test_newer_strokes_stop_a_solve_but_never_the_fit():
    scheduler, runner, _ = make_scheduler()
    scheduler.request(JobKind.PREPARE, JobKind.FULL)
    scheduler.interrupt()
    assert runner.stopped == 0
    runner.end()
    scheduler.interrupt()
    assert runner.stopped == 1
    scheduler.request(JobKind.MAPS)
    scheduler.cancel()
    assert runner.stopped == 2
    assert not scheduler.waiting


def test_a_listener_may_ask_for_the_next_job():
    scheduler, runner, seen = make_scheduler()
    scheduler.returned.connect(
        lambda kind, result: kind is JobKind.PREPARE and scheduler.request(JobKind.FULL)
    )
    scheduler.request(JobKind.PREPARE)
    runner.end()
    assert seen == [JobKind.PREPARE, JobKind.FULL]
    runner.end()
    assert seen[-1] is None


def test_the_state_tells_of_changes_only():
    state, told = SegmentState(), []
    state.events.message.connect(lambda text: told.append(text))
    state.events.volumes_ml.connect(lambda volumes: told.append(volumes))
    state.message = "Updating ..."
    state.message = "Updating ..."
    state.volumes_ml = {1: 2.5}
    state.volumes_ml = {1: 2.5}
    assert told == ["Updating ...", {1: 2.5}]


@pytest.mark.parametrize("changed", [True, False])
def test_a_refused_solve_of_older_prompts_does_not_drop_the_newer_one(changed):
    """As where a mask is set while the solve of no prompts at all is refused."""
    runner, refused = ManualRunner(), []
    jobs = SessionJobs(runner, lambda: None)
    jobs.refused.connect(refused.append)
    jobs.segmenter = SimpleNamespace(
        session=object(), is_prepared=True, is_current=False, threads=None
    )
    jobs.request(JobKind.FULL)
    if changed:
        jobs.revision += 1
        jobs.request(JobKind.FULL)
    runner.end("errored", ParameterError("There are no strokes."))
    assert runner.busy is changed
    assert refused == ([] if changed else ["There are no strokes."])
