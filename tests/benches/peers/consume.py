"""A program that wants the pictures of a camera as BGR arrays: reads them one way, and says how old each was when it had it.

    consume.py WAY URL-OR-RING FRAMES      ways: camring, bare, opencv-ffmpeg, opencv-ffmpeg-best, opencv-gstreamer,
                                           opencv-gstreamer-best, ffmpeg-pipe

Prints one JSON object: milliseconds from the time painted into each picture (src/sim/stamp.rs) until the array was there.
"""

from __future__ import annotations

import binascii
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

WARM_UP = 50
"""Pictures that are not counted: two seconds of a camera at 25 fps."""
WIDTH, HEIGHT, SIDE = 1920, 1080, 24
Array = Any


def painted_us(green: Array) -> int | None:
    """The time in the picture, microseconds; None when it cannot be read."""
    cells = green[: 8 * SIDE, : 16 * SIDE].reshape(8, SIDE, 16, SIDE)
    means = cells[:, SIDE // 4 : SIDE // 4 * 3, :, SIDE // 4 : SIDE // 4 * 3].mean(axis=(1, 3))
    stamp = np.packbits(means >= 128).tobytes()
    if stamp[0] != 0xA6 or binascii.crc_hqx(stamp[:14], 0xFFFF) != int.from_bytes(stamp[14:], "big"):
        return None
    return int.from_bytes(stamp[7:14], "big")


arrivals_us: list[float] = []
"""When the last packet of each picture was here, where the way tells: what is before it is the camera's."""


def camring_ring(name: str) -> Iterator[Array]:
    """The service's ring, copied."""
    import camring

    with camring.attach(name, timeout=20.0) as ring:
        while True:
            frame = ring.next(timeout=10.0)
            arrivals_us.append(frame.arrival_ns / 1e3)
            yield frame.numpy()


def bare(url: str) -> Iterator[Array]:
    """The smallest pipeline in this process, and OpenCV's conversion."""
    import cv2
    from gstreamer import Pipeline

    pipeline = Pipeline(
        f"rtspsrc location={url} protocols=tcp latency=100 ! rtph264depay ! h264parse ! avdec_h264 max-threads=1 "
        "! video/x-raw,format=I420 ! appsink name=end sync=false max-buffers=1 drop=true"
    )
    out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    while (picture := pipeline.pull(10.0)) is not None:
        cv2.cvtColor(picture.bytes.reshape(HEIGHT * 3 // 2, WIDTH), cv2.COLOR_YUV2BGR_I420, dst=out)
        yield out
        picture.release()


def opencv(source: str, backend: str, *settings: tuple[str, int]) -> Iterator[Array]:
    """cv2.VideoCapture in a loop."""
    import cv2

    values = [value for name, number in settings if hasattr(cv2, name) for value in (getattr(cv2, name), number)]
    capture = cv2.VideoCapture(source, getattr(cv2, backend), values)
    if not capture.isOpened():
        raise SystemExit(f"OpenCV {cv2.__version__} does not open {source} with {backend}")
    while True:
        there, picture = capture.read()
        if not there:
            return
        yield picture


def opencv_ffmpeg(url: str) -> Iterator[Array]:
    """As it comes, over TCP."""
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "rtsp_transport;tcp"
    return opencv(url, "CAP_FFMPEG")


def opencv_ffmpeg_best(url: str) -> Iterator[Array]:
    """With what its users recommend to each other: one thread, no buffering."""
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay|threads;1"
    return opencv(url, "CAP_FFMPEG", ("CAP_PROP_N_THREADS", 1))


def opencv_gstreamer(url: str) -> Iterator[Array]:
    """A plain pipeline: rtspsrc waits its two seconds, the sink keeps time."""
    return opencv(f"rtspsrc location={url} protocols=tcp ! decodebin ! videoconvert ! appsink", "CAP_GSTREAMER")


def opencv_gstreamer_best(url: str) -> Iterator[Array]:
    """No waiting anywhere, the newest picture only."""
    launch = (
        f"rtspsrc location={url} protocols=tcp latency=0 ! rtph264depay ! h264parse ! avdec_h264 max-threads=1 ! videoconvert "
        "! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )
    return opencv(launch, "CAP_GSTREAMER")


def ffmpeg_pipe(url: str) -> Iterator[Array]:
    """ffmpeg in a process of its own, whole pictures through a pipe into a reused buffer."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-rtsp_transport", "tcp", "-i", url, "-an", "-f", "rawvideo", "-pix_fmt", "bgr24", "pipe:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0) as child:
        assert child.stdout
        picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        room = memoryview(picture).cast("B")
        try:
            while True:
                at = 0
                while at < len(room):
                    count = child.stdout.readinto(room[at:])
                    if not count:
                        return
                    at += count
                yield picture
        finally:
            child.kill()


WAYS: dict[str, Callable[[str], Iterator[Array]]] = {
    "camring": camring_ring,
    "bare": bare,
    "opencv-ffmpeg": opencv_ffmpeg,
    "opencv-ffmpeg-best": opencv_ffmpeg_best,
    "opencv-gstreamer": opencv_gstreamer,
    "opencv-gstreamer-best": opencv_gstreamer_best,
    "ffmpeg-pipe": ffmpeg_pipe,
}


def main() -> None:
    """Reads until there are enough."""
    way, source, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    values: list[float] = []
    camera: list[float] = []
    unreadable = 0
    for number, picture in enumerate(WAYS[way](source)):
        now_us = time.monotonic_ns() / 1e3
        if number < WARM_UP:
            continue
        painted = painted_us(picture[:, :, 1])
        if painted is None:
            unreadable += 1
        else:
            values.append((now_us - painted) / 1e3)
            if arrivals_us:
                camera.append((arrivals_us[-1] - painted) / 1e3)
        if number >= WARM_UP + count:
            break
    print(json.dumps({"ms": values, "camera_ms": camera, "unreadable": unreadable}), flush=True)
    # Backends that hang in their teardown are not what is measured.
    os._exit(0)


if __name__ == "__main__":
    main()
