"""Files within forms, as older clients send them: NumPy's and raw arrays, compressed or not.

All that a form, a header or a compressed stream claims is compared with limits before memory is
taken for it, and nothing is written to a disk.
"""

from __future__ import annotations

import io
import math
import zlib
from itertools import pairwise
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.server.packing import PackingError, TooLargeError

MOST_PARTS = 8
GZIP = b"\x1f\x8b"
HEADER_BYTES = 10_000  # of a NumPy file
Form = dict[str, memoryview]


def read_form(body: bytes, content_type: str) -> Form:
    r"""Return the fields of a form.

    Parameters
    ----------
    body : bytes
    content_type : str
        The request's header.

    Returns
    -------
    dict of str to memoryview
        By their names; parts of the body.

    Raises
    ------
    PackingError
        When it is no form.

    Examples
    --------
    >>> body = (
    ...     b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n12\r\n--x--\r\n'
    ... )
    >>> {k: bytes(v) for k, v in read_form(body, "multipart/form-data; boundary=x").items()}
    {'a': b'12'}
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise PackingError("The body must be a form with files (multipart/form-data).")
    fields: Form = {}
    headers: list[tuple[str, bytes]] = []
    name, value = bytearray(), bytearray()
    spans: list[tuple[int, int]] = []

    def on_header_end() -> None:
        headers.append((name.decode("latin-1").lower(), bytes(value)))
        name.clear()
        value.clear()

    def on_part_end() -> None:
        disposition = next((v for k, v in headers if k == "content-disposition"), b"")
        key = parse_options_header(disposition)[1].get(b"name", b"").decode("latin-1")
        if len(fields) >= MOST_PARTS:
            raise PackingError(f"The form has more than {MOST_PARTS} parts.")
        fields[key] = _joined(memoryview(body), spans)
        headers.clear()
        spans.clear()

    parser = MultipartParser(
        options[b"boundary"],
        {
            "on_header_field": lambda data, a, b: name.extend(data[a:b]),
            "on_header_value": lambda data, a, b: value.extend(data[a:b]),
            "on_header_end": on_header_end,
            "on_part_data": lambda _, a, b: spans.append((a, b)),
            "on_part_end": on_part_end,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise PackingError("The form is damaged.") from None
    return fields


def _joined(body: memoryview, spans: list[tuple[int, int]]) -> memoryview:
    """Return a part of the body; without a copy where its spans follow each other."""
    if all(a[1] == b[0] for a, b in pairwise(spans)):
        return body[spans[0][0] : spans[-1][1]] if spans else body[:0]
    return memoryview(b"".join(body[a:b] for a, b in spans))


def field(form: Form, name: str) -> memoryview:
    """Return a field of a form.

    Raises
    ------
    PackingError
        When it has none of that name.
    """
    if name not in form:
        raise PackingError(f"The form has no field {name!r}.")
    return form[name]


def gunzip(data: memoryview | bytes, most: int) -> memoryview | bytes:
    """Return what is in a gzip stream; other data as it is.

    Parameters
    ----------
    data : bytes
    most : int
        Bytes.

    Raises
    ------
    PackingError, TooLargeError
        When it is damaged, or holds more.

    Examples
    --------
    >>> import gzip
    >>> gunzip(gzip.compress(b"abc"), 3)
    b'abc'
    """
    if bytes(data[:2]) != GZIP:
        return data
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        out = stream.decompress(data, most + 1)
    except zlib.error:
        raise PackingError("The compressed data are damaged.") from None
    if len(out) > most:
        raise TooLargeError(f"The compressed data hold more than {most / 1e6:.1f} MB.")
    if not stream.eof:
        raise PackingError("The compressed data end too early.")
    return out


def npy_header(data: memoryview | bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, order, type and length of the header of a NumPy file.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    shape : tuple of int
    fortran : bool
    dtype : dtype
    start : int
        Where the values begin.

    Raises
    ------
    PackingError
        When it is no such file, or holds anything but numbers.
    """
    from numpy.lib import format as npy

    file = io.BytesIO(data[: HEADER_BYTES + 12])
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(file, max_header_size=HEADER_BYTES)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError):
        raise PackingError("The file is no NumPy array.") from None
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise PackingError("The NumPy array must hold numbers.")
    if not 1 <= len(shape) <= 4 or min(shape) < 1:
        raise PackingError("The NumPy array must have one to four axes, none of them empty.")
    return shape, fortran, dtype, file.tell()


def read_npy(data: memoryview | bytes, most: int) -> NDArray[Any]:
    """Return the array of a NumPy file that may be compressed.

    Parameters
    ----------
    data : bytes
    most : int
        Bytes of the array.

    Raises
    ------
    PackingError, TooLargeError
        When it is damaged, or larger.

    Examples
    --------
    >>> import io
    >>> import numpy as np
    >>> file = io.BytesIO()
    >>> np.save(file, np.eye(2))
    >>> read_npy(file.getvalue(), 100).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    data = gunzip(data, most + HEADER_BYTES)
    shape, fortran, dtype, start = npy_header(data)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes > most:
        raise TooLargeError(f"The NumPy array is larger than {most / 1e6:.1f} MB.")
    if len(data) - start != nbytes:
        raise PackingError("The NumPy array is cut off, or has more values than it says.")
    values = np.frombuffer(data, dtype, offset=start)
    return values.reshape(shape, order="F" if fortran else "C")
