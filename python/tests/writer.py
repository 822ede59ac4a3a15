"""The synthetic writer as a process, and what its frames must hold."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import camring

F_OFD_GETLK = 36
"""fcntl.F_OFD_GETLK, which Python 3.11 may lack."""

DEADLINE = 20.0
"""Longest time that anything here may take, seconds."""


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Asks until the condition holds; fails after the deadline."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        time.sleep(0.005)


def lease_bytes(path: Path) -> int:
    """How many slots of a ring are leased. Asks the kernel for each: /proc/locks leaves lines out while locks come and go."""
    with path.open("rb") as file:
        slots, lease_base = struct.unpack_from("<I", file.read(0x60), 0x28), 1 << 40
        queries = (struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, lease_base + slot, 1, 0) for slot in range(slots[0]))
        answers = [fcntl.fcntl(file, F_OFD_GETLK, query) for query in queries]
    return sum(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK for answer in answers)


class Seen:
    """What another thread has seen of this one."""

    busy = False
    """Set by the thread under test around the one call."""
    inside = 0
    """How often the other thread ran meanwhile."""


@contextmanager
def watched() -> Iterator[Seen]:
    """A second thread that can run only while this one gives the interpreter lock away of its own accord."""
    seen, stop = Seen(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            time.sleep(0)
            seen.inside += seen.busy

    thread = threading.Thread(target=watch)
    before = sys.getswitchinterval()
    thread.start()
    sys.setswitchinterval(1000.0)
    try:
        yield seen
    finally:
        sys.setswitchinterval(before)
        stop.set()
        thread.join(DEADLINE)


def byte_of(seq: int, k: int) -> int:
    """Byte k of frame seq, as ring/examples/synthetic.rs paints it."""
    return (seq * 31 + k) % 251


def payload_of(seq: int, size: int) -> bytes:
    period = bytes(byte_of(seq, k) for k in range(251))
    return (period * (size // 251 + 1))[:size]


class Writer:
    """A running ring/examples/synthetic."""

    def __init__(self, program: Path, ring: str, shm_dir: Path, *options: str) -> None:
        command = [str(program), ring, "--shm-dir", str(shm_dir), *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", f"{command} said {line!r}"

    def wait(self) -> None:
        """Until all frames that were ordered are published."""
        assert self.process.wait(DEADLINE) == 0

    def stop(self) -> None:
        """An orderly stop: the ring says `stopped`."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.wait()

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE)

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def read_in_child(ring: camring.Ring, answer: multiprocessing.SimpleQueue[object]) -> None:
    """Runs in a child process; here, because a spawned one imports its module by name."""
    frame = ring.next(timeout=DEADLINE)
    # The kernel's list leaves lines out while locks come and go.
    eventually(lambda: os.getpid() in ring.info().readers, "the child is counted")
    answer.put((bytes(frame) == payload_of(frame.seq, frame.nbytes), ring.name))


def child_sees_revoked(frame: camring.Frame, answer: multiprocessing.SimpleQueue[object]) -> None:
    """Runs in a forked child: a lease that it has inherited is its parent's."""
    answer.put(not frame.valid)


class Loader:
    """Gives what worker processes have read, as a data loader does: the ring itself goes to every worker."""

    def __init__(self, ring: camring.Ring, workers: int, frames: int, method: str) -> None:
        self.ring, self.workers, self.frames = ring, workers, frames
        self.context: Any = multiprocessing.get_context(method)

    def __iter__(self) -> Iterator[tuple[int, int, bool]]:
        results = self.context.Queue()
        work = (self.ring, self.frames, results)
        processes = [self.context.Process(target=load_frames, args=work) for _ in range(self.workers)]
        for process in processes:
            process.start()
        for _ in range(self.workers * self.frames):
            yield results.get(timeout=DEADLINE)
        for process in processes:
            process.join(DEADLINE)
            assert process.exitcode == 0


def load_frames(ring: camring.Ring, frames: int, results: Any) -> None:
    """A loader's worker: copies and leases by turns; pid, number, and whether the frame was whole."""
    for turn in range(frames):
        frame = ring.next(timeout=DEADLINE) if turn % 2 else ring.lease_next(timeout=DEADLINE)
        with frame:
            whole = bytes(frame) == payload_of(frame.seq, frame.nbytes)
        results.put((os.getpid(), frame.seq, whole))


def first_number(ring: camring.Ring) -> int:
    """Runs in a process of a pool."""
    return ring.latest().seq
