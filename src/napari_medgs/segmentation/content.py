"""The part of an image that says anything: no constant margins, copies, or constants in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.data.field import GaussianField
from napari_medgs.data.grid import Grid
from napari_medgs.data.volume import Volume
from napari_medgs.segmentation.blanked import Blanked, blanked_of
from napari_medgs.segmentation.constant_margins import box_without_margins
from napari_medgs.segmentation.far_constants import RIM, SAMPLE, Clip, clip_of
from napari_medgs.segmentation.local import Box, window
from napari_medgs.segmentation.prompts.collector import drawn_voxels
from napari_medgs.segmentation.prompts.prompts import Box as BoxPrompt
from napari_medgs.segmentation.prompts.prompts import Point, Prompts, most_likely

COPY = 1e-6  # of a channel's variance that another one does not explain
SPARE = 1.0  # voxels around the box in which centers of Gaussians count


@dataclass(frozen=True)
class Content:
    """A box of an image's voxels, and some of its channels.

    Outside of the box every side of the image has one value, as in an image that was padded: what
    is measured over all voxels (ranges, noise, the number of Gaussians) would count it. A channel
    that another one tells all of would count twice. Constants in the box that lie far from all
    other intensities are brought to their end, and parts that were set to one value among them
    to their low end.

    Attributes
    ----------
    full : Grid
        Of the image.
    box : tuple of slice
    channels : tuple of int
        Those that are left, increasing.
    clips : tuple of Clip
    blanks : tuple of Blanked or None
        One for each channel of the image, in the voxels of the box.
    """

    full: Grid
    box: Box
    channels: tuple[int, ...]
    clips: tuple[Clip, ...]
    blanks: tuple[Blanked | None, ...]

    @classmethod
    def all_of(cls, volume: Volume) -> Content:
        """Return all of an image, as it is."""
        count = volume.channels
        return cls(
            volume.grid,
            window((0, 0, 0), volume.shape),
            tuple(range(count)),
            (Clip(),) * count,
            (None,) * count,
        )

    @property
    def grid(self) -> Grid:
        """The grid of the box."""
        low = np.array([s.start for s in self.box])
        affine = self.full.affine.copy()
        affine[:3, 3] = self.full.to_world(low)
        z, y, x = (s.stop - s.start for s in self.box)
        return Grid((z, y, x), affine)

    @property
    def is_cropped(self) -> bool:
        """Whether the image has a margin."""
        return self.grid.shape != self.full.shape

    @property
    def is_changed(self) -> bool:
        """Whether a channel has constants far from all else, or parts set to one value."""
        return any(clip.is_needed for clip in self.clips) or any(
            blank is not None for blank in self.blanks
        )

    @property
    def is_part(self) -> bool:
        """Whether it is less than the image: without a margin, or without constants in it."""
        return self.is_cropped or self.is_changed

    @property
    def whole(self) -> Content:
        """The same channels of all voxels, as they are."""
        return replace(self.as_measured, box=window((0, 0, 0), self.full.shape))

    @property
    def as_measured(self) -> Content:
        """The same box with all intensities as they are."""
        return replace(self.fitted, clips=(Clip(),) * len(self.clips))

    @property
    def fitted(self) -> Content:
        """What a field is fitted to: parts at one value as they are, or they have no Gaussians."""
        return replace(self, blanks=(None,) * len(self.blanks))

    def copied_bytes(self, volume: Volume) -> int:
        """Return how many bytes :meth:`volume` copies."""
        if not self.is_changed and not self.is_cropped:
            return 0
        voxels = int(np.prod(self.grid.shape, dtype=np.int64))
        masks = sum(blank is not None for blank in self.blanks)
        return voxels * (len(self.channels) * volume.data.itemsize + masks)

    def volume(self, volume: Volume, every_channel: bool = False) -> Volume:
        """Return the image in the box.

        Parameters
        ----------
        volume : Volume
        every_channel : bool
            Copies, too.
        """
        data, names = volume.data[(slice(None), *self.box)], volume.channel_names
        channels = range(volume.channels) if every_channel else self.channels
        missing = volume.missing
        if missing is not None:
            missing = np.ascontiguousarray(missing[(list(channels), *self.box)])
        if len(channels) < volume.channels:
            names = tuple(names[c] for c in channels)
            if not self.is_changed:
                data = data[list(channels)]
        if self.is_changed:
            data = self._changed(data, channels)
        grid = self.grid if self.is_cropped else self.full
        return Volume(np.ascontiguousarray(data), grid, names, volume.units, missing)

    def _changed(self, data: NDArray[Any], channels: Sequence[int]) -> NDArray[Any]:
        """Return channels of the box without the constants in it, copied once."""
        out = np.empty((len(channels), *data.shape[1:]), data.dtype)
        for mine, c in zip(out, channels, strict=True):
            self.clips[c].cut(data[c], out=mine)
            blank = self.blanks[c]
            if blank is not None:
                mine[blank.where] = blank.low
        return out

    def field(self, field: GaussianField) -> GaussianField:
        """Return the Gaussians of a field of the image that lie in the box, on its grid."""
        if not self.is_cropped:
            return field
        low = np.array([s.start for s in self.box]) - SPARE - 0.5
        high = np.array([s.stop for s in self.box]) + SPARE - 0.5
        centers = field.voxel_centers()
        inside = ((centers >= low) & (centers < high)).all(axis=1)
        return field.subset(np.flatnonzero(inside)).on_grid(self.grid)

    def spread(self, field: GaussianField, volume: Volume) -> GaussianField:
        """Return a field of the box as one of the whole image, whose margin is background."""
        if not self.is_cropped:
            return field
        moved, info = field.on_grid(self.full), field.info
        margin = self._margin_values(volume)
        background = field.background.copy()
        scaled = (margin - np.asarray(info.intensity_offset)) / np.asarray(info.intensity_scale)
        background[: len(margin)] = scaled.clip(0, 1)
        arrays = {name: getattr(moved, name) for name in moved.tensor_names()}
        return GaussianField(**{**arrays, "background": background}, info=moved.info)

    def _margin_values(self, volume: Volume) -> NDArray[np.float64]:
        z, y, x = (-1 if s.start == 0 else 0 for s in self.box)
        values: NDArray[np.float64] = volume.data[:, z, y, x].astype(np.float64)
        return values

    def is_between(self, lowest: float | None, highest: float | None) -> bool:
        """Tell whether a limit of intensities lies where constants of the first channel move."""
        blank = self.blanks[0]
        return self.clips[0].between(lowest, highest) or (
            blank is not None and blank.between(lowest, highest)
        )

    def is_enough(self, prompts: Prompts, volume: Volume) -> bool:
        """Tell whether prompts can be solved in the box alone, without the constants in it.

        They can where most of what is marked of every class and some of the background lies in
        it, off these constants, and nothing of a mask to refine or of a locked class is outside.

        Parameters
        ----------
        prompts : Prompts
        volume : Volume
            The whole image.
        """
        if not self.is_part:
            return True
        flat, label = drawn_voxels(prompts, self.full.shape, self.full.relative_spacing)
        inside = self.inside(flat)
        if self.is_changed:
            inside &= ~self._constant(volume, np.unravel_index(flat, volume.shape))
        for value in np.unique(label):
            mine = inside[label == value]
            if not mine.any() or (value > 0 and mine.mean() <= 0.5):
                return False
        size = self.grid.shape
        for box in prompts.boxes:
            part = self._clipped(box)
            if part is None or (part.start, part.stop) == ((0, 0, 0), size):
                return False  # what is background around it lies in the margin
            if self.is_changed and self._constant(volume, _around(box, volume.shape)).mean() > 0.5:
                return False  # or has no other value
        masks = []
        if prompts.initial is not None:
            masks.append(prompts.initial > 0)
        if prompts.prior is not None:
            masks.append(most_likely(prompts.prior) > 0)
        if prompts.locked and prompts.result is not None:
            masks.append(np.isin(prompts.result, sorted(prompts.locked)))
        if self.is_changed and any(
            self._constant(volume, np.nonzero(m)).mean() > 0.5 for m in masks if m.any()
        ):
            return False
        return all(np.count_nonzero(m) == np.count_nonzero(m[self.box]) for m in masks)

    def _constant(self, volume: Volume, places: tuple[NDArray[np.intp], ...]) -> NDArray[np.bool_]:
        """Tell which voxels of the image are constants in it, in all channels with some."""
        inside = self._holds(places)
        at = tuple(p[inside] - s.start for p, s in zip(places, self.box, strict=True))
        found = np.ones(len(places[0]), np.bool_)
        for channel, clip, blank in zip(volume.data, self.clips, self.blanks, strict=True):
            if clip.is_needed or blank is not None:
                mine = clip.holds(channel[places])
                if blank is not None:
                    mine[inside] |= blank.where[at]
                found &= mine
        return found

    def inside(self, flat: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which voxels, by their flat indices in the image, lie in the box."""
        return self._holds(np.unravel_index(flat, self.full.shape))

    def _holds(self, places: tuple[NDArray[np.intp], ...]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = np.logical_and.reduce(
            [(p >= s.start) & (p < s.stop) for p, s in zip(places, self.box, strict=True)]
        )
        return found

    def prompts(self, prompts: Prompts) -> Prompts:
        """Return prompts in the voxels of the box; what lies outside is left out."""
        if not self.is_cropped:
            return prompts

        def part(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else array[(..., *self.box)]

        clipped = [self._clipped(box) for box in prompts.boxes]
        return replace(
            prompts,
            labels=part(prompts.labels),
            initial=part(prompts.initial),
            prior=part(prompts.prior),
            result=part(prompts.result),
            fully_labeled=tuple(
                (axis, index - self.box[axis].start)
                for axis, index in prompts.fully_labeled
                if self.box[axis].start <= index < self.box[axis].stop
            ),
            points=tuple(self._moved(p) for p in prompts.points if self._in_box(p)),
            boxes=tuple(box for box in clipped if box is not None),
        )

    def outside(self, prompts: Prompts) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return what strokes and points outside of the box give a label: flat indices, labels."""
        own = tuple(p for p in prompts.points if not self._in_box(p))
        flat, label = drawn_voxels(
            replace(prompts, points=own), self.full.shape, self.full.relative_spacing
        )
        out = ~self.inside(flat)
        return flat[out], label[out]

    def _in_box(self, point: Point) -> bool:
        return all(
            s.start - 0.5 <= p <= s.stop - 0.5
            for p, s in zip(point.position, self.box, strict=True)
        )

    def _moved(self, point: Point) -> Point:
        z, y, x = (p - s.start for p, s in zip(point.position, self.box, strict=True))
        return replace(point, position=(z, y, x))

    def _clipped(self, box: BoxPrompt) -> BoxPrompt | None:
        low = [max(a, s.start) - s.start for a, s in zip(box.start, self.box, strict=True)]
        high = [min(b, s.stop) - s.start for b, s in zip(box.stop, self.box, strict=True)]
        if any(a >= b for a, b in zip(low, high, strict=True)):
            return None
        return BoxPrompt((low[0], low[1], low[2]), (high[0], high[1], high[2]), box.label)


def find_content(volume: Volume) -> Content | None:
    """Return what an image is without constant margins, constants in it and copies of channels.

    Parameters
    ----------
    volume : Volume
        Finite, no channel constant.

    Returns
    -------
    Content or None
        None where it is all of the image.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).normal(size=(4, 12, 12))
    >>> padded = np.pad(noise, 3)
    >>> content = find_content(Volume.from_array(np.stack([padded, 5 - 2 * padded])))
    >>> [(s.start, s.stop) for s in content.box], content.channels
    ([(3, 7), (3, 15), (3, 15)], (0,))
    >>> find_content(Volume.from_array(noise)) is None
    True
    """
    data = volume.data
    if any(not np.isfinite(float(c.max()) - float(c.min())) for c in data):
        return None  # a fit refuses what spans more than all floating-point numbers
    box = box_without_margins(data)
    even = any(channel[box].min() == channel[box].max() for channel in data)
    if even or sum(s.stop - s.start > 1 for s in box) < 2:
        box = window((0, 0, 0), volume.shape)  # an even object in an even background
    channels = without_copies(data[(slice(None), *box)], range(len(data)))
    # What stands for missing values is a constant that the solver does not look at.
    complete = [volume.missing is None or not volume.missing[c].any() for c in range(len(data))]
    clips = tuple(clip_of(d[box]) if all_of else Clip() for d, all_of in zip(data, complete))
    blanks = tuple(blanked_of(d[box]) if all_of else None for d, all_of in zip(data, complete))
    content = Content(volume.grid, box, channels, clips, blanks)
    return content if content.is_part or len(channels) < len(data) else None


def _around(box: BoxPrompt, shape: Sequence[int]) -> tuple[NDArray[np.intp], ...]:
    """Return the voxels of what is taken as background around a box."""
    wide = window(
        [max(0, a - RIM) for a in box.start],
        [min(n, b + RIM) for b, n in zip(box.stop, shape, strict=True)],
    )
    outside = np.ones([s.stop - s.start for s in wide], np.bool_)
    outside[
        tuple(
            slice(max(a, 0) - s.start, b - s.start)
            for a, b, s in zip(box.start, box.stop, wide, strict=True)
        )
    ] = False
    return tuple(p + s.start for p, s in zip(np.nonzero(outside), wide, strict=True))


def without_copies(data: NDArray[Any], channels: Iterable[int]) -> tuple[int, ...]:
    """Return the channels that are no copies of earlier ones, up to a factor and a constant.

    Parameters
    ----------
    data : (C, Z, Y, X) ndarray
    channels : iterable of int
        Those to choose from.

    Returns
    -------
    tuple of int
    """
    kept: list[int] = []
    for c in channels:
        if not any(_is_copy(data[c], data[k]) for k in kept):
            kept.append(c)
    return tuple(kept)


def _is_copy(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Tell whether a channel is a multiple of another one plus a constant."""
    step = max(1, one.size // SAMPLE)
    if not _explains(one.reshape(-1)[::step], other.reshape(-1)[::step]):
        return False
    return _explains(one.reshape(-1), other.reshape(-1))


def _explains(one: NDArray[Any], other: NDArray[Any]) -> bool:
    first, second = (v.astype(np.float64) - float(v[0]) for v in (one, other))
    first -= first.mean()
    second -= second.mean()
    square = float(first @ first) * float(second @ second)
    return float(first @ second) ** 2 >= (1 - COPY) * square
