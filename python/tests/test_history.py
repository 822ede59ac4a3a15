"""Frames chosen by number or by time, and several rings at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from writer import DEADLINE, Writer, payload_of

import camring

StartWriter = Callable[..., Writer]
SIZE = 64 * 48 * 3
MS = 1_000_000


@pytest.fixture
def out(shm_dir: Path) -> Iterator[camring.Writer]:
    with camring.Writer("front", shape=(48, 64, 3), slots=4) as out:
        yield out


def publish(out: camring.Writer, first: int, last: int, begin_ns: int = 1_000 * MS) -> None:
    """Frames whose number n arrived at begin + n * 40 ms."""
    for number in range(first, last + 1):
        assert out.publish(payload_of(number, SIZE), arrival_ns=begin_ns + number * 40 * MS) == number


def whole(frame: camring.Frame) -> bool:
    return bytes(frame) == payload_of(frame.seq, SIZE)


def test_a_frame_is_found_by_its_number_while_it_is_held(out: camring.Writer) -> None:
    ring = camring.attach("front")
    publish(out, 1, 10)
    held = [frame.seq for frame in ring.history(99)]
    assert held == [7, 8, 9, 10]
    for number in held:
        frame = ring.at(number)
        assert frame.seq == number and whole(frame) and frame.numpy().flags.writeable
    assert ring.next(timeout=DEADLINE).seq == 10, "what was chosen by number does not count as returned"


def test_an_overwritten_number_is_an_overrun_that_names_the_oldest(out: camring.Writer) -> None:
    ring = camring.attach("front")
    publish(out, 1, 10)
    with pytest.raises(camring.Overrun) as caught:
        ring.at(3)
    assert caught.value.oldest == 7
    assert str(caught.value) == (
        'ring "front" was overwritten before it was read; the oldest frame still held is 7; '
        "set more slots or read faster"
    )


def test_a_number_still_to_come_is_not_yet(out: camring.Writer) -> None:
    ring = camring.attach("front")
    with pytest.raises(camring.NoFrame):
        ring.at(1)
    publish(out, 1, 2)
    with pytest.raises(camring.NotYet) as caught:
        ring.at(5)
    assert (caught.value.seq, caught.value.newest) == (5, 2)
    assert str(caught.value) == 'frame 5 of ring "front" is not published yet, the newest is 2; wait for it'


def test_after_gives_every_frame_that_is_held_and_counts_the_others(out: camring.Writer) -> None:
    ring = camring.attach("front")
    publish(out, 1, 10)
    seen = []
    last = 2
    for _ in range(4):
        frame = ring.after(last)
        assert whole(frame)
        seen.append((frame.seq, frame.skipped))
        last = frame.seq
    assert seen == [(7, 4), (8, 0), (9, 0), (10, 0)]
    with pytest.raises(camring.Timeout) as caught:
        ring.after(10, timeout=0.01)
    assert caught.value.waited >= 0.01
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(ring.after(10, timeout=DEADLINE).seq))
    thread.start()
    publish(out, 11, 11)
    thread.join(DEADLINE)
    assert found == [11]


def test_after_follows_a_running_writer_without_a_gap(writer: StartWriter) -> None:
    writer("front", "--fps", "100", "--slots", "32", "--frames", "120")
    ring = camring.attach("front")
    last = 0
    while last < 120:
        frame = ring.after(last, timeout=DEADLINE)
        assert frame.seq == last + 1 + frame.skipped and bytes(frame) == payload_of(frame.seq, frame.nbytes)
        last = frame.seq


def test_history_gives_what_is_held_oldest_first(out: camring.Writer) -> None:
    ring = camring.attach("front")
    with pytest.raises(camring.NoFrame):
        ring.history(3)
    publish(out, 1, 2)
    assert [frame.seq for frame in ring.history(3)] == [1, 2]
    publish(out, 3, 10)
    frames = ring.history(3)
    assert [frame.seq for frame in frames] == [8, 9, 10] and all(map(whole, frames))
    assert ring.history(0) == []


def test_the_frame_nearest_to_a_time_is_found(out: camring.Writer) -> None:
    ring = camring.attach("front")
    with pytest.raises(camring.NoFrame):
        ring.nearest(0)
    publish(out, 1, 10)
    arrival = {frame.seq: frame.arrival_ns for frame in ring.history(4)}
    assert ring.nearest(arrival[8]).seq == 8
    assert ring.nearest(arrival[8] + 19 * MS).seq == 8 and ring.nearest(arrival[8] + 21 * MS).seq == 9
    assert ring.nearest(0).seq == 7 and whole(ring.nearest(0)) and ring.nearest(1 << 62).seq == 10


def test_frames_of_one_moment_on_two_cameras_are_within_half_a_period(shm_dir: Path) -> None:
    with ExitStack() as stack:
        writers = [stack.enter_context(camring.Writer(name, shape=(48, 64, 3))) for name in ("left", "right")]
        rings = [camring.attach(name) for name in ("left", "right")]
        for out, offset in zip(writers, (0, 13 * MS), strict=True):
            publish(out, 1, 6, 1_000 * MS + offset)
        t_ns = 1_000 * MS + 4 * 40 * MS + 5 * MS
        left, right = camring.nearest(rings, t_ns, 0.020)
        assert [left.seq, right.seq] == [4, 4] and whole(left) and whole(right)
        assert all(abs(frame.arrival_ns - t_ns) <= 20 * MS for frame in (left, right))
        with pytest.raises(camring.Apart) as caught:
            camring.nearest(rings, t_ns, 0.006)
        error = caught.value
        assert (error.ring, error.wanted_ns, error.nearest_ns - t_ns, error.tolerance) == ("right", t_ns, 8 * MS, 0.006)
        assert str(error) == (
            f'the frame of ring "right" nearest to {t_ns} ns arrived at {t_ns + 8 * MS} ns, expected at most 6000000 ns '
            "between them; allow more, or set more slots"
        )
        assert camring.nearest([], t_ns, 0.0) == []
        with pytest.raises(ValueError, match="^tolerance is -1"):
            camring.nearest(rings, t_ns, -1)


def test_wait_any_returns_the_rings_that_have_something_new(shm_dir: Path) -> None:
    with ExitStack() as stack:
        writers = [stack.enter_context(camring.Writer(name, shape=(48, 64, 3))) for name in ("a", "b", "c")]
        rings = [camring.attach(name) for name in ("a", "b", "c")]
        assert camring.wait_any(rings, timeout=0.01) == []
        publish(writers[1], 1, 2)
        assert camring.wait_any(rings, timeout=DEADLINE) == [rings[1]]
        assert camring.wait_any(rings, timeout=0.0) == [rings[1]], "waiting takes nothing"
        assert rings[1].next(timeout=0.0).seq == 2
        assert camring.wait_any(rings, timeout=0.0) == []
        woken: list[list[str]] = []
        thread = threading.Thread(target=lambda: woken.append([ring.name for ring in camring.wait_any(rings)]))
        thread.start()
        publish(writers[2], 1, 1)
        thread.join(DEADLINE)
        assert woken == [["c"]]
        publish(writers[0], 1, 1)
        assert camring.wait_any(tuple(rings)) == [rings[0], rings[2]]
        assert camring.wait_any([], timeout=None) == []
        rings[0].close()
        with pytest.raises(ValueError, match=r'^ring "a" is closed; attach again$'):
            camring.wait_any(rings)


def test_wait_any_lets_other_threads_run_and_ends_when_a_ring_is_closed(shm_dir: Path) -> None:
    with camring.Writer("front", shape=(48, 64, 3)):
        ring = camring.attach("front")
        ended: list[str] = []

        def wait() -> None:
            try:
                camring.wait_any([ring])
            except ValueError as error:
                ended.append(str(error))

        thread = threading.Thread(target=wait)
        thread.start()
        steps = 0
        while steps < 50:
            time.sleep(0.001)
            steps += 1
        ring.close()
        thread.join(DEADLINE)
        assert ended == ['ring "front" is closed; attach again']
