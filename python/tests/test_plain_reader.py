"""examples/plain_reader.py: what a program can do with the standard library alone."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from writer import DEADLINE, Writer, eventually, lease_bytes, payload_of

import camring

StartWriter = Callable[..., Writer]
PROGRAM = Path(__file__).resolve().parents[1] / "examples/plain_reader.py"


def load(program: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("plain_reader", program)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plain() -> ModuleType:
    return load(PROGRAM)


def newest(ring: object) -> int:
    """Number of the newest frame, as the head says."""
    return int(ring.words[0x200 // 8]) >> 16  # type: ignore[attr-defined]


def test_copies_and_leases_beside_a_writer_at_full_speed_are_whole_frames(
    plain: ModuleType, writer: StartWriter, shm_dir: Path
) -> None:
    writer("front", "--fps", "0", "--slots", "4", "--size", "64x48")
    ring = plain.Ring("front", str(shm_dir))
    size = 64 * 48 * 3
    eventually(lambda: newest(ring) > 0, "the first frame")
    copies = leases = 0
    last = 0
    while copies < 200 or leases < 200:
        try:
            frame = ring.latest()
            assert frame.pixels == payload_of(frame.seq, size) and frame.seq >= last
            last, copies = frame.seq, copies + 1
        except BlockingIOError:
            pass
        try:
            with ring.lease() as frame:
                assert frame.pixels.readonly and frame.seq >= last
                before = bytes(frame.pixels)
                eventually(lambda: newest(ring) > frame.seq + 8, "the writer goes twice around the ring")
                assert bytes(frame.pixels) == before == payload_of(frame.seq, size)
            last, leases = frame.seq, leases + 1
        except BlockingIOError:
            pass


def test_a_lease_that_the_writer_takes_back_is_revoked_and_says_so(
    plain: ModuleType, writer: StartWriter, shm_dir: Path
) -> None:
    running = writer("front", "--fps", "200", "--slots", "3")
    rings = [plain.Ring("front", str(shm_dir)) for _ in range(3)]
    eventually(lambda: newest(rings[0]) > 3, "as many frames as slots")
    with pytest.raises(plain.Revoked, match=r"^frame \d+ was overwritten while it was leased$"):
        with rings[0].lease() as oldest:
            eventually(lambda: newest(rings[1]) > oldest.seq, "a second frame")
            with rings[1].lease() as second:
                assert second.seq > oldest.seq
                eventually(lambda: newest(rings[2]) > second.seq + 4, "the writer needs a leased slot")
    running.stop()


def test_an_exception_in_the_lease_is_the_users_own_and_unlocks(
    plain: ModuleType, writer: StartWriter, shm_dir: Path
) -> None:
    writer("front", "--frames", "3", "--fps", "0").wait()
    ring = plain.Ring("front", str(shm_dir))
    for error in (KeyError, BlockingIOError, PermissionError):
        with pytest.raises(error, match="the user's own"), ring.lease():
            raise error("the user's own")
    assert +ring.leased == {} and lease_bytes(shm_dir / "camring.front") == 0


def test_nested_leases_of_one_frame_end_with_the_last_one(
    plain: ModuleType, writer: StartWriter, shm_dir: Path
) -> None:
    writer("front", "--frames", "3", "--fps", "0").wait()
    path = shm_dir / "camring.front"
    ring = plain.Ring("front", str(shm_dir))
    with ring.lease() as outer:
        with ring.lease() as inner:
            assert (outer.seq, inner.seq, lease_bytes(path)) == (3, 3, 1)
        assert lease_bytes(path) == 1, "the outer lease goes on"
        assert outer.pixels == payload_of(3, 64 * 48 * 3)
    assert lease_bytes(path) == 0


def test_it_is_counted_as_a_reader_and_its_death_frees_its_lease(writer: StartWriter, shm_dir: Path) -> None:
    writer("front", "--frames", "3", "--fps", "0").wait()
    program = f"""
        import sys, time
        sys.path.insert(0, {str(PROGRAM.parent)!r})
        import plain_reader
        with plain_reader.Ring("front", {str(shm_dir)!r}).lease() as frame:
            print(frame.seq, flush=True)
            sys.stdin.read()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdin is not None and child.stdout.readline() == "3\n"
    ring = camring.attach("front")
    eventually(lambda: sorted(ring.info().readers) == sorted([child.pid, os.getpid()]), "both are counted")
    assert lease_bytes(shm_dir / "camring.front") == 1
    child.kill()
    # Before the zombie is reaped.
    eventually(lambda: lease_bytes(shm_dir / "camring.front") == 0, "the kernel frees the lease")
    child.communicate(timeout=DEADLINE)
    eventually(lambda: ring.info().readers == [os.getpid()], "the dead one is not")


def test_views_of_a_retired_generation_stay_and_the_next_read_follows(
    plain: ModuleType, writer: StartWriter, shm_dir: Path
) -> None:
    writer("front", "--size", "64x48,640x360", "--per-size", "3", "--frames", "3", "--fps", "0").wait()
    ring = plain.Ring("front", str(shm_dir))
    with ring.lease() as frame:
        writer("front", "--size", "640x360", "--frames", "2", "--fps", "0").wait()
        assert bytes(frame.pixels) == payload_of(3, 64 * 48 * 3)
    found = ring.latest()
    assert (found.width, found.height, found.seq) == (640, 360, 5)
    assert found.pixels == payload_of(5, 640 * 360 * 3)
    assert bytes(frame.pixels) == payload_of(3, 64 * 48 * 3), "memory of the old generation stays while a view exists"
