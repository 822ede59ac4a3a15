"""The newest frame of every camera, out of shared memory.

One service per camera decodes its stream once and writes the frames into a ring in shared memory. This package attaches
to such rings by name and reads the newest frame: no queue, no pickling, no gap when the camera or the service restarts.
`Ring.lease()` reads it in place, `async for` waits for it in an event loop, and `Writer` publishes rings from Python.

    import camring

    with camring.attach("front") as ring:
        for frame in ring:
            picture = frame.numpy()
"""

import atexit

from camring._camring import (
    Frame,
    Ring,
    RingInfo,
    Stats,
    Writer,
    __version__,
    _close_writers,
    attach,
    nearest,
    rings,
    wait_any,
)
from camring._capture import VideoCapture
from camring._errors import (
    Apart,
    BufferMismatch,
    Error,
    Forked,
    InvalidName,
    LayoutMismatch,
    LeaseUnavailable,
    NameTaken,
    NoFrame,
    NoRoom,
    NoSlot,
    NotYet,
    Overrun,
    Revoked,
    RingBusy,
    RingNotFound,
    RingPermission,
    StaleFrame,
    SystemRefused,
    Timeout,
)
from camring._words import Color, Reason, State

__all__ = [
    "Apart",
    "BufferMismatch",
    "Color",
    "Error",
    "Forked",
    "Frame",
    "InvalidName",
    "LayoutMismatch",
    "LeaseUnavailable",
    "NameTaken",
    "NoFrame",
    "NoRoom",
    "NoSlot",
    "NotYet",
    "Overrun",
    "Reason",
    "Revoked",
    "Ring",
    "RingBusy",
    "RingInfo",
    "RingNotFound",
    "RingPermission",
    "StaleFrame",
    "State",
    "Stats",
    "SystemRefused",
    "Timeout",
    "VideoCapture",
    "Writer",
    "__version__",
    "attach",
    "nearest",
    "rings",
    "wait_any",
]

# Tracebacks and pickles name the public place.
for _public in (
    Apart,
    BufferMismatch,
    Color,
    Error,
    Forked,
    InvalidName,
    LayoutMismatch,
    LeaseUnavailable,
    NameTaken,
    NoFrame,
    NoRoom,
    NoSlot,
    NotYet,
    Overrun,
    Reason,
    Revoked,
    RingBusy,
    RingNotFound,
    RingPermission,
    StaleFrame,
    State,
    SystemRefused,
    Timeout,
    VideoCapture,
):
    _public.__module__ = __name__
del _public

# A writer that nobody has closed ends in an orderly way with the interpreter: readers see `stopped`, not a crash.
atexit.register(_close_writers)
