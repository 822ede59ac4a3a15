"""What Python's own `SharedMemory(name)` does to a ring, and what becomes of it: the text of README.md, tested.

`SharedMemory` knows no other mount than /dev/shm, so these rings are there, under names of this process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from writer import DEADLINE, Writer, eventually, payload_of

import camring

StartWriter = Callable[..., Writer]
MOUNT = Path("/dev/shm")


@pytest.fixture
def running(synthetic: Path) -> Iterator[tuple[str, Writer]]:
    """A ring in /dev/shm whose name nobody else has, and its writer."""
    name = f"pytest{os.getpid()}"
    writer = Writer(synthetic, name, MOUNT, "--fps", "100")
    yield name, writer
    writer.end()
    for path in [MOUNT / f"camring.{name}", *MOUNT.glob(f"camring*.d/{name}"), *MOUNT.glob(f"camring*.d/.lock-{name}")]:
        path.unlink(missing_ok=True)


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)


def assert_untouched(ring: camring.Ring, path: Path, inode: int) -> None:
    eventually(lambda: path.exists(), "the daemon puts the name back")
    assert path.stat().st_ino == inode, "it is the same ring"
    last = ring.latest().seq
    frame = ring.next(timeout=DEADLINE)
    assert frame.seq > last and bytes(frame) == payload_of(frame.seq, frame.nbytes)
    assert ring.stats().followed == 0


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="later versions can be told not to track")
def test_its_exit_removes_the_name_and_the_daemon_puts_it_back(running: tuple[str, Writer]) -> None:
    name, _ = running
    path = MOUNT / f"camring.{name}"
    ring = camring.attach(name, shm_dir=MOUNT)
    ring.next(timeout=DEADLINE)
    inode, before = path.stat().st_ino, ring.info().counters["relinked"]
    program = """
        import sys
        from multiprocessing.shared_memory import SharedMemory
        segment = SharedMemory(sys.argv[1])
        print(bytes(segment.buf[:8]).decode())
        segment.close()
    """
    child = run(program, f"camring.{name}")
    assert (child.returncode, child.stdout) == (0, "CAMRING1\n"), child.stderr
    eventually(lambda: ring.info().counters["relinked"] > before, "the name was gone and is back")
    assert_untouched(ring, path, inode)


def test_an_attach_that_finds_no_memory_removes_the_name_and_the_daemon_puts_it_back(
    running: tuple[str, Writer],
) -> None:
    name, _ = running
    path = MOUNT / f"camring.{name}"
    ring = camring.attach(name, shm_dir=MOUNT)
    ring.next(timeout=DEADLINE)
    inode, before = path.stat().st_ino, ring.info().counters["relinked"]
    program = """
        import mmap, os, resource, sys
        from multiprocessing import resource_tracker, shared_memory
        resource_tracker.register = lambda *_: None    # as track=False has it
        size = int(open("/proc/self/statm").read().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (size + 8192, resource.RLIM_INFINITY))
        try:
            shared_memory.SharedMemory(sys.argv[1])
        except OSError as error:
            print(error.errno)
    """
    child = run(program, f"camring.{name}")
    assert (child.returncode, child.stdout) == (0, "12\n"), child.stderr
    eventually(lambda: ring.info().counters["relinked"] > before, "the name was gone and is back")
    assert_untouched(ring, path, inode)


def test_the_package_never_removes_a_name_however_it_ends(running: tuple[str, Writer]) -> None:
    name, _ = running
    path = MOUNT / f"camring.{name}"
    ring = camring.attach(name, shm_dir=MOUNT)
    ring.next(timeout=DEADLINE)
    before = ring.info().counters["relinked"]
    for ending in ("", "raise SystemExit(3)", "raise KeyError", "os._exit(4)", "os.kill(os.getpid(), 9)"):
        program = f"""
            import os, sys, camring
            frame = camring.attach(sys.argv[1], shm_dir="/dev/shm").lease()
            {ending}
        """
        run(program, name)
        assert path.exists() and ring.info().counters["relinked"] == before
