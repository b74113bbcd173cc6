"""Tasks in threads: what is delivered, when, and that they end."""

import threading
import time

import pytest

from napari_medgs._util.progress import ProgressEvent
from napari_medgs.errors import Cancelled
from napari_medgs.plugin import worker
from napari_medgs.plugin.worker import Task


class Recorder:
    """Collects a task's signals and the threads they came in."""

    def __init__(self, task):
        self.events = []
        self.threads = set()
        task.progressed.connect(lambda e: self.note("progress", e.done))
        task.returned.connect(lambda r: self.note("returned", r))
        task.errored.connect(lambda e: self.note("errored", str(e)))
        task.cancelled.connect(lambda: self.note("cancelled", None))
        task.finished.connect(lambda: self.note("finished", None))

    def note(self, name, value):
        self.events.append((name, value))
        self.threads.add(threading.current_thread())


def poll_to_the_end(task, seconds=40):
    end = time.monotonic() + seconds
    while task.poll():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_only_the_newest_report_is_delivered_and_in_this_thread():
    reported = threading.Event()
    go_on = threading.Event()

    def job(progress, should_stop):
        for k in range(1000):
            progress(ProgressEvent("fit", k, 1000, 0.0))
        reported.set()
        go_on.wait(10)
        return 42

    task = Task(job)
    seen = Recorder(task)
    task.start()
    assert reported.wait(10)
    assert task.poll()
    assert seen.events == [("progress", 999)]
    go_on.set()
    poll_to_the_end(task)
    assert seen.events[1:] == [("returned", 42), ("finished", None)]
    assert seen.threads == {threading.current_thread()}
    assert not task.running
    assert task.poll() is False
    assert len(seen.events) == 3


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError("no"), ("errored", "no")), (Cancelled("stop"), ("cancelled", None))],
)
def test_failures_are_delivered_once(error, expected):
    def job(progress, should_stop):
        raise error

    task = Task(job)
    seen = Recorder(task)
    task.start()
    poll_to_the_end(task)
    assert seen.events == [expected, ("finished", None)]


def waits_for_stop(progress, should_stop):
    while not should_stop():
        time.sleep(0.005)
    return "stopped well"


def test_stop_is_seen_by_the_job_and_its_result_kept():
    task = Task(waits_for_stop)
    seen = Recorder(task)
    task.start()
    task.stop()
    assert task.stopping
    poll_to_the_end(task)
    assert seen.events == [("returned", "stopped well"), ("finished", None)]


def test_an_abandoned_task_is_joined_and_silent():
    task = Task(waits_for_stop)
    seen = Recorder(task)
    task.start()
    assert task.abandon()
    assert not task.running
    assert task.poll() is False
    assert seen.events == []


def test_a_job_that_does_not_listen_does_not_hang_the_program():
    free = threading.Event()
    task = Task(lambda progress, should_stop: free.wait(30))
    task.start()
    started = time.monotonic()
    assert not task.abandon(seconds=0.1)
    assert time.monotonic() - started < 5
    free.set()


def test_all_running_tasks_stop_when_the_program_ends():
    tasks = [Task(waits_for_stop) for _ in range(3)]
    for task in tasks:
        task.start()
    worker.stop_all()
    assert not any(task.running for task in tasks)


def test_closing_does_not_wait_for_a_long_step_but_the_end_of_the_program_does(qtbot):
    from qtpy.QtWidgets import QWidget

    free, ended = threading.Event(), threading.Event()

    def one_long_step(progress, should_stop):
        free.wait(30)
        ended.set()

    owner = QWidget()
    qtbot.addWidget(owner)
    runner = worker.Runner(owner)
    got = []
    runner.start(one_long_step, returned=got.append, errored=got.append)
    started = time.monotonic()
    runner.shut_down()
    assert time.monotonic() - started < 10
    assert not runner.busy
    assert not ended.is_set()
    threading.Timer(0.3, free.set).start()
    worker.stop_all()
    assert ended.is_set()
    assert got == []


def test_the_runner_polls_in_qt_and_stops_with_its_owner(qtbot):
    from qtpy.QtWidgets import QWidget

    owner = QWidget()
    runner = worker.Runner(owner)
    got = []
    runner.start(
        lambda progress, should_stop: 7, returned=got.append, errored=lambda e: got.append(e)
    )
    with pytest.raises(RuntimeError, match="already"):
        runner.start(waits_for_stop, returned=got.append, errored=got.append)
    qtbot.waitUntil(lambda: not runner.busy, timeout=40_000)
    assert got == [7]
    task = runner.start(waits_for_stop, returned=got.append, errored=got.append)
    assert runner.busy
    owner.deleteLater()
    qtbot.waitUntil(lambda: not task.running, timeout=40_000)
    qtbot.wait(200)
    assert got == [7]


def test_a_failing_listener_does_not_keep_the_runner_busy(qtbot):
    from qtpy.QtWidgets import QWidget

    owner = QWidget()
    qtbot.addWidget(owner)
    runner = worker.Runner(owner)

    def fails(result):
        raise ValueError("in the listener")

    with qtbot.captureExceptions() as caught:
        runner.start(lambda progress, should_stop: 7, returned=fails, errored=print)
        qtbot.waitUntil(lambda: not runner.busy, timeout=40_000)
        qtbot.wait(300)
    assert len(caught) == 1
