"""From click to mask through the server and the official client; Dice after simulated clicks.

    python benchmarks/run.py serve

The server runs as a process of its own, ``napari-medgs serve``. A simulated user segments one
structure at a time: the first click is its deepest voxel, every further one the deepest voxel of
the largest connected error (of the object or not). A box is the tight one around the structure,
a scribble the middle of its largest section; clicks follow them. Ours goes through the client;
the baselines get the same kind of prompts (balls of 1.5 voxels) of their own sequence, and the
image's border as background, which they need.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation_baselines import run_limited, scaled
from segmentation_cases import Case, _middle, cases_of
from segmentation_latency import brain
from segmentation_measure import cropped
from suite.registry import Context
from suite.results import CaseResult, Ratio, Table, median

Mask = NDArray[np.bool_]
Click = tuple[tuple[int, int, int], bool]
CLICKS = 6
SHOWN = (1, 2, 3, 5, 6)
ORGANS = {
    "abdomen": ("spleen", "kidney right", "kidney left", "liver", "stomach"),
    "tumour": ("whole tumor",),
    "tumour_parts": ("necrosis", "edema", "enhancing"),
}
OTHERS = {
    "lumen": ("true lumen", "false lumen"),
    "t12": ("T12",),
    "cord_t2": ("cord",),
    "hippocampus_008": ("hippocampus",),
    "hippocampus_017": ("hippocampus",),
    "hippocampus_025": ("hippocampus",),
}
BASELINES = ("fast GrowCut", "watershed", "random walker")
KINDS = ("clicks", "box", "scribble")
LIMIT = 20.0
LATENCY_CLICKS = 25


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


def dice(guess: NDArray[Any], truth: Mask) -> float:
    """Return the overlap of two masks."""
    mask = np.asarray(guess) > 0
    both = np.count_nonzero(mask & truth)
    return 2 * both / max(np.count_nonzero(mask) + np.count_nonzero(truth), 1)


def deepest(piece: Mask, sampling: NDArray[Any]) -> tuple[int, int, int]:
    """Return the voxel of a piece that is farthest from its border."""
    from scipy.ndimage import distance_transform_edt, find_objects

    box = find_objects(piece.astype(np.uint8))[0]
    depth = distance_transform_edt(np.pad(piece[box], 1), sampling=sampling)
    place = np.unravel_index(depth.argmax(), depth.shape)
    z, y, x = (int(p) - 1 + s.start for p, s in zip(place, box, strict=True))
    return z, y, x


def next_click(guess: Mask, truth: Mask, sampling: NDArray[Any]) -> Click | None:
    """Return the click in the middle of the largest error; None where there is none."""
    from scipy.ndimage import label

    best, chosen, positive = 0, None, True
    for kind, wrong in ((True, truth & ~guess), (False, guess & ~truth)):
        pieces, count = label(wrong)
        if count:
            sizes = np.bincount(pieces.reshape(-1))[1:]
            if sizes.max() > best:
                best, positive = int(sizes.max()), kind
                chosen = pieces == sizes.argmax() + 1
    return None if chosen is None else (deepest(chosen, sampling), positive)


def targets(
    context: Context, wanted: dict[str, tuple[str, ...]]
) -> Iterator[tuple[Any, list[tuple[str, Mask]]]]:
    """Iterate over images with the structures to find in them."""
    case: Case
    for case in cases_of("report", tuple(wanted)):
        volume, truth = cropped(*case.load(context.data))
        names = wanted[case.name]
        if len(names) == 1:
            yield volume, [(f"{case.name}: {names[0]}", truth > 0)]
        else:
            yield (
                volume,
                [(f"{case.name}: {name}", truth == k + 1) for k, name in enumerate(names)],
            )


def begin_with(client: Any, kind: str, truth: Mask, sampling: NDArray[Any]) -> None:
    """Give the first prompt of a kind."""
    if kind == "clicks":
        client.add_point_interaction(deepest(truth, sampling), True)
    elif kind == "box":
        where = np.argwhere(truth)
        sides = zip(where.min(axis=0), where.max(axis=0) + 1, strict=True)
        client.add_bbox_interaction([[int(a), int(b)] for a, b in sides], True)
    else:
        z = int(truth.sum(axis=(1, 2)).argmax())
        stroke = np.zeros(truth.shape, np.uint8)
        stroke[z] = _middle(truth[z], 0.7, np.random.default_rng(0))
        client.add_scribble_interaction(stroke, True)


def ours(
    client: Any, kind: str, truth: Mask, sampling: NDArray[Any], seconds: list[float]
) -> list[float]:
    """Return the Dice after the first prompt and after every click that follows."""
    client.reset_interactions()
    begin_with(client, kind, truth, sampling)
    scores = [dice(client.target_buffer, truth)]
    while len(scores) < CLICKS:
        click = next_click(client.target_buffer > 0, truth, sampling)
        if click is None:
            scores.append(scores[-1])
            continue
        started = time.perf_counter()
        client.add_point_interaction(*click)
        seconds.append(time.perf_counter() - started)
        scores.append(dice(client.target_buffer, truth))
    return scores


def marks_of(clicks: list[Click], shape: tuple[int, ...], sampling: NDArray[Any]) -> Any:
    """Return what baselines take: balls of 1.5 voxels, the border as background."""
    marks = np.zeros(shape, np.uint8)
    for axis in range(3):
        if shape[axis] > 4:
            edge = np.moveaxis(marks, axis, 0)
            edge[0] = edge[-1] = 1
    reach = np.ceil(1.5 / sampling).astype(int)
    offsets = np.indices(2 * reach + 1).reshape(3, -1).T - reach
    offsets = offsets[((offsets * sampling) ** 2).sum(axis=1) <= 1.5**2]
    for place, positive in clicks:
        voxels = offsets + np.asarray(place)
        good = ((voxels >= 0) & (voxels < shape)).all(axis=1)
        marks[tuple(voxels[good].T)] = 2 if positive else 1
    return marks


def baseline(
    name: str, images: Any, truth: Mask, spacing: tuple[float, ...], sampling: NDArray[Any]
) -> list[float] | None:
    """Return the Dice after every click; None where one took too long."""
    clicks: list[Click] = [(deepest(truth, sampling), True)]
    scores: list[float] = []
    while len(scores) < CLICKS:
        marks = marks_of(clicks, truth.shape, sampling)
        _, guess = run_limited(name, (images, marks, spacing), LIMIT)
        if guess is None:
            return None
        scores.append(dice(guess, truth))
        click = next_click(guess > 0, truth, sampling)
        if click is None:
            scores += [scores[-1]] * (CLICKS - len(scores))
        else:
            clicks.append(click)
    return scores


def quality(context: Context, url: str) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Return the rows of the table of Dice, and all numbers."""
    rows: list[tuple[Any, ...]] = []
    numbers: dict[str, Any] = {}
    wanted = {"hippocampus_008": OTHERS["hippocampus_008"]} if context.quick else ORGANS | OTHERS
    for volume, structures in targets(context, wanted):
        sampling = np.asarray(volume.spacing) / min(volume.spacing)
        images = scaled(volume.data)
        client = connect(url, volume.data, volume.spacing)
        wait_for(client)
        for name, truth in structures:
            found: dict[str, Any] = {}
            for kind in KINDS:
                found[kind] = ours(client, kind, truth, sampling, [])
            for other in BASELINES:
                found[other] = baseline(other, images, truth, volume.spacing, sampling)
            numbers[name] = found
            for kind, scores in found.items():
                cells = [f"{scores[n - 1]:.3f}" for n in SHOWN] if scores else ["-"] * len(SHOWN)
                rows.append((name, kind, *cells))
                context.say(f"{name}, {kind}: {' '.join(cells)}")
        client.close()
    return rows, numbers


def resized(data: NDArray[Any], truth: Mask, shape: tuple[int, ...]) -> tuple[Any, Mask]:
    """Return an image and a mask with another number of voxels."""
    from scipy.ndimage import zoom

    factors = np.asarray(shape) / data.shape
    image = zoom(data.astype(np.float32), factors, order=1, grid_mode=True, mode="nearest")
    return image, zoom(
        truth.astype(np.uint8), factors, order=0, grid_mode=True, mode="nearest"
    ) > 0


def latency(context: Context) -> tuple[list[tuple[Any, ...]], dict[str, Any]]:
    """Return the rows of the table of seconds and memory, and all numbers."""
    import psutil

    volume, truth, _ = brain(context.data)
    structure = truth == 1  # the lateral ventricles
    sizes: list[tuple[tuple[int, int, int], int]] = [((128, 128, 128), 1)]
    if not context.quick:
        sizes += [
            ((128, 128, 128), 4),
            ((150, 256, 256), 1),
            ((150, 256, 256), 4),
            ((400, 512, 512), 1),
        ]
    rows: list[tuple[Any, ...]] = []
    numbers: dict[str, Any] = {}
    for shape, sessions in sizes:
        data, mask = volume.data[0], structure
        if shape != data.shape:
            data, mask = resized(data, mask, shape)
        spacing = tuple(np.asarray(volume.spacing) * volume.data.shape[1:] / np.asarray(shape))
        sampling = np.asarray(spacing) / min(spacing)
        first: list[float] = []
        seconds: list[float] = []
        used: list[float] = []
        peak = 0
        with served(context.threads) as (url, process):
            clients = [connect(url, data[None], spacing) for _ in range(sessions)]
            watched = psutil.Process(process)
            done = threading.Event()

            def watch(watched: Any = watched, done: threading.Event = done) -> None:
                nonlocal peak
                while not done.wait(0.05):
                    peak = max(peak, watched.memory_info().rss)

            def use(
                client: Any,
                mask: Mask = mask,
                sampling: Any = sampling,
                first: list[float] = first,
                seconds: list[float] = seconds,
                watched: Any = watched,
                used: list[float] = used,
            ) -> None:
                started = time.perf_counter()
                while True:
                    try:
                        client.add_point_interaction(deepest(mask, sampling), True)
                        break
                    except RuntimeError:  # not prepared within the longest wait
                        continue
                first.append(time.perf_counter() - started)
                wait_for(client)
                for _ in range(4 if context.quick else LATENCY_CLICKS):
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
        name = " x ".join(map(str, shape))
        p95 = float(np.percentile(seconds, 95))
        rows.append(
            (name, sessions, f"{max(first):.2f}", f"{median(seconds):.3f}", f"{p95:.3f}",
             f"{median(used):.2f}" if sessions == 1 else "", len(seconds), f"{peak / 1e9:.2f}")
        )  # fmt: skip
        numbers[f"{name}, {sessions}"] = {
            "first": first, "seconds": seconds, "cpu_seconds": used, "peak_bytes": peak,
        }  # fmt: skip
        context.say(f"{name}, {sessions} session(s): {rows[-1][2:]}")
    return rows, numbers


def run(context: Context) -> CaseResult:
    """Run as a case of the suite."""
    with served(context.threads) as (url, _):
        rows, scores = quality(context, url)
    times, seconds = latency(context)
    tables = [
        Table(
            "Dice after the first prompt and after clicks in the largest error",
            ("structure", "first prompt, method", *(f"{n} prompts" for n in SHOWN)),
            tuple(rows),
        ),
        Table(
            "Seconds from click to mask through the client, and memory of the server",
            (
                "image",
                "sessions",
                "first, s",
                "median, s",
                "95 %, s",
                "CPU s, median",
                "clicks",
                "peak, GB",
            ),
            tuple(times),
        ),
    ]
    ratios = []
    main = [s for name, s in scores.items() if name.split(":")[0] in ORGANS]
    if main:
        means = {
            k: float(np.mean([s[k][-1] for s in main])) for k in ("clicks", "box", "scribble")
        }
        six = ", ".join(f"{kind} {value:.3f}" for kind, value in means.items())
        note = f"Mean Dice over organs and tumors after the first prompt and five clicks: {six}."
        for other in BASELINES:
            both = [(s["clicks"][-1], s[other][-1]) for s in main if s[other]]
            if both:
                a, b = np.mean(both, axis=0)
                ratios.append(
                    Ratio(
                        f"Dice after six clicks, {len(both)} organs and tumors", other,
                        float(a), float(b), better="higher",
                    )
                )  # fmt: skip
    else:
        note = "Quick: no organs."
    return CaseResult(
        "serve",
        "clicks through the server",
        ratios=ratios,
        tables=tables,
        notes=[
            note,
            "Clients are the official nninteractive-client. 'n prompts' are the first one and "
            "n - 1 clicks. Baselines take clicks of their own sequence and the image's border as "
            f"background; a method that takes more than {LIMIT:g} s for an answer has none (-). "
            "Times are those of the lateral ventricles of a brain MRI, cut or resampled to the "
            "size; 'first' begins with the click right after the upload and holds the wait for "
            "the fit. Settings were tuned on the cases of the split 'tune'.",
        ],
        numbers={"dice": scores, "latency": seconds},
    )


if __name__ == "__main__":
    print(run(Context(Path(sys.argv[1]), quick="--quick" in sys.argv)).to_dict())
