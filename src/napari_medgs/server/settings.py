"""What the server allows, checked once as it starts."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from napari_medgs._util.settings import check, setting
from napari_medgs.errors import ParameterError

PORT = 1527
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class ServerSettings:
    """Where the server listens, who may use it, and how much they may take.

    Attributes
    ----------
    host : str
        Address to listen on; the own machine alone by default.
    port : int
        0 takes a free one.
    api_key : str
        Clients must send it; empty for none. Needed where the address is not the own machine.
    max_sessions : int
        Clients at once.
    idle_timeout : float
        Seconds without an action of the user after which a session ends.
    liveness_timeout : float
        Seconds without any request after which a session ends.
    max_body_mb : int
        Largest body of a request, packed.
    max_voxels : int
        Most voxels of an image.
    max_channels : int
        Most contrasts of an image.
    threads : int, optional
        CPU threads of all computations of one session.

    Raises
    ------
    ParameterError
        For a value out of its range, or an address open to others without a key.

    Examples
    --------
    >>> ServerSettings().max_sessions
    4
    >>> ServerSettings(host="0.0.0.0")
    Traceback (most recent call last):
    ...
    napari_medgs.errors.ParameterError: The address 0.0.0.0 can be reached from other machines: \
set a key, best in the environment variable MEDGS_API_KEY.
    """

    host: str = setting("127.0.0.1", label="Address", help="Address to listen on.")
    port: int = setting(PORT, low=0, high=65535, help="Port to listen on; 0: a free one.")
    api_key: str = setting("", help="Clients must send this key.")
    max_sessions: int = setting(4, low=1, high=1000, help="Clients at once.")
    idle_timeout: float = setting(
        600.0, above=0, high=1e6, unit="s", help="A session without actions ends after this time."
    )
    liveness_timeout: float = setting(
        60.0, above=0, high=1e6, unit="s", help="A session without a request ends after this time."
    )
    max_body_mb: int = setting(
        2000, low=1, high=100_000, unit="MB", help="Largest body of a request, packed."
    )
    max_voxels: int = setting(
        300_000_000, low=1, high=10**10, help="Most voxels of an image, contrasts not counted."
    )
    max_channels: int = setting(8, low=1, high=100, help="Most contrasts of an image.")
    threads: int | None = setting(
        None, low=1, high=1024, none="all CPUs", help="CPU threads of one session's computations."
    )

    def __post_init__(self) -> None:
        check(self)
        if self.api_key and (not self.api_key.isascii() or not self.api_key.isprintable()):
            raise ParameterError("The key may hold printable ASCII characters only.")
        if not self.api_key and not is_loopback(self.host):
            raise ParameterError(
                f"The address {self.host} can be reached from other machines: set a key, best in "
                "the environment variable MEDGS_API_KEY."
            )

    def __repr__(self) -> str:
        """Return the settings without the key."""
        return f"ServerSettings({self.host}:{self.port}, key {'set' if self.api_key else 'none'})"


def is_loopback(host: str) -> bool:
    """Return whether an address is that of the own machine.

    Parameters
    ----------
    host : str

    Returns
    -------
    bool

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
