"""A server as a process of its own, and its official client."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


@contextlib.contextmanager
def served(threads: int | None = None) -> Iterator[tuple[str, int]]:
    """Run the command; yield its address and its process."""
    command = [sys.executable, "-u", "-m", "napari_medgs", "serve", "--port", "0"]
    if threads:
        command += ["--threads", str(threads)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            found = re.search(r"http://\S+?:\d+", line)
            if found:
                yield found.group(), process.pid
                return
        raise RuntimeError("the server did not start")
    finally:
        process.terminate()
        process.wait()


def connect(url: str, data: NDArray[Any], spacing: tuple[float, ...]) -> Any:
    """Return a client with an image and a buffer."""
    from nnInteractive.inference.remote import nnInteractiveRemoteInferenceSession

    client = nnInteractiveRemoteInferenceSession(url)
    client.set_image(data, {"spacing": list(spacing)})
    client.set_target_buffer(np.zeros(data.shape[1:], np.uint8))
    return client


def wait_for(client: Any) -> None:
    """Wait until the image of a client is prepared to the end."""
    while client._http.get("/v1/progress").json()["stage"] not in ("ready", "failed"):
        time.sleep(0.2)


def dice(guess: NDArray[Any], truth: NDArray[np.bool_]) -> float:
    """Return the overlap of two masks."""
    mask = np.asarray(guess) > 0
    both = np.count_nonzero(mask & truth)
    return float(2 * both / max(np.count_nonzero(mask) + np.count_nonzero(truth), 1))
