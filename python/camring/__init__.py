"""The newest frame of every camera, out of shared memory.

One service per camera decodes its stream once and writes the frames into a ring in shared memory. This package attaches
to such rings by name and reads the newest frame: no queue, no pickling, no gap when the camera or the service restarts.

    import camring

    with camring.attach("front") as ring:
        for frame in ring:
            picture = frame.numpy()
"""

from camring._camring import Frame, Ring, RingInfo, Stats, __version__, attach, rings
from camring._capture import VideoCapture
from camring._errors import (
    BufferMismatch,
    Error,
    InvalidName,
    LayoutMismatch,
    NoFrame,
    Overrun,
    RingNotFound,
    RingPermission,
    StaleFrame,
    SystemRefused,
    Timeout,
)
from camring._words import Color, Reason, State

__all__ = [
    "BufferMismatch",
    "Color",
    "Error",
    "Frame",
    "InvalidName",
    "LayoutMismatch",
    "NoFrame",
    "Overrun",
    "Reason",
    "Ring",
    "RingInfo",
    "RingNotFound",
    "RingPermission",
    "StaleFrame",
    "State",
    "Stats",
    "SystemRefused",
    "Timeout",
    "VideoCapture",
    "__version__",
    "attach",
    "rings",
]

# Tracebacks and pickles name the public place.
for _public in (
    BufferMismatch,
    Color,
    Error,
    InvalidName,
    LayoutMismatch,
    NoFrame,
    Overrun,
    Reason,
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
