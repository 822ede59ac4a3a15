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
    """The frame was overwritten, or the writer overtook every attempt to copy it: too few slots for this reader."""

    oldest: int
    """Number of the oldest frame still held."""


class BufferMismatch(Error, ValueError):
    """`out` cannot take the frame: read-only, not contiguous, or of another size, shape or item."""


class Revoked(Error):
    """A leased frame was overwritten while it was held: discard what was computed from it."""

    seq: int
    """Number of the frame."""


class LeaseUnavailable(Error):
    """Frames of this ring cannot be leased, because of its policy or of the system's; `latest()` copies them."""


class NotYet(Error):
    """The frame has not been published yet."""

    seq: int
    """Number of the frame that was asked for."""
    newest: int
    """Number of the newest frame."""


class Apart(Error):
    """A ring holds no frame near enough to the time asked for."""

    ring: str
    """Name of the ring."""
    wanted_ns: int
    """The time asked for, ns of CLOCK_MONOTONIC."""
    nearest_ns: int
    """Arrival of the nearest frame that the ring holds, ns of CLOCK_MONOTONIC."""
    tolerance: float
    """How far away it may be, seconds."""


class RingBusy(_SystemError):
    """Another process writes the ring."""

    pid: int | None
    """The process, when it can be told."""


class NoRoom(_SystemError):
    """The memory mount has no room for the ring, or for a larger one; `filename` is the mount."""

    needed: int | None
    """Bytes that the ring needs; None while the next try is not due yet."""
    free: int | None
    """Bytes that are free; None while the next try is not due yet."""


class NameTaken(_SystemError, FileExistsError):
    """The ring's public name belongs to something else; `filename` is the name."""


class NoSlot(Error):
    """Every slot is leased under the policy `protect`, or being written; the picture was dropped and counted."""


class Forked(Error):
    """A writer was used in a forked child, where it does not belong."""

    pid: int
    """The process that owns it."""
