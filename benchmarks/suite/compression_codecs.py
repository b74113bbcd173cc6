"""Image codecs at several qualities, as a user would have them: bytes and what comes back.

Volumes are (slices, rows, columns) scaled to [0, 1]. JPEG 2000 gets all slices as one tall image,
the fairest use of a codec of pictures; JPEG XL a picture a slice; ZFP, SZ3 and SPERR the volume;
HEVC and AV1 the stack as a video, where PyAV is installed (it is no dependency: its wheels hold
x265, which is under the GPL).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from napari_medgs._typing import Floats


@dataclass(frozen=True)
class Codec:
    """A codec with the settings to try, coarse to fine.

    ``run`` takes a volume and a setting, and returns bytes and what is decoded, in [0, 1].
    """

    name: str
    settings: Sequence[Any]
    run: Callable[[Floats, Any], tuple[int, Floats]]


def _whole(volume: Floats, levels: int) -> Any:
    return np.rint(volume * levels).astype(np.uint8 if levels < 256 else np.uint16)


def jpeg_2000(volume: Floats, decibel: float) -> tuple[int, Floats]:
    """OpenJPEG, one tall image of 8 bits."""
    import imagecodecs

    depth, height, width = volume.shape
    image = _whole(volume, 255).reshape(depth * height, width)
    data = imagecodecs.jpeg2k_encode(image, level=decibel, codecformat="j2k", reversible=False)
    back = imagecodecs.jpeg2k_decode(data).reshape(volume.shape)
    return len(data), back.astype(np.float32) / 255


def jpeg_xl(volume: Floats, distance: float) -> tuple[int, Floats]:
    """libjxl, effort 5, a picture of 8 bits a slice."""
    import imagecodecs

    size, back = 0, np.empty(volume.shape, np.float32)
    for k, picture in enumerate(_whole(volume, 255)):
        data = imagecodecs.jpegxl_encode(
            np.ascontiguousarray(picture), distance=distance, effort=5
        )
        size += len(data)
        back[k] = imagecodecs.jpegxl_decode(data).astype(np.float32).reshape(picture.shape) / 255
    return size, back


def zfp(volume: Floats, tolerance: float) -> tuple[int, Floats]:
    """ZFP in 3D by an absolute tolerance."""
    import imagecodecs

    data = imagecodecs.zfp_encode(volume, level=tolerance, mode="a")
    return len(data), np.clip(imagecodecs.zfp_decode(data).reshape(volume.shape), 0, 1)


def sz3(volume: Floats, tolerance: float) -> tuple[int, Floats]:
    """SZ3 in 3D by an absolute tolerance."""
    import imagecodecs

    data = imagecodecs.sz3_encode(volume, mode="abs", abs=tolerance)
    back = imagecodecs.sz3_decode(data, shape=volume.shape, dtype=volume.dtype)
    return len(data), np.clip(back, 0, 1)


def sperr(volume: Floats, bits: float) -> tuple[int, Floats]:
    """SPERR, a 3D wavelet codec, by bits a voxel."""
    import imagecodecs

    data = imagecodecs.sperr_encode(volume, bits, "bpp", numthreads=1)
    return len(data), np.clip(imagecodecs.sperr_decode(data).reshape(volume.shape), 0, 1)


def video(name: str, options: dict[str, str]) -> Callable[[Floats, Any], tuple[int, Floats]]:
    """Return a codec of video: 10 bits, the stack as frames, one thread."""

    def run(volume: Floats, quality: Any) -> tuple[int, Floats]:
        import av

        _, height, width = volume.shape
        even = np.pad(volume, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
        out = io.BytesIO()
        packets = 0
        with av.open(out, "w", format="matroska") as container:
            stream = container.add_stream(name, rate=25, options={**options, "crf": str(quality)})
            stream.width, stream.height = even.shape[2], even.shape[1]
            stream.pix_fmt, stream.thread_count = "yuv420p10le", 1
            for picture in _whole(even, 1023):
                frame = av.VideoFrame.from_ndarray(picture << 6, format="gray16le")
                frame = frame.reformat(
                    format="yuv420p10le", src_color_range="JPEG", dst_color_range="JPEG"
                )
                for packet in stream.encode(frame):
                    packets += packet.size
                    container.mux(packet)
            for packet in stream.encode():
                packets += packet.size
                container.mux(packet)
        out.seek(0)
        shown = []
        with av.open(out) as container:
            for frame in container.decode(video=0):
                plane = frame.planes[0]
                rows = np.frombuffer(plane, np.uint16).reshape(-1, plane.line_size // 2)
                shown.append(rows[:height, :width].astype(np.float32) / 1023)
        return packets, np.clip(np.stack(shown), 0, 1)

    return run


def codecs(volume: Floats, quick: bool) -> list[Codec]:
    """Return the codecs that can run here, with settings around 30 to 42 dB."""
    found = []
    if find_spec("imagecodecs") is not None:
        tolerances = (0.3, 0.16, 0.1, 0.06, 0.04, 0.025, 0.016)
        found += [
            Codec("JPEG 2000", (24, 27, 30, 33, 36, 39, 42), jpeg_2000),
            Codec("JPEG XL", (12.0, 8.0, 5.0, 3.5, 2.2, 1.4, 0.8), jpeg_xl),
            Codec("ZFP", (1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125), zfp),
            Codec("SZ3", tolerances, sz3),
            Codec("SPERR", (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2), sperr),
        ]
    large = min(volume.shape[1:]) >= 64  # x265 needs frames of a few blocks
    if find_spec("av") is not None and large and not quick:
        quiet = {"x265-params": "log-level=none:pools=none:frame-threads=1", "preset": "slow"}
        found.append(Codec("HEVC", (44, 39, 34, 29, 24, 19, 15), video("libx265", quiet)))
        steps = {"preset": "6", "svtav1-params": "lp=1"}
        found.append(Codec("AV1", (61, 52, 43, 34, 25, 18), video("libsvtav1", steps)))
    if quick:
        return [Codec(c.name, c.settings[1::2], c.run) for c in found]
    return found
