"""`VideoCapture` in the place of cv2.VideoCapture."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from writer import DEADLINE, Writer, payload_of

import camring

StartWriter = Callable[..., Writer]


def test_a_stock_loop_reads_new_pictures_only(writer: StartWriter) -> None:
    writer("front", "--size", "64x48", "--fps", "100")
    capture = camring.VideoCapture("front", timeout=DEADLINE)
    assert capture.isOpened() and capture.getBackendName() == "CAMRING"
    numbers = []
    for _ in range(20):
        ok, picture = capture.read()
        assert ok and picture is not None and picture.shape == (48, 64, 3) and picture.flags.writeable
        seq = int(capture.get(1))
        assert picture.tobytes() == payload_of(seq, picture.nbytes)
        numbers.append(seq)
    assert numbers == sorted(set(numbers))
    assert (capture.get(3), capture.get(4), capture.get(999)) == (64.0, 48.0, 0.0)
    assert capture.get(5) > 0
    capture.release()
    assert not capture.isOpened() and capture.read() == (False, None)


def test_a_loop_that_needs_a_second_for_each_picture_reads_the_newest_one_each_time(writer: StartWriter) -> None:
    writer("front", "--size", "64x48", "--fps", "50")
    capture = camring.VideoCapture("front", timeout=DEADLINE)
    with camring.attach("front", timeout=DEADLINE) as onlooker:
        for _ in range(3):
            time.sleep(1)  # the model at work
            newest = onlooker.latest().seq
            ok, picture = capture.read()
            assert ok and picture is not None
            assert int(capture.get(1)) >= newest, "a picture that was not the newest any more"
            assert picture.tobytes() == payload_of(int(capture.get(1)), picture.nbytes)


def test_grab_and_retrieve_give_the_same_picture_in_memory_of_its_own(writer: StartWriter) -> None:
    writer("front", "--size", "64x48", "--frames", "4", "--fps", "0").wait()
    with camring.VideoCapture("front", timeout=0.0) as capture:
        assert capture.retrieve() == (False, None)
        assert capture.grab()
        first, second = capture.retrieve()[1], capture.retrieve()[1]
        assert first is not None and second is not None
        assert np.array_equal(first, second) and not np.shares_memory(first, second)
        into = np.zeros_like(first)
        assert capture.retrieve(into)[1] is into and np.array_equal(into, first)
        assert not capture.grab(), "there is no newer frame"
        assert capture.retrieve() == (False, None)


def test_a_ring_that_comes_later_is_found_by_reading(writer: StartWriter, shm_dir: Path) -> None:
    capture = camring.VideoCapture("front", timeout=0.0)
    assert not capture.isOpened() and capture.read() == (False, None)
    writer("front")
    assert capture.set(54, DEADLINE * 1000) and capture.get(54) == DEADLINE * 1000
    ok, _ = capture.read()
    assert ok and capture.isOpened()
    assert capture.open("nowhere") is False and not capture.isOpened()


def test_settings_that_change_nothing_are_told_apart(shm_dir: Path) -> None:
    capture = camring.VideoCapture("front", timeout=0.0)
    assert capture.set(38, 1) and not capture.set(38, 4) and not capture.set(3, 1280)


def test_a_name_that_can_never_be_a_ring_raises(shm_dir: Path) -> None:
    with pytest.raises(camring.InvalidName):
        camring.VideoCapture("rtsp://camera/stream")
