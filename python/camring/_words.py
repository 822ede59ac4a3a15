"""The words of the ring: states, reasons, colour descriptions."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Self


class _Word(StrEnum):
    """A word of the ring's layout; a number that this version has no word for is that number, as text."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not (isinstance(value, str) and value.isascii() and value.isdigit()):
            return None
        member = str.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member


class State(_Word):
    """What a camera's daemon is doing."""

    STARTING = "starting"
    """The daemon has the ring and has not tried the camera yet."""
    CONNECTING = "connecting"
    """The camera was never reached so far; trying."""
    SYNCING = "syncing"
    """Packets arrive, no picture yet."""
    LIVE = "live"
    """Frames are published."""
    DEGRADED = "degraded"
    """Frames are missing or late; the reason says why."""
    STALLED = "stalled"
    """No frame for too long; the session is being torn down."""
    RECONNECTING = "reconnecting"
    """Was live before; trying again."""
    PARKED = "parked"
    """Paused on purpose because nobody reads."""
    STOPPED = "stopped"
    """Stopped by the operator."""
    ERROR = "error"
    """Needs an operator; the reason says why."""
    RESTARTING = "restarting"
    """A teardown missed its deadline; the process is being replaced."""


class Reason(_Word):
    """Why a camera is in its state."""

    NONE = "none"
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    DNS = "dns"
    TLS = "tls"
    AUTH = "auth"
    NOT_FOUND = "not_found"
    NOT_RTSP = "not_rtsp"
    NO_VIDEO = "no_video"
    UNSUPPORTED_CODEC = "unsupported_codec"
    NO_KEYFRAME = "no_keyframe"
    NO_PACKETS = "no_packets"
    DECODER_STUCK = "decoder_stuck"
    DECODER_ERROR = "decoder_error"
    LOSS_GATE = "loss_gate"
    LAG = "lag"
    LOW_FPS = "low_fps"
    SERVER_CLOSED = "server_closed"
    END_OF_FILE = "end_of_file"
    SERVER_BUSY = "server_busy"
    NO_ROOM = "no_room"
    NAME_TAKEN = "name_taken"
    FRAME_TOO_LARGE = "frame_too_large"
    CONFIG = "config"
    INTERNAL = "internal"
    OPERATOR = "operator"
    FROZEN = "frozen"
    BLACK = "black"
    PLANNED = "planned"


class Color(NamedTuple):
    """Colour description of the source, as code points of ITU-T H.273."""

    primaries: int
    transfer: int
    matrix: int
    """1 = BT.709, 5 and 6 = BT.601, 9 = BT.2020, 0 = RGB, 2 = unspecified."""
    full_range: bool
