"""Who works on the server: one lease a client, ended by two clocks."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from napari_medgs.errors import MedGSError

BEATLESS_SECONDS = 3600.0  # programs without a heartbeat cannot connect again by themselves


class LeaseGoneError(MedGSError):
    """The session has ended, or never was."""


class FullError(MedGSError):
    """All sessions are taken."""


class Closable(Protocol):
    """What a lease holds."""

    def close(self) -> None:
        """Stop work and give memory back."""


Held = TypeVar("Held", bound=Closable)


@dataclass
class Lease(Generic[Held]):
    """One client's session.

    Attributes
    ----------
    token : str
        Names the session in requests; never logged.
    name : str
        Names it in the log.
    held : object
        What the client works on.
    acted, seen : float
        Time of the last action of the user, and of the last request.
    running : int
        Requests that are being answered: a session is not ended while one is.
    beats : bool
        Whether the client sends heartbeats.
    """

    token: str
    name: str
    held: Held
    acted: float
    seen: float
    running: int = 0
    beats: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)


class LeaseStore(Generic[Held]):
    """The leases of a server.

    Parameters
    ----------
    make : callable
        () -> what a new lease holds.
    max_sessions : int
    idle_timeout, liveness_timeout : float
        Seconds without an action of the user, and without any request, that end a session.
    clock : callable
        () -> seconds.

    Examples
    --------
    >>> class Work:
    ...     def close(self):
    ...         print("closed")
    >>> now = [0.0]
    >>> store = LeaseStore(Work, 1, 600.0, 60.0, clock=lambda: now[0])
    >>> lease = store.claim()
    >>> now[0] = 61.0
    >>> store.reap()
    closed
    1
    """

    def __init__(
        self,
        make: Callable[[], Held],
        max_sessions: int,
        idle_timeout: float,
        liveness_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make, self._clock = make, clock
        self.max_sessions = max_sessions
        self.idle_timeout, self.liveness_timeout = idle_timeout, liveness_timeout
        self._leases: dict[str, Lease[Held]] = {}
        self._lock = threading.Lock()
        self._count = 0

    def __len__(self) -> int:
        return len(self._leases)

    def claim(self, *, beats: bool = True) -> Lease[Held]:
        """Return a new lease.

        Parameters
        ----------
        beats : bool
            Whether the client sends heartbeats. One that does not keeps its session for an hour
            without an action, unless another client needs the place.

        Returns
        -------
        Lease

        Raises
        ------
        FullError
            When all sessions are taken.
        """
        self.reap()
        with self._lock:
            full = len(self._leases) >= self.max_sessions
        if full:
            self._reap(self.idle_timeout)
        with self._lock:
            if len(self._leases) >= self.max_sessions:
                raise FullError(
                    f"All {self.max_sessions} sessions of the server are taken; try again later."
                )
            self._count += 1
            now = self._clock()
            token = secrets.token_urlsafe(32)
            name = f"session {self._count}"
            lease = Lease(token, name, self._make(), now, now, beats=beats)
            self._leases[token] = lease
            return lease

    @contextmanager
    def use(self, token: str, *, acts: bool = True, quiet: bool = False) -> Iterator[Lease[Held]]:
        """Hold a lease while a request is answered.

        Parameters
        ----------
        token : str
        acts : bool
            Whether the request is an action of the user.
        quiet : bool
            Whether it leaves both clocks alone.

        Yields
        ------
        Lease

        Raises
        ------
        LeaseGoneError
            When there is no such lease any more.
        """
        self.reap()
        with self._lock:
            lease = self._leases.get(token)
            if lease is None:
                raise LeaseGoneError("The session has ended; connect again.")
            lease.running += not quiet
        try:
            yield lease
        finally:
            now = self._clock()
            with self._lock:
                lease.running -= not quiet
                if not quiet:
                    lease.seen = now
                if acts and not quiet:
                    lease.acted = now

    def remaining(self, lease: Lease[Held]) -> float:
        """Return the seconds until a session ends for want of actions."""
        return max(0.0, self.idle_timeout - (self._clock() - lease.acted))

    def release(self, token: str) -> bool:
        """End a session; return whether there was one."""
        with self._lock:
            lease = self._leases.pop(token, None)
        if lease is not None:
            lease.held.close()
        return lease is not None

    def reap(self) -> int:
        """End the sessions whose time is up; return how many."""
        return self._reap(max(self.idle_timeout, BEATLESS_SECONDS))

    def _reap(self, beatless: float) -> int:
        """End sessions; those without heartbeats after so many seconds without an action."""
        now = self._clock()

        def is_over(lease: Lease[Held]) -> bool:
            if lease.running:
                return False
            if not lease.beats:
                return now - lease.acted > beatless
            idle, unseen = now - lease.acted, now - lease.seen
            return idle > self.idle_timeout or unseen > self.liveness_timeout

        with self._lock:
            over = [lease for lease in self._leases.values() if is_over(lease)]
            for lease in over:
                del self._leases[lease.token]
        for lease in over:
            lease.held.close()
        return len(over)

    def close(self) -> None:
        """End all sessions."""
        for token in list(self._leases):
            self.release(token)
