"""What a worker sees of a ring."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from writer import DEADLINE, Writer, byte_of, eventually, payload_of

import camring
from camring import _camring

StartWriter = Callable[..., Writer]


def test_a_ring_without_a_frame_attaches_and_says_why_there_is_none(writer: StartWriter) -> None:
    writer("front", "--frames", "0")
    with camring.attach("front") as ring:
        assert (ring.name, ring.state, ring.reason) == ("front", camring.State.CONNECTING, camring.Reason.NONE)
        assert (ring.shape, ring.width, ring.height, ring.format, ring.seq) == (None, None, None, None, 0)
        assert ring.writer_alive
        with pytest.raises(camring.NoFrame) as caught:
            ring.latest()
        assert str(caught.value) == 'ring "front" has no frame yet; its camera is connecting'
        assert (caught.value.state, caught.value.reason) == ("connecting", "none")


def test_pixels_shape_and_metadata_are_those_that_were_written(writer: StartWriter) -> None:
    writer("front", "--size", "854x405", "--frames", "7", "--fps", "0").wait()
    ring = camring.attach("front")
    frame = ring.latest()
    assert (frame.seq, frame.skipped, frame.source_seq, frame.valid) == (7, 0, 7, True)
    assert (frame.width, frame.height, frame.stride, frame.format) == (854, 405, 854 * 3, "bgr")
    assert (frame.shape, frame.nbytes, frame.planes) == ((405, 854, 3), 854 * 405 * 3, ((0, 854 * 3),))
    picture = np.asarray(frame)
    assert picture.shape == (405, 854, 3) and picture.dtype == np.uint8
    assert picture.tobytes() == payload_of(7, frame.nbytes)
    assert bytes(frame) == picture.tobytes()
    assert picture[3, 5, 1] == byte_of(7, 3 * 854 * 3 + 5 * 3 + 1)
    assert frame.flags == ("keyframe", "synthetic") and frame.keyframe and frame.synthetic and not frame.corrupt
    assert frame.arrival_ns <= frame.decoded_ns <= frame.publish_ns <= time.monotonic_ns()
    assert 0 < frame.age < DEADLINE
    assert (frame.source_unix_ns, frame.time_source, frame.fit) == (None, "none", "none")
    assert frame.color == camring.Color(0, 0, 0, False)
    assert frame.to_source(3.0, 4.5) == (3.0, 4.5)
    assert (ring.shape, ring.width, ring.height, ring.format, ring.seq) == ((405, 854, 3), 854, 405, "bgr", 7)
    assert frame.generation == ring.generation and len(frame.generation) == 32
    assert frame.writer_epoch == ring.writer_epoch == 1


def test_the_array_is_the_frames_own_memory_and_writable(writer: StartWriter) -> None:
    writer("front", "--frames", "1").wait()
    ring = camring.attach("front")
    frame = ring.latest()
    first, second = frame.numpy(), np.asarray(frame)
    assert np.shares_memory(first, second) and first.flags.writeable and first.flags.c_contiguous
    first[0, 0] = 255
    assert second[0, 0, 0] == 255 and memoryview(frame).cast("B")[0] == 255
    assert bytes(ring.latest()) == payload_of(1, frame.nbytes), "the ring itself is untouched"


def test_every_kind_of_buffer_request_is_answered(writer: StartWriter) -> None:
    writer("front", "--size", "64x48", "--frames", "1").wait()
    view = memoryview(camring.attach("front").latest())
    assert (view.format, view.itemsize, view.ndim, view.shape) == ("B", 1, 3, (48, 64, 3))
    assert (view.strides, view.readonly, view.c_contiguous, view.nbytes) == ((192, 3, 1), False, True, 9216)
    assert view[47, 63, 2] == byte_of(1, 9215)
    plain = bytearray(9216)
    plain[:] = bytes(view)
    assert plain == payload_of(1, 9216)


def test_latest_repeats_a_frame_and_next_never_does(writer: StartWriter) -> None:
    writer("front", "--frames", "3").wait()
    ring = camring.attach("front")
    assert [ring.latest().seq, ring.latest().seq] == [3, 3]
    with pytest.raises(TimeoutError) as caught:
        ring.next(timeout=0.05)
    assert isinstance(caught.value, camring.Timeout)
    assert (caught.value.state, caught.value.writer_alive) == (camring.State.STOPPED, False)
    assert str(caught.value).endswith(
        'its camera is stopped (operator) and its daemon is not running; start camring@front'
    )
    assert caught.value.waited >= 0.05
    assert ring.stats().frames == 1


def test_skip_counts_are_exact_for_a_reader_of_any_speed(writer: StartWriter) -> None:
    writer("front", "--fps", "400", "--frames", "300")
    seen: list[tuple[int, int]] = []
    with camring.attach("front") as ring:
        for frame in ring:
            assert bytes(frame) == payload_of(frame.seq, frame.nbytes)
            seen.append((frame.seq, frame.skipped))
            if len(seen) % 10 == 0:
                eventually(lambda: ring.seq >= min(frame.seq + 5, 300), "five more frames")
        stats = ring.stats()
    assert seen[-1][0] == 300, "iteration ends with the last frame, after the camera was stopped"
    assert seen[0][1] == 0
    for (before, _), (seq, skipped) in zip(seen, seen[1:], strict=False):
        assert seq == before + skipped + 1
    assert (stats.frames, stats.skipped) == (len(seen), sum(skipped for _, skipped in seen))
    assert stats.skipped >= 5


def test_frames_are_never_torn_and_never_go_back_at_full_speed(writer: StartWriter) -> None:
    writer("front", "--fps", "0", "--slots", "3", "--size", "320x240")
    ring = camring.attach("front")
    last = 0
    for _ in range(300):
        try:
            frame = ring.next(timeout=DEADLINE)
        except camring.Overrun as overrun:
            assert overrun.oldest > 0
            continue
        assert frame.seq > last
        last = frame.seq
        assert bytes(frame) == payload_of(frame.seq, frame.nbytes)
    assert last > 0


def test_views_stay_valid_after_the_ring_is_closed_and_the_file_is_gone(writer: StartWriter, shm_dir: Path) -> None:
    running = writer("front", "--size", "640x360")
    ring = camring.attach("front")
    frame = ring.next(timeout=DEADLINE)
    seq, picture = frame.seq, np.asarray(frame)
    ring.close()
    running.kill()
    for path in shm_dir.glob("**/*front*"):
        path.unlink()
    del frame, ring
    gc.collect()
    assert picture.tobytes() == payload_of(seq, 640 * 360 * 3)


def test_a_frames_memory_is_used_again_but_never_under_a_view(writer: StartWriter) -> None:
    writer("front", "--size", "640x360", "--fps", "200")
    ring = camring.attach("front")
    frame = ring.next(timeout=DEADLINE)
    kept, seq, gone = np.asarray(frame), frame.seq, weakref.ref(frame)
    del frame
    assert gone() is not None, "the view keeps its frame"
    addresses = set()
    for _ in range(40):
        other = ring.next(timeout=DEADLINE)
        addresses.add(np.asarray(other).ctypes.data)
        assert not np.shares_memory(kept, np.asarray(other))
    assert len(addresses) <= 3, "freed frames give their memory to later ones"
    assert kept.tobytes() == payload_of(seq, kept.nbytes)
    del kept
    assert gone() is None


def test_a_closed_ring_says_so(writer: StartWriter) -> None:
    writer("front", "--frames", "1").wait()
    with camring.attach("front") as ring:
        assert not ring.closed
    assert ring.closed and "closed" in repr(ring) and ring.name == "front"
    for use in (ring.latest, ring.next, ring.stats, ring.info, lambda: ring.state, lambda: next(iter(ring))):
        with pytest.raises(ValueError, match=r'^ring "front" is closed; attach again$'):
            use()
    ring.close()


def test_a_frame_older_than_max_age_is_refused_with_age_and_state(writer: StartWriter) -> None:
    writer("front", "--frames", "1").wait()
    ring = camring.attach("front")
    assert ring.latest(max_age=DEADLINE * 10).seq == 1
    eventually(lambda: ring.latest().age > 0.01, "the frame is older than 10 ms")
    with pytest.raises(camring.StaleFrame) as caught:
        ring.latest(max_age=0.005)
    assert caught.value.age >= 0.01 and caught.value.limit == 0.005 and caught.value.state == "stopped"
    assert str(caught.value).startswith('the newest frame of ring "front" is ')
    assert " ms old, expected at most 5 ms; its camera is stopped (operator)" in str(caught.value)


def test_a_callers_buffer_takes_the_frame(writer: StartWriter) -> None:
    writer("front", "--size", "64x48", "--frames", "2").wait()
    ring = camring.attach("front")
    expected = payload_of(2, 9216)
    plain = bytearray(9216)
    frame = ring.latest(out=plain)
    assert frame.seq == 2 and plain == expected
    assert np.shares_memory(np.asarray(frame), np.frombuffer(plain, np.uint8))
    picture = np.zeros((48, 64, 3), np.uint8)
    shown = ring.latest(out=picture).numpy()
    assert picture.tobytes() == expected and np.shares_memory(shown, picture)


def test_a_buffer_that_cannot_take_the_frame_is_refused_in_words(writer: StartWriter) -> None:
    writer("front", "--size", "64x48", "--frames", "1").wait()
    ring = camring.attach("front")
    wrong: list[tuple[Any, str]] = [
        (bytearray(10), "the buffer has 10 bytes but the frame needs 9216; make it that size"),
        (bytes(9216), "out is read-only; pass a bytearray or a writable, contiguous array"),
        (
            np.zeros((48, 128, 3), np.uint8)[:, ::2],
            "out is not contiguous; pass a bytearray or a writable, contiguous array",
        ),
        (
            np.zeros((64, 48, 3), np.uint8),
            'out has the shape [64, 48, 3] of "B" but the frames of ring "front" are [48, 64, 3] of uint8; '
            "make an array like that",
        ),
        (
            np.zeros((48, 16, 3), np.float32),
            'out has the shape [48, 16, 3] of "f" but the frames of ring "front" are [48, 64, 3] of uint8; '
            "make an array like that",
        ),
    ]
    for out, text in wrong:
        with pytest.raises(ValueError) as caught:
            ring.latest(out=out)
        assert isinstance(caught.value, camring.BufferMismatch) and str(caught.value) == text
    with pytest.raises(camring.BufferMismatch, match="^out has no buffer to write into"):
        ring.latest(out=7)  # type: ignore[arg-type]


def documented_reader() -> Any:
    """The class that docs/segment.md prints: the standard library alone."""
    document = (Path(__file__).resolve().parents[2] / "docs/segment.md").read_text()
    _, _, chapter = document.partition("## 13. A complete reader in Python")
    _, _, rest = chapter.partition("```python\n")
    program, fence, _ = rest.partition("\n```")
    assert fence, "docs/segment.md has no program in chapter 13"
    names: dict[str, Any] = {}
    exec(program, names)
    return names["Ring"]


def test_the_reader_in_the_standard_library_agrees(writer: StartWriter, shm_dir: Path) -> None:
    running = writer("front", "--size", "405x31", "--fps", "200")
    ring = camring.attach("front")
    ring.next(timeout=DEADLINE)
    plain = documented_reader()("front", str(shm_dir))
    for _ in range(50):
        found = plain.latest()
        assert (found.width, found.height, found.stride) == (405, 31, 1215)
        assert found.pixels == payload_of(found.seq, 405 * 31 * 3)
    running.stop()
    frame, found = ring.latest(), plain.latest()
    assert (found.seq, found.flags, found.pixels) == (frame.seq, frame.flag_bits, bytes(frame))
    assert (frame.width, frame.height, frame.stride) == (found.width, found.height, found.stride)


def test_rings_lists_what_is_there_and_what_cannot_be_read(writer: StartWriter, shm_dir: Path) -> None:
    assert camring.rings() == []
    writer("front", "--size", "64x48", "--frames", "5", "--fps", "0").wait()
    writer("back", "--frames", "0")
    ring = camring.attach("front")
    ring.latest()
    back, front = camring.rings(shm_dir=shm_dir)
    assert (back.name, back.state, back.writer_alive, back.seq, back.width, back.age) == (
        "back", "connecting", True, 0, None, None,
    )
    assert (front.name, front.segment, front.state, front.reason) == ("front", "camring.front", "stopped", "operator")
    assert (front.writer_alive, front.error, front.seq, front.slots) == (False, None, 5, 8)
    assert (front.width, front.height, front.format) == (64, 48, "bgr")
    assert front.counters["published"] == 5 and front.generation == ring.generation
    assert front.file_bytes >= 8 * 64 * 48 * 3
    damaged = next(path for path in shm_dir.glob("*.d/*") if path.name == "back").with_name("odd")
    damaged.write_bytes(b"no ring at all" * 400)
    odd = next(info for info in camring.rings() if info.name == "odd")
    assert odd.state is None and odd.error is not None and 'segment "odd"' in odd.error


def test_several_threads_share_one_ring(writer: StartWriter) -> None:
    writer("front", "--fps", "200", "--frames", "200")
    ring = camring.attach("front")
    seen: list[list[int]] = [[], [], []]

    def read(numbers: list[int]) -> None:
        for frame in ring:
            assert bytes(frame) == payload_of(frame.seq, frame.nbytes)
            numbers.append(frame.seq)

    threads = [threading.Thread(target=read, args=(numbers,)) for numbers in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()
    for numbers in seen:
        assert numbers == sorted(set(numbers)), "no thread gets a frame twice"
    together = sorted(number for numbers in seen for number in numbers)
    assert together == sorted(set(together)), "no frame goes to two threads"
    assert len(together) == ring.stats().frames and together[-1] == 200


def test_the_enums_hold_every_word_of_the_layout() -> None:
    words = _camring._words()
    assert [str(state) for state in camring.State] == words["state"]
    assert [str(reason) for reason in camring.Reason] == words["reason"]
    assert camring.State("live") is camring.State.LIVE
    assert (str(camring.State.LIVE), camring.State.LIVE.value) == ("live", "live")
    assert camring.State("77") == "77" and camring.State("77").name == "UNKNOWN_77"
    with pytest.raises(ValueError):
        camring.State("alive")
