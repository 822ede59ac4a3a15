"""Rings that Python programs write."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_reading import documented_reader
from writer import DEADLINE, Writer, eventually, payload_of, watched

import camring

StartWriter = Callable[..., Writer]


def picture(seq: int, shape: tuple[int, ...] = (48, 64, 3)) -> NDArray[np.uint8]:
    size = int(np.prod(shape))
    return np.frombuffer(payload_of(seq, size), np.uint8).reshape(shape)


def test_every_reader_reads_what_a_program_publishes(shm_dir: Path) -> None:
    arrival = time.monotonic_ns() - 1_000_000_000
    with camring.Writer("front.drawn", shape=(48, 64, 3)) as out:
        assert (out.name, out.shape, out.format, out.seq, out.adopted) == ("front.drawn", (48, 64, 3), "bgr", 0, False)
        ring = camring.attach("front.drawn")
        with pytest.raises(camring.NoFrame):
            ring.latest()
        assert out.publish(picture(1), arrival_ns=arrival, source_seq=70, source_unix_ns=5, pts_ns=6) == 1
        frame = ring.latest()
        assert bytes(frame) == payload_of(1, 9216) and frame.shape == (48, 64, 3) and frame.format == "bgr"
        assert (frame.seq, frame.source_seq, frame.source_unix_ns, frame.pts_ns) == (1, 70, 5, 6)
        assert frame.arrival_ns == arrival and frame.age >= 1.0 and frame.flags == ("keyframe", "synthetic")
        assert abs(time.time_ns() - frame.arrival_unix_ns) >= 1_000_000_000
        assert (ring.state, ring.writer_alive) == ("live", True)
        assert out.publish(picture(2)) == 2 and ring.latest().source_seq == 71
        assert 0 <= ring.latest().age < DEADLINE
        found = documented_reader()("front.drawn", str(shm_dir)).latest()
        assert (found.seq, found.width, found.height, found.pixels) == (2, 64, 48, payload_of(2, 9216))
        assert ring.info().decoder == "camring.Writer" and out.problem is None
    assert (ring.state, ring.reason, ring.writer_alive) == ("stopped", "operator", False)
    assert bytes(ring.latest()) == payload_of(2, 9216), "the ring stays"


def test_a_waiting_reader_is_woken_by_publish(shm_dir: Path) -> None:
    with camring.Writer("front") as out:
        ring = camring.attach("front")
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(ring.next(timeout=DEADLINE).seq))
        thread.start()
        out.publish(picture(1))
        thread.join(DEADLINE)
        assert seen == [1]


@pytest.mark.parametrize(
    ("format", "shape", "dtype", "size"),
    [
        ("bgr", (6, 10, 3), np.uint8, (10, 6)),
        ("rgb", (6, 10, 3), np.uint8, (10, 6)),
        ("gray", (6, 10), np.uint8, (10, 6)),
        ("bgra", (6, 10, 4), np.uint8, (10, 6)),
        ("rgba", (6, 10, 4), np.uint8, (10, 6)),
        ("i420", (9, 10), np.uint8, (10, 6)),
        ("nv12", (9, 10), np.uint8, (10, 6)),
        ("rgb-planar-f32", (3, 6, 10), np.float32, (10, 6)),
        ("opaque", (77,), np.uint8, (0, 0)),
    ],
)
@pytest.mark.parametrize("fixed", [True, False])
def test_every_format_comes_out_as_it_went_in(
    shm_dir: Path, format: str, shape: tuple[int, ...], dtype: Any, size: tuple[int, int], fixed: bool
) -> None:
    array = (np.arange(np.prod(shape)) % 251).astype(dtype).reshape(shape)
    with camring.Writer("front", format=format, shape=shape if fixed else None) as out:
        assert out.shape == (shape if fixed else None)
        out.publish(array)
        frame = camring.attach("front").latest()
        assert (frame.format, frame.shape, frame.width, frame.height) == (format, shape, *size)
        assert np.array_equal(frame.numpy(), array) and frame.numpy().dtype == dtype


def test_arrays_that_do_not_fit_are_refused_in_words(shm_dir: Path) -> None:
    ring = 'ring "front" takes arrays of [48, 64, 3] uint8 but this one is '
    wrong: list[tuple[Any, str]] = [
        (np.zeros((48, 64, 3), np.float32), ring + '[48, 64, 3] of "f"; convert it first'),
        (np.zeros((64, 48, 3), np.uint8), ring + '[64, 48, 3] of "B"; convert it first'),
        (np.zeros((48, 64, 3), np.int8), ring + '[48, 64, 3] of "b"; convert it first'),
        (np.zeros((48, 64, 3), bool), ring + '[48, 64, 3] of "?"; convert it first'),
        (bytes(9215), ring + '[9215] of "B"; convert it first'),
        (
            np.zeros((48, 128, 3), np.uint8)[:, ::2],
            "array is not contiguous; pass a contiguous array, as numpy.ascontiguousarray makes it",
        ),
    ]
    with camring.Writer("front", shape=(48, 64, 3)) as out:
        for array, text in wrong:
            with pytest.raises(ValueError) as caught:
                out.publish(array)
            assert isinstance(caught.value, camring.BufferMismatch) and str(caught.value) == text
        with pytest.raises(camring.BufferMismatch, match="^array has no buffer to read from"):
            out.publish(7)  # type: ignore[arg-type]
        assert out.seq == 0
        assert out.publish(payload_of(1, 9216)) == 1, "as many plain bytes do, where the shape is fixed"
        assert bytes(camring.attach("front").latest()) == payload_of(1, 9216)
    with camring.Writer("back") as out, pytest.raises(camring.BufferMismatch) as caught:
        out.publish(bytes(9216))
    assert str(caught.value) == (
        'ring "back" takes arrays of (height, width, 3) uint8 but this one is [9216] of "B"; convert it first'
    )


def test_arguments_without_a_meaning_are_refused(shm_dir: Path) -> None:
    with pytest.raises(camring.InvalidName):
        camring.Writer("a/b")
    with pytest.raises(ValueError, match=r'^format is "yuyv"; expected bgr'):
        camring.Writer("front", format="yuyv")
    with pytest.raises(ValueError, match=r"^shape is \[48, 64\]; expected \(height, width, 3\) for bgr$"):
        camring.Writer("front", shape=(48, 64))
    with pytest.raises(ValueError, match='^lease_policy is "always"; expected "fresh", "protect" or "off"$'):
        camring.Writer("front", lease_policy="always")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^2 slots of "):
        camring.Writer("front", slots=2, shape=(4, 4, 3))
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(camring.Writer("front"))


def test_a_picture_made_from_a_frame_keeps_its_times_and_its_place_in_the_source(
    writer: StartWriter, shm_dir: Path
) -> None:
    writer("front", "--frames", "3", "--fps", "0").wait()
    frame = camring.attach("front").latest()
    with camring.Writer("front.drawn", shm_dir=shm_dir) as out:
        drawn = frame.numpy().copy()
        drawn[0, 0] = 255
        out.publish(drawn, like=frame)
        copy = camring.attach("front.drawn").latest()
        assert (copy.source_seq, copy.arrival_ns, copy.arrival_unix_ns) == (
            frame.source_seq, frame.arrival_ns, frame.arrival_unix_ns,
        )
        assert copy.to_source(3, 4) == frame.to_source(3, 4) and copy.seq == 1
        with pytest.raises(ValueError, match="^like is a frame of 64x48 but the array is 32x48"):
            out.publish(np.ascontiguousarray(drawn[:, ::2]), like=frame)


def test_a_frame_can_be_published_as_it_is(writer: StartWriter, shm_dir: Path) -> None:
    writer("front", "--frames", "3", "--fps", "0").wait()
    frame = camring.attach("front").latest()
    with camring.Writer("copy") as out:
        out.publish(frame, like=frame)
        assert bytes(camring.attach("copy").latest()) == bytes(frame)


def test_a_larger_array_makes_a_larger_generation_that_readers_follow(shm_dir: Path) -> None:
    with camring.Writer("front") as out:
        out.publish(picture(1))
        ring = camring.attach("front")
        first = ring.next(timeout=DEADLINE)
        for seq in range(2, 5):
            out.publish(picture(seq, (360, 640, 3)))
        frame = ring.next(timeout=DEADLINE)
        assert frame.shape == (360, 640, 3) and frame.seq == 4 and frame.skipped == 2
        assert frame.generation != first.generation and bytes(first) == payload_of(1, 9216)
        out.publish(picture(5))
        assert ring.next(timeout=DEADLINE).geometry_changed and ring.shape == (48, 64, 3)


def test_a_second_writer_of_a_ring_is_refused_with_the_firsts_pid(shm_dir: Path) -> None:
    with camring.Writer("front") as out:
        with pytest.raises(camring.RingBusy) as caught:
            camring.Writer("front", timeout=0.0)
        assert caught.value.pid == os.getpid()
        assert str(caught.value) == f'ring "front" is already written by process {os.getpid()}; stop it first'
        assert out.publish(picture(1)) == 1, "the first is undisturbed"
    with camring.Writer("front", timeout=0.0) as out:
        assert out.adopted


def test_a_restarted_writer_takes_the_ring_over_and_continues_the_numbers(shm_dir: Path) -> None:
    program = """
        import os, signal, numpy, camring
        out = camring.Writer("front", shape=(48, 64, 3))
        for seq in range(1, 4):
            out.publish(bytes((seq * 31 + k) % 251 for k in range(9216)), source_seq=seq * 10)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=DEADLINE)
    assert child.returncode == -signal.SIGKILL
    ring = camring.attach("front")
    before = ring.next(timeout=DEADLINE)
    assert (before.seq, ring.state, ring.writer_alive) == (3, "live", False)
    with camring.Writer("front", shape=(48, 64, 3)) as out:
        assert out.adopted and out.seq == 3
        assert bytes(ring.latest()) == payload_of(3, 9216)
        assert out.publish(picture(4)) == 4
        frame = ring.next(timeout=DEADLINE)
        assert (frame.seq, frame.skipped, frame.writer_epoch, frame.source_seq) == (4, 0, before.writer_epoch + 1, 31)
        assert frame.after_restart and frame.discont and frame.generation == before.generation


def test_a_forked_child_may_not_publish_and_does_the_parent_no_harm(shm_dir: Path) -> None:
    with camring.Writer("front", shape=(48, 64, 3)) as out:
        out.publish(picture(1))
        pid = os.fork()
        if pid == 0:
            signal.alarm(int(DEADLINE))
            try:
                out.publish(picture(2))
            except camring.Forked as error:
                refused = error.pid == os.getppid() and "which this one was forked from" in str(error)
            else:
                refused = False
            closed = out.closed
            out.close()
            del out
            gc.collect()
            with camring.Writer("childs") as own:
                own.publish(picture(1))
            os._exit(0 if refused and closed else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert out.publish(picture(2)) == 2 and not out.closed
        ring = camring.attach("front")
        assert (ring.state, ring.writer_alive, ring.latest().seq) == ("live", True, 2)
        with pytest.raises(camring.RingBusy):
            camring.Writer("front", timeout=0.0)


def test_a_killed_writers_forked_child_does_not_keep_the_ring(shm_dir: Path) -> None:
    program = """
        import os, signal, sys, camring
        out = camring.Writer("front", shape=(48, 64, 3))
        out.publish(bytes(9216))
        pid = os.fork()
        if pid == 0:
            print("child", os.getpid(), flush=True)
            sys.stdin.read()
            os._exit(0)
        os.waitpid(pid, 0)
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None and parent.stdin is not None
    child = int(parent.stdout.readline().split()[1])
    parent.kill()
    parent.wait(DEADLINE)
    os.kill(child, 0)
    with camring.Writer("front", shape=(48, 64, 3), timeout=DEADLINE) as out:
        assert out.adopted and out.publish(picture(2)) == 2
        os.kill(child, 0)
    parent.stdin.close()
    parent.stdout.close()


def test_a_writer_ends_in_an_orderly_way_with_its_interpreter(shm_dir: Path) -> None:
    program = """
        import camring, ctypes
        keep = camring.Writer("front", shape=(48, 64, 3))
        keep.publish(bytes(9216))
        # One reference that nobody gives back: the object is there to the very end.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(keep))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], timeout=DEADLINE, check=True)
    ring = camring.attach("front")
    assert (ring.state, ring.reason, ring.seq) == ("stopped", "operator", 1)


def test_a_writer_that_an_exception_ends_says_internal(shm_dir: Path) -> None:
    with pytest.raises(KeyError), camring.Writer("front") as out:
        out.publish(picture(1))
        raise KeyError
    ring = camring.attach("front")
    assert (ring.state, ring.reason) == ("stopped", "internal")
    assert out.closed
    with pytest.raises(ValueError, match=r'^the writer of ring "front" is closed; make another one$'):
        out.publish(picture(2))
    out.close()


def test_a_writer_that_is_dropped_leaves_the_ring_to_the_next(shm_dir: Path) -> None:
    out = camring.Writer("front")
    out.publish(picture(1))
    del out
    gc.collect()
    with camring.Writer("front", timeout=0.0) as next_one:
        assert next_one.adopted and next_one.publish(picture(2)) == 2


def test_threads_share_a_writer_and_every_frame_is_whole(shm_dir: Path) -> None:
    with camring.Writer("front", shape=(480, 640, 3), slots=4) as out:
        numbers: list[list[int]] = [[], [], []]

        def publish(mine: list[int], value: int) -> None:
            array = np.full((480, 640, 3), value, np.uint8)
            for _ in range(50):
                mine.append(out.publish(array))

        threads = [threading.Thread(target=publish, args=(mine, 10 + n)) for n, mine in enumerate(numbers)]
        ring = camring.attach("front")
        for thread in threads:
            thread.start()
        seen = 0
        while any(thread.is_alive() for thread in threads):
            try:
                values = np.unique(ring.next(timeout=DEADLINE if not seen else 0.05).numpy())
            except (camring.Timeout, camring.Overrun):
                continue
            assert len(values) == 1 and 10 <= values[0] < 13
            seen += 1
        for thread in threads:
            thread.join(DEADLINE)
    assert sorted(number for mine in numbers for number in mine) == list(range(1, 151))
    assert seen > 0


def test_other_threads_run_while_a_large_picture_is_copied(shm_dir: Path) -> None:
    shape = (2160, 3840, 3)
    with camring.Writer("front", shape=shape, slots=3) as out, watched() as seen:
        array = np.zeros(shape, np.uint8)
        end = time.monotonic() + DEADLINE
        while seen.inside == 0 and time.monotonic() < end:
            seen.busy = True
            out.publish(array)
            seen.busy = False
        assert seen.inside > 0


def test_a_fork_during_another_threads_publish_leaves_the_child_free(shm_dir: Path) -> None:
    shape = (1080, 1920, 3)
    with camring.Writer("front", shape=shape, slots=3) as out:
        stop = threading.Event()
        array = np.zeros(shape, np.uint8)

        def publish() -> None:
            while not stop.is_set():
                out.publish(array)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            for _ in range(10):
                pid = os.fork()
                if pid == 0:
                    # Without a handler, so that a child which waits for the parent's lock dies of it.
                    signal.signal(signal.SIGALRM, signal.SIG_DFL)
                    signal.alarm(int(DEADLINE / 2))
                    try:
                        out.publish(array)
                    except camring.Forked:
                        out.close()
                        del out
                        gc.collect()
                        os._exit(0)
                    os._exit(1)
                assert os.waitpid(pid, 0)[1] == 0
        finally:
            stop.set()
            thread.join(DEADLINE)
        assert camring.attach("front").state == "live"


def test_under_protect_a_picture_without_a_slot_is_dropped_and_counted(shm_dir: Path) -> None:
    with camring.Writer("front", shape=(48, 64, 3), slots=3, lease_policy="protect") as out:
        rings = [camring.attach("front") for _ in range(3)]
        leases = []
        for seq, ring in enumerate(rings, 1):
            out.publish(picture(seq))
            leases.append(ring.lease())
        with pytest.raises(camring.NoSlot, match='^ring "front": no slot is free: readers lease all of them'):
            out.publish(picture(4))
        assert rings[0].info().counters["dropped_no_slot"] == 1
        for seq, lease in enumerate(leases, 1):
            assert lease.valid and bytes(lease) == payload_of(seq, 9216)
        leases[0].release()
        assert out.publish(picture(4)) == 4


def test_a_removed_name_comes_back_while_the_program_writes(shm_dir: Path) -> None:
    with camring.Writer("front", shape=(48, 64, 3)) as out:
        out.publish(picture(1))
        path = shm_dir / "camring.front"
        inode = path.stat().st_ino
        path.unlink()
        eventually(path.exists, "housekeeping links the name again")
        assert path.stat().st_ino == inode


def test_a_name_that_something_else_takes_meanwhile_is_a_problem_in_words(shm_dir: Path) -> None:
    with camring.Writer("front", shape=(48, 64, 3)) as out:
        out.publish(picture(1))
        assert out.problem is None
        path = shm_dir / "camring.front"
        # In one step, so that housekeeping cannot put its own name back in between.
        (shm_dir / "other").write_bytes(b"something else")
        (shm_dir / "other").rename(path)
        assert out.problem is not None and f'ring "front": the name {path} is taken by' in out.problem
        path.unlink()
        assert out.problem is None and path.exists(), "the look has mended it"
    with pytest.raises(ValueError, match="is closed"):
        assert out.problem


def test_a_name_that_something_else_has_is_told_and_left_alone(shm_dir: Path) -> None:
    (shm_dir / "camring.front").write_bytes(b"something else")
    with pytest.raises(camring.NameTaken) as caught:
        camring.Writer("front", timeout=0.0)
    assert isinstance(caught.value, FileExistsError) and caught.value.filename == str(shm_dir / "camring.front")
    assert (shm_dir / "camring.front").read_bytes() == b"something else"


def test_a_folder_that_is_no_memory_mount_is_refused(tmp_path: Path) -> None:
    with pytest.raises(camring.SystemRefused, match="is not on a tmpfs"):
        camring.Writer("front", shm_dir=tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small memory mount")
def test_a_full_mount_is_named_with_both_numbers(tmp_path: Path) -> None:
    program = """
        import camring, os, sys
        try:
            camring.Writer("front", shape=(480, 640, 3), shm_dir=sys.argv[1])
        except camring.NoRoom as error:
            print(error.needed > 8 * 480 * 640 * 3 > 2 << 20 >= error.free, error.filename == sys.argv[1], error)
            print(sorted(name for name in os.listdir(sys.argv[1]) if not name.endswith(".d")))
    """
    mount = f"mount -t tmpfs -o size=2m,mode=1777 small {tmp_path} && exec {sys.executable} -c \"$0\" {tmp_path}"
    command = ["unshare", "--mount", "sh", "-c", mount, textwrap.dedent(program)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    if "unshare" in child.stderr or "mount:" in child.stderr:
        pytest.skip(f"no mount of one's own here: {child.stderr.strip()}")
    first, names = child.stdout.splitlines()
    assert first.startswith(f'True True ring "front" needs 7.') and f"but {tmp_path} has " in first, first
    assert names == "[]"
