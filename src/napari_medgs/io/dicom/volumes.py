"""Volumes within a series: time points, echoes, b-values, magnitude and phase kept apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_medgs.io.dicom.frames import Frame

_SAME_PLACE = 1e-2  # millimeters
_TIMES = ("trigger time", "trigger delay", "time", "acquisition time")


def split_volumes(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    """Part frames that lie at the same places into volumes, by what their headers say.

    Parameters
    ----------
    frames : sequence of Frame

    Returns
    -------
    dict of str to list of Frame
        Descriptions, such as ``"echo time 4.6"``, with the frames of each; one volume under an
        empty description where no place repeats, or where no attribute tells frames apart.

    Notes
    -----
    An attribute counts when it separates frames at one place and each of its values covers at
    least half of the places. One that changes from slice to slice, as acquisition times do, does
    not; where nothing else tells frames apart, their turn in time at each place does.
    """
    places = [_place(frame) for frame in frames]
    groups: dict[tuple[str, ...], list[int]] = {(): list(range(len(frames)))}
    names = dict.fromkeys(key for frame in frames for key in frame.keys)
    for name in names:
        repeated = sum(len(g) - len({places[k] for k in g}) for g in groups.values())
        if not repeated:
            break
        parted: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for label, members in groups.items():
            for k in members:
                known = frames[k].keys.get(name)
                shown = f"no {name}" if known is None else f"{name} {known}"
                parted[(*label, shown)].append(k)
        left = sum(len(g) - len({places[k] for k in g}) for g in parted.values())
        most = max(len({places[k] for k in g}) for g in groups.values())
        least = min(len({places[k] for k in g}) for g in parted.values())
        if left < repeated and 2 * least >= most:
            groups = dict(parted)
    if len(groups) == 1:
        groups = _by_time(frames, places) or groups
    ordered = sorted(groups.items(), key=lambda group: [_natural(label) for label in group[0]])
    return {", ".join(label): [frames[k] for k in members] for label, members in ordered}


def _by_time(frames: Sequence[Frame], places: Sequence[Any]) -> dict[tuple[str, ...], list[int]]:
    """Part frames by their turn in time at each place, where times differ from slice to slice.

    A heart is imaged slice by slice, and the k-th phase has another trigger time in each.
    """
    at: dict[Any, list[int]] = defaultdict(list)
    for k, place in enumerate(places):
        at[place].append(k)
    turns = {len(members) for members in at.values()}
    if len(turns) != 1 or turns == {1} or any(frame.origin is None for frame in frames):
        return {}
    for name in _TIMES:
        try:
            times = [float(frame.keys[name]) for frame in frames]
        except (KeyError, ValueError):
            continue
        if all(len({times[k] for k in members}) == len(members) for members in at.values()):
            parted: dict[tuple[str, ...], list[int]] = defaultdict(list)
            for members in at.values():
                for turn, k in enumerate(sorted(members, key=times.__getitem__), 1):
                    parted[(f"phase by {name} {turn}",)].append(k)
            return dict(parted)
    return {}


def _place(frame: Frame) -> tuple[int, ...]:
    """Return a key that frames at one place share."""
    if frame.origin is None:
        return (-1, frame.number, frame.index)
    origin = np.rint(np.clip(frame.origin / _SAME_PLACE, -1e12, 1e12)).astype(int)
    axes = () if frame.axes is None else np.rint(frame.axes.ravel() * 100).astype(int)
    return (*origin.tolist(), *(int(a) for a in axes))


def _natural(label: str) -> tuple[str, float, str]:
    """Return a sorting key by which "b-value 1000" follows "b-value 50"."""
    name, _, last = label.rpartition(" ")
    try:
        return (name, float(last), "")
    except ValueError:
        return (label, 0.0, last)
