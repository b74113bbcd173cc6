"""Seconds from click to mask through the client, and memory of the server."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation_latency import brain
from serve_client import connect, served, wait_for
from serve_quality import Mask, deepest, next_click
from serve_records import Records
from suite.registry import Context

CLICKS = 25
SIZES: tuple[tuple[tuple[int, int, int], int], ...] = (
    ((128, 128, 128), 1),
    ((128, 128, 128), 4),
    ((150, 256, 256), 1),
    ((150, 256, 256), 4),
    ((400, 512, 512), 1),
)


def resized(data: NDArray[Any], truth: Mask, shape: tuple[int, ...]) -> tuple[Any, Mask]:
    """Return an image and a mask with another number of voxels."""
    from scipy.ndimage import zoom

    factors = np.asarray(shape) / data.shape
    image = zoom(data.astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
    return image, zoom(
        truth.astype(np.uint8), factors, order=0, grid_mode=True, mode="nearest"
    ) > 0


def measure(
    context: Context,
    records: Records,
) -> None:
    """Measure the sizes that are not in the records yet.

    Parameters
    ----------
    context : Context
    records : Records
        "128 x 128 x 128, 1" to seconds and bytes.
    """
    volume, truth, _ = brain(context.data)
    structure = truth == 1  # the lateral ventricles
    for shape, sessions in SIZES[: 1 if context.quick else None]:
        name = f"{' x '.join(map(str, shape))}, {sessions}"
        if name in records.values or records.is_time_up:
            continue
        data, mask = volume.data[0], structure
        if shape != data.shape:
            data, mask = resized(data, mask, shape)
        spacing = tuple(np.asarray(volume.spacing) * volume.data.shape[1:] / np.asarray(shape))
        clicks = 4 if context.quick else CLICKS
        found = _sessions(data, mask, spacing, sessions, clicks, context.threads)
        records.values[name] = found
        records.keep()
        context.say(
            f"{name} session(s): first {max(found['first']):.2f} s, median "
            f"{np.median(found['seconds']):.3f} s, peak {found['peak_bytes'] / 1e9:.2f} GB"
        )


def _sessions(
    data: NDArray[Any], mask: Mask, spacing: Any, sessions: int, clicks: int, threads: int | None
) -> dict[str, Any]:
    """Return what users who click at the same time, one a session, wait for."""
    import psutil

    sampling = np.asarray(spacing) / min(spacing)
    first: list[float] = []
    seconds: list[float] = []
    used: list[float] = []
    peak = 0
    with served(threads) as (url, process):
        clients = [connect(url, data[None], spacing) for _ in range(sessions)]
        watched = psutil.Process(process)
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.05):
                peak = max(peak, watched.memory_info().rss)

        def use(client: Any) -> None:
            started = time.perf_counter()
            while True:
                try:
                    client.add_point_interaction(deepest(mask, sampling), True)
                    break
                except RuntimeError:  # not prepared within the longest wait
                    continue
            first.append(time.perf_counter() - started)
            wait_for(client)
            for _ in range(clicks):
                click = next_click(client.target_buffer > 0, mask, sampling)
                if click is None:
                    return
                started, before = time.perf_counter(), sum(watched.cpu_times()[:2])
                client.add_point_interaction(*click)
                seconds.append(time.perf_counter() - started)
                used.append(sum(watched.cpu_times()[:2]) - before)

        watcher = threading.Thread(target=watch)
        users = [threading.Thread(target=use, args=(client,)) for client in clients]
        for thread in (watcher, *users):
            thread.start()
        for thread in users:
            thread.join()
        done.set()
        watcher.join()
        for client in clients:
            client.close()
    # Of several sessions the process's time cannot be told apart.
    return {
        "first": first, "seconds": seconds, "peak_bytes": peak,
        "cpu_seconds": used if sessions == 1 else [],
    }  # fmt: skip
