"""Frames read in place: held, revoked, kept, and what outlives what."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from writer import DEADLINE, Writer, child_sees_revoked, eventually, lease_bytes, payload_of

import camring

StartWriter = Callable[..., Writer]
SIZE = 64 * 48 * 3


def publish(out: camring.Writer, *numbers: int) -> None:
    for number in numbers:
        assert out.publish(payload_of(number, SIZE)) == number


@pytest.fixture
def out(shm_dir: Path) -> Iterator[camring.Writer]:
    """A ring of three slots: two leases are all that it can honour."""
    with camring.Writer("front", shape=(48, 64, 3), slots=3) as out:
        yield out


def revoke(out: camring.Writer, frame: camring.Frame) -> None:
    """Makes the writer take the frame's slot: every other one is leased or the newest."""
    publish(out, frame.seq + 1)
    with camring.attach("front").lease():
        publish(out, frame.seq + 2, frame.seq + 3)
    assert not frame.valid


def test_a_lease_shows_the_frame_in_place_and_holds_it_against_the_writer(out: camring.Writer) -> None:
    ring = camring.attach("front")
    publish(out, 1)
    with ring.lease() as frame:
        assert (frame.seq, frame.shape, frame.is_leased, frame.is_guarded, frame.valid) == (
            1, (48, 64, 3), True, True, True,
        )
        picture = frame.numpy()
        again = np.asarray(frame)
        assert np.shares_memory(picture, again)
        publish(out, *range(2, 20))
        assert frame.valid and picture.tobytes() == bytes(frame) == payload_of(1, SIZE)
        assert ring.latest().seq == 19
    assert not frame.is_leased and not frame.is_guarded
    assert out.publish(payload_of(20, SIZE)) == 20


def test_a_lease_costs_no_copy(writer: StartWriter, shm_dir: Path) -> None:
    writer("front", "--frames", "1").wait()
    ring = camring.attach("front")
    with ring.lease() as first, ring.lease() as second:
        assert np.shares_memory(first.numpy(), second.numpy()), "both are the ring's own memory"
        address = first.numpy().ctypes.data
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "camring.d/front" in line]
    maps += [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if ".d/front" in line]
    spans = [[int(end, 16) for end in line[0].split("-")] for line in maps]
    assert any(start <= address < end for start, end in spans)
    assert {line[1] for line in maps} == {"r--s"}


def test_writing_into_a_leased_frame_raises(out: camring.Writer) -> None:
    publish(out, 1)
    with camring.attach("front").lease() as frame:
        picture, view = frame.numpy(), memoryview(frame)
        assert view.readonly and not picture.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            picture[0, 0, 0] = 1
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
            picture.flags.writeable = True
        with pytest.raises(TypeError, match="read-only"):
            view[0, 0, 0] = 1
        with pytest.raises(TypeError, match="read-write"), Path("/dev/zero").open("rb") as zeros:
            zeros.readinto(frame)
        with pytest.raises(camring.BufferMismatch, match="^out is read-only"):
            camring.attach("front").latest(out=frame)
    assert bytes(camring.attach("front").latest()) == payload_of(1, SIZE)


def test_a_lease_that_the_writer_takes_back_raises_revoked_at_the_end(out: camring.Writer) -> None:
    ring = camring.attach("front")
    publish(out, 1)
    with pytest.raises(camring.Revoked) as caught, ring.lease() as frame:
        assert frame.valid
        revoke(out, frame)
        assert frame.is_leased and not frame.valid
    assert caught.value.seq == 1
    assert str(caught.value) == (
        'frame 1 of ring "front" was overwritten while it was leased; discard what was read from it, and set more '
        "slots or hold leases for less time"
    )
    frame.release()
    assert not frame.valid and ring.latest().seq == 4
    assert ring.info().counters["leases_revoked"] == 1


def test_an_exception_in_the_block_is_not_masked_and_gets_a_note(out: camring.Writer) -> None:
    ring = camring.attach("front")
    publish(out, 1)
    with pytest.raises(KeyError) as caught, ring.lease() as frame:
        revoke(out, frame)
        raise KeyError("the user's own")
    assert caught.value.args == ("the user's own",) and caught.value.__context__ is None
    assert [note.split(";")[0] for note in caught.value.__notes__] == [
        'frame 1 of ring "front" was overwritten while it was leased'
    ]
    with pytest.raises(KeyError) as caught, ring.lease():
        raise KeyError("without a note")
    assert not hasattr(caught.value, "__notes__")
    assert not frame.is_leased


def test_release_says_the_same_once_and_is_harmless_for_copies(out: camring.Writer) -> None:
    ring = camring.attach("front")
    publish(out, 1)
    frame = ring.lease()
    revoke(out, frame)
    with pytest.raises(camring.Revoked):
        frame.release()
    frame.release()
    with frame:
        pass
    with ring.latest() as copy:
        assert not copy.is_leased and copy.valid
    copy.release()
    assert copy.valid and copy.numpy().flags.writeable


def test_a_view_kept_after_the_lease_keeps_its_memory_and_valid_tells(out: camring.Writer, shm_dir: Path) -> None:
    ring = camring.attach("front")
    publish(out, 1)
    with ring.lease() as frame:
        picture = frame.numpy()
    assert frame.valid and picture.tobytes() == payload_of(1, SIZE), "nobody has used the slot so far"
    publish(out, 2, 3, 4)
    assert not frame.valid
    assert picture.tobytes() in {payload_of(number, SIZE) for number in (3, 4)}, "the writer has used it"
    ring.close()
    out.close()
    for path in shm_dir.glob("**/*front"):
        path.unlink()
    del ring, frame
    gc.collect()
    assert picture.sum() > 0, "the mapping is there as long as the view"


def test_a_forgotten_lease_ends_with_its_last_view(out: camring.Writer, shm_dir: Path) -> None:
    path = shm_dir / "camring.front"
    publish(out, 1)
    ring = camring.attach("front")
    picture = ring.latest(copy=False).numpy()
    gc.collect()
    assert lease_bytes(path) == 1, "the view keeps the frame, the frame keeps the lease"
    publish(out, 2, 3, 4)
    assert picture.tobytes() == payload_of(1, SIZE)
    part = picture[10:20, ::2]
    del picture
    assert lease_bytes(path) == 1
    del part
    gc.collect()
    assert lease_bytes(path) == 0


def test_latest_without_a_copy_is_a_lease(out: camring.Writer) -> None:
    ring = camring.attach("front")
    with pytest.raises(camring.NoFrame):
        ring.latest(copy=False)
    publish(out, 1)
    frame = ring.latest(copy=False, max_age=DEADLINE)
    assert frame.is_leased and not frame.numpy().flags.writeable and bytes(frame) == payload_of(1, SIZE)
    with pytest.raises(ValueError, match="^out is a place for a copy; pass copy=False or out, not both$"):
        ring.latest(copy=False, out=bytearray(SIZE))
    with pytest.raises(camring.StaleFrame):
        eventually(lambda: frame.age > 0.002, "an age of 2 ms")
        ring.latest(copy=False, max_age=0.001)
    assert ring.stats().frames == 1


def test_lease_next_waits_for_a_frame_not_yet_seen(out: camring.Writer) -> None:
    ring = camring.attach("front")
    publish(out, 1)
    with ring.lease_next(timeout=DEADLINE) as frame:
        assert (frame.seq, frame.skipped) == (1, 0)
    with pytest.raises(camring.Timeout) as caught:
        ring.lease_next(timeout=0.01)
    assert caught.value.waited >= 0.01 and caught.value.writer_alive
    seen: list[tuple[int, int]] = []

    def wait() -> None:
        with ring.lease_next(timeout=DEADLINE) as frame:
            seen.append((frame.seq, frame.skipped))

    thread = threading.Thread(target=wait)
    thread.start()
    publish(out, 2)
    thread.join(DEADLINE)
    assert seen == [(2, 0)]


def test_leases_nest_and_end_in_any_order(out: camring.Writer, shm_dir: Path) -> None:
    path = shm_dir / "camring.front"
    ring = camring.attach("front")
    publish(out, 1)
    first, second = ring.lease(), ring.lease()
    publish(out, 2)
    third = ring.lease()
    assert ([frame.seq for frame in (first, second, third)], lease_bytes(path)) == ([1, 1, 2], 2)
    first.release()
    assert lease_bytes(path) == 2, "the second lease of frame 1 goes on"
    publish(out, 3)
    assert second.valid and third.valid
    second.release()
    assert lease_bytes(path) == 1
    publish(out, 4, 5)
    assert third.valid and not first.valid and not second.valid
    third.release()
    assert lease_bytes(path) == 0


def test_leases_in_threads_are_whole_beside_a_writer_at_full_speed(writer: StartWriter) -> None:
    writer("front", "--fps", "0", "--slots", "12", "--size", "64x48")
    ring = camring.attach("front")
    ring.next(timeout=DEADLINE)
    wrong: list[str] = []
    counts = [0, 0, 0, 0]

    def read(mine: int) -> None:
        last = 0
        for _ in range(150):
            try:
                with ring.lease() as frame:
                    before = bytes(frame)
                    newest = ring.seq
                    eventually(lambda: ring.seq > newest + 24, "the writer goes twice around")
                    if bytes(frame) != before or before != payload_of(frame.seq, SIZE) or not frame.valid:
                        wrong.append(f"frame {frame.seq} has changed")
                    if frame.seq < last:
                        wrong.append(f"frame {frame.seq} after {last}")
                    last = frame.seq
                counts[mine] += 1
            except camring.Overrun:
                continue
            except Exception as error:
                wrong.append(repr(error))
                raise

    threads = [threading.Thread(target=read, args=(mine,)) for mine in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE * 2)
    assert wrong == [] and min(counts) > 0


def test_more_leases_than_slots_are_told_apart_from_the_kept_ones(out: camring.Writer) -> None:
    with ExitStack() as stack:
        leases = []
        for number in range(1, 7):
            publish(out, number)
            leases.append(stack.enter_context(camring.attach("front").lease()))
        for frame in leases:
            whole = bytes(frame) == payload_of(frame.seq, SIZE)
            assert whole == frame.valid, f"frame {frame.seq}"
        assert [frame.valid for frame in leases].count(True) == 3 and leases[-1].valid
        for frame in leases:
            if frame.valid:
                frame.release()
            else:
                with pytest.raises(camring.Revoked):
                    frame.release()


def test_a_lease_outlives_its_ring_the_writer_and_the_generation(shm_dir: Path) -> None:
    out = camring.Writer("front", slots=3)
    out.publish(np.full((48, 64, 3), 7, np.uint8))
    ring = camring.attach("front")
    frame = ring.lease()
    for number in range(6):
        out.publish(np.full((360, 640, 3), number, np.uint8))
    assert frame.valid and frame.is_leased and ring.latest().generation != frame.generation
    out.close()
    ring.close()
    del ring
    assert frame.valid and (frame.numpy() == 7).all()
    frame.release()
    assert frame.valid, "nobody writes a replaced generation again"


def test_a_lease_survives_the_restart_of_the_writer(writer: StartWriter) -> None:
    running = writer("front", "--fps", "200", "--slots", "4")
    ring = camring.attach("front")
    frame = ring.lease_next(timeout=DEADLINE)
    for _ in range(2):
        running.kill()
        running = writer("front", "--fps", "200", "--slots", "4")
        newest = ring.seq
        eventually(lambda: ring.seq > newest + 12, "three times around the ring")
    assert frame.valid and bytes(frame) == payload_of(frame.seq, frame.nbytes)
    frame.release()


def test_a_killed_reader_gives_its_slot_back(out: camring.Writer, shm_dir: Path) -> None:
    publish(out, 1)
    program = """
        import camring, sys
        with camring.attach("front").lease() as frame:
            print(frame.seq, flush=True)
            sys.stdin.read()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "1\n"
    assert lease_bytes(shm_dir / "camring.front") == 1
    child.kill()
    eventually(lambda: lease_bytes(shm_dir / "camring.front") == 0, "the kernel frees the slot")
    child.communicate(timeout=DEADLINE)
    publish(out, *range(2, 9))
    assert out.publish(payload_of(9, SIZE)) == 9


def test_a_ring_without_leases_says_so_and_gives_copies(shm_dir: Path) -> None:
    with camring.Writer("front", shape=(48, 64, 3), lease_policy="off") as out:
        publish(out, 1)
        ring = camring.attach("front")
        with pytest.raises(camring.LeaseUnavailable) as caught:
            ring.lease()
        assert str(caught.value) == 'ring "front" cannot be leased: its lease policy is off; read copies instead'
        assert bytes(ring.latest()) == payload_of(1, SIZE)


def test_publishing_a_leased_frame_copies_it_and_never_a_torn_one(out: camring.Writer) -> None:
    publish(out, 1)
    with camring.Writer("copy", shape=(48, 64, 3)) as copy:
        frame = camring.attach("front").lease()
        copy.publish(frame, like=frame)
        assert bytes(camring.attach("copy").latest()) == payload_of(1, SIZE)
        revoke(out, frame)
        with pytest.raises(camring.Revoked):
            copy.publish(frame)
        assert copy.seq == 1
        with pytest.raises(camring.Revoked):
            frame.jpeg()


def test_a_forked_child_sees_inherited_leases_revoked_and_leaves_the_parents_alone(
    out: camring.Writer, shm_dir: Path
) -> None:
    path = shm_dir / "camring.front"
    ring = camring.attach("front")
    publish(out, 1)
    with ring.lease() as frame:
        picture = frame.numpy()
        pid = os.fork()
        if pid == 0:
            signal.alarm(int(DEADLINE))
            code = 0 if not frame.valid and not frame.is_guarded else 1
            code |= 0 if picture.tobytes() == payload_of(1, SIZE) else 2
            try:
                frame.release()
                code |= 4
            except camring.Revoked:
                pass
            with ring.lease() as own:
                code |= 0 if own.valid and own.seq == 1 else 8
            del frame, picture, own
            gc.collect()
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert lease_bytes(path) == 1, "the child's exit is none of the parent's business"
        publish(out, *range(2, 9))
        assert frame.valid and picture.tobytes() == payload_of(1, SIZE)
    assert path.exists()


def test_the_lease_of_a_killed_parent_is_not_kept_by_its_child(out: camring.Writer, shm_dir: Path) -> None:
    publish(out, 1)
    program = """
        import camring, os, sys
        frame = camring.attach("front").lease()
        pid = os.fork()
        if pid == 0:
            print(os.getpid(), flush=True)
            sys.stdin.read()
            os._exit(0)
        os.waitpid(pid, 0)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None and parent.stdin is not None
    child = int(parent.stdout.readline())
    assert lease_bytes(shm_dir / "camring.front") == 1
    parent.kill()
    parent.wait(DEADLINE)
    eventually(lambda: lease_bytes(shm_dir / "camring.front") == 0, "the lease dies with the parent")
    os.kill(child, 0)
    parent.stdin.close()
    parent.stdout.close()


def test_a_multiprocessing_child_that_inherits_a_lease_ends_without_harm(
    out: camring.Writer, shm_dir: Path
) -> None:
    publish(out, 1)
    ring = camring.attach("front")
    with ring.lease() as frame:
        context: Any = multiprocessing.get_context("fork")
        answer = context.SimpleQueue()
        child = context.Process(target=child_sees_revoked, args=(frame, answer))
        child.start()
        eventually(lambda: not answer.empty() or child.exitcode is not None, "the child answers or ends")
        assert answer.get() is True
        child.join(DEADLINE)
        assert child.exitcode == 0
        publish(out, *range(2, 9))
        assert frame.valid
    with pytest.raises(TypeError, match="pickle"):
        multiprocessing.reduction.ForkingPickler.dumps(frame)
