"""What a library says about a damaged file, for a sentence of ours."""

from __future__ import annotations


def reason(error: BaseException, length: int = 200) -> str:
    r"""Return an error's text in one line, or its kind where it has no text.

    Parameters
    ----------
    error : BaseException
    length : int
        Most characters.

    Returns
    -------
    str

    Examples
    --------
    >>> reason(ValueError("bad magic:\n  0x00")), reason(EOFError())
    ('bad magic: 0x00', 'EOFError')
    """
    return " ".join(str(error).split())[:length] or type(error).__name__
