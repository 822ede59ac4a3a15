"""What can go wrong; every text says what was found, what was expected and what to do."""

from __future__ import annotations

from camring._words import Reason, State


class Error(Exception):
    """Every error of this package, beside ValueError for arguments that make no sense."""


class InvalidName(Error, ValueError):
    """The text is no name of a ring or segment."""


class _SystemError(Error, OSError):
    """Shows its text without the number that `errno` holds."""

    def __str__(self) -> str:
        return str(self.strerror)


class RingNotFound(_SystemError, FileNotFoundError):
    """There is no ring of that name, or it was removed; `filename` is the first place that was looked at."""


class RingPermission(_SystemError, PermissionError):
    """This user may not read the ring, or its owner is not to be trusted; the text names the group or the owner."""


class SystemRefused(_SystemError):
    """The operating system refused something; `errno` says how."""


class LayoutMismatch(Error):
    """The file is no ring, a damaged one, or one of a layout that this version does not speak."""


class NoFrame(Error):
    """Nothing has been published yet."""

    state: State
    """What the camera's daemon is doing."""
    reason: Reason
    """Why."""


class StaleFrame(Error):
    """The newest frame is older than `max_age`."""

    age: float
    """Its age, seconds."""
    limit: float
    """What was asked for, seconds."""
    state: State
    """What the camera's daemon is doing."""
    reason: Reason
    """Why."""


class Timeout(Error, TimeoutError):
    """No newer frame came in time; `except TimeoutError` catches it."""

    waited: float
    """How long was waited, seconds."""
    writer_alive: bool
    """Whether a daemon is there at all."""
    state: State
    """What the camera's daemon is doing, or was when it ended."""
    reason: Reason
    """Why."""


class Overrun(Error):
    """The writer overtook every attempt to copy the frame: the ring has too few slots for this reader."""

    oldest: int
    """Number of the oldest frame still held."""


class BufferMismatch(Error, ValueError):
    """`out` cannot take the frame: read-only, not contiguous, or of another size, shape or item."""
