"""`VideoCapture`: the newest frame behind the methods of `cv2.VideoCapture`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Self

from camring._camring import Frame, Ring, attach
from camring._errors import LayoutMismatch, Overrun, RingNotFound, Timeout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _Picture = NDArray[np.uint8]

# OpenCV's numbers of the properties that mean something here.
_POS_MSEC = 0
_POS_FRAMES = 1
_FRAME_WIDTH = 3
_FRAME_HEIGHT = 4
_FPS = 5
_FORMAT = 8
_CONVERT_RGB = 16
_BUFFERSIZE = 38
_OPEN_TIMEOUT_MSEC = 53
_READ_TIMEOUT_MSEC = 54

_CV_8UC3 = 16


class VideoCapture:
    """Takes the place of `cv2.VideoCapture(url)`: always the newest frame, through outages and restarts.

    `name` is the ring's; `timeout` is how long opening waits for the ring and reading for a frame, in seconds. A ring
    that is not there yet is no error, as with OpenCV: `isOpened()` says so, and every `read()` looks again. One that
    may not be read, or is none, raises. Pictures are BGR; frames in `rgb`, `bgra`, `rgba` and `gray` are converted.
    """

    def __init__(self, name: str, timeout: float = 5.0, *, shm_dir: str | os.PathLike[str] | None = None) -> None:
        self._name = name
        self._open_timeout = timeout
        self._read_timeout = timeout
        self._shm_dir = shm_dir
        self._ring: Ring | None = None
        self._frame: Frame | None = None
        self._lent = False
        self._released = False
        self._attach(timeout)

    def open(self, name: str) -> bool:
        """Lets go of the ring and opens another; whether it is there."""
        self.release()
        self._name = name
        self._released = False
        return self._attach(self._open_timeout)

    def isOpened(self) -> bool:
        """Whether the ring is there; the camera behind it may be away all the same."""
        return self._ring is not None

    def grab(self) -> bool:
        """Waits for a frame newer than the last one; False after the timeout."""
        deadline = time.monotonic() + self._read_timeout
        self._frame = None
        if not self._attach(self._read_timeout):
            return False
        assert self._ring is not None
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                self._frame = self._ring.next(timeout=left)
            except Overrun:
                # Overtaken: the next look finds a newer frame.
                if left == 0.0:
                    return False
            except Timeout:
                return False
            else:
                self._lent = False
                return True

    def retrieve(self, image: _Picture | None = None, flag: int = 0) -> tuple[bool, _Picture | None]:
        """The picture that `grab` found: the caller's own, or `image` filled with it; `flag` is without effect."""
        if self._frame is None:
            return False, None
        picture = _bgr(self._frame, self._name)
        if image is not None and image.shape == picture.shape and image.dtype == picture.dtype:
            image[...] = picture
            return True, image
        # The frame's own memory goes out once, so that a caller may draw into it.
        if self._lent:
            picture = picture.copy()
        self._lent = True
        return True, picture

    def read(self, image: _Picture | None = None) -> tuple[bool, _Picture | None]:
        """Waits for a frame newer than the last one and returns it; never the same one twice."""
        if not self.grab():
            return False, None
        return self.retrieve(image)

    def get(self, propId: int) -> float:
        """The property behind OpenCV's number; 0 for one without a meaning here."""
        frame, ring = self._frame, self._ring
        if propId == _POS_MSEC:
            return frame.pts_ns / 1e6 if frame else 0.0
        if propId == _POS_FRAMES:
            return float(frame.seq) if frame else 0.0
        if propId == _FRAME_WIDTH:
            return float((ring and ring.width) or 0)
        if propId == _FRAME_HEIGHT:
            return float((ring and ring.height) or 0)
        if propId == _FPS:
            return ring.info().fps if ring else 0.0
        if propId == _OPEN_TIMEOUT_MSEC:
            return self._open_timeout * 1000
        if propId == _READ_TIMEOUT_MSEC:
            return self._read_timeout * 1000
        return {_FORMAT: float(_CV_8UC3), _CONVERT_RGB: 1.0, _BUFFERSIZE: 1.0}.get(propId, 0.0)

    def set(self, propId: int, value: float) -> bool:
        """Sets a timeout; True also for what is so already (one frame buffered, BGR), else False."""
        if propId == _OPEN_TIMEOUT_MSEC and value >= 0:
            self._open_timeout = value / 1000
            return True
        if propId == _READ_TIMEOUT_MSEC and value >= 0:
            self._read_timeout = value / 1000
            return True
        return propId in (_BUFFERSIZE, _CONVERT_RGB) and value == 1

    def release(self) -> None:
        """Lets go of the ring; pictures already read stay valid."""
        self._released = True
        self._frame = None
        if self._ring is not None:
            self._ring.close()
            self._ring = None

    def getBackendName(self) -> str:
        """`CAMRING`."""
        return "CAMRING"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()

    def _attach(self, timeout: float) -> bool:
        if self._ring is None and not self._released:
            try:
                self._ring = attach(self._name, timeout=timeout, shm_dir=self._shm_dir)
            except RingNotFound:
                return False
        return self._ring is not None


def _bgr(frame: Frame, name: str) -> _Picture:
    """The frame as OpenCV would give it."""
    picture: NDArray[Any] = frame.numpy()
    match frame.format:
        case "bgr":
            return picture
        case "bgra":
            return picture[..., :3].copy()
        case "rgb":
            return picture[..., ::-1].copy()
        case "rgba":
            return picture[..., 2::-1].copy()
        case "gray":
            return picture[..., None].repeat(3, axis=2)
    raise LayoutMismatch(
        f'ring "{name}" holds {frame.format} frames but VideoCapture gives BGR pictures; '
        "read an output in bgr, or use camring.attach"
    )
