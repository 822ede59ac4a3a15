"""The stage: processes that are started, waited for with a deadline, stopped, measured, and ended by their pid."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ways
from ways import Spec

ROOT = Path(__file__).resolve().parents[3]
RUST = Path(os.environ.get("CAMRING_PEERS", ROOT / ".cache/peers/target/release/camring-peers"))
START = 40.0
"""Until a process is ready, seconds: imports, and on a busy machine."""
LATE = 15.0
"""After the writer's end, until a reader's result is there, seconds."""
SETTLE = 0.3
"""After the last reader is ready: subscriptions of ZeroMQ and connections of shmsrc are made behind the scenes."""

Result = dict[str, Any]


class Failed(Exception):
    """A process did not do what it should; the text says which and what."""


def cpu_us(pid: int) -> float:
    """Processor time of all threads of a process so far."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e3


class PythonPeer:
    """A process of ways.py."""

    def __init__(self, context: Any, target: Callable[..., None], *arguments: Any) -> None:
        self.control, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(*arguments, theirs), daemon=True)
        self.process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """Its pid."""
        return int(self.process.pid)

    def message(self, limit: float) -> Any:
        """The next word from it."""
        if not self.control.poll(limit):
            raise Failed(f"process {self.pid} said nothing for {limit:.0f} s")
        try:
            return self.control.recv()
        except EOFError:
            raise Failed(f"process {self.pid} ended before its time") from None

    def ready(self) -> None:
        """Waits until it is."""
        self.message(START)

    def result(self, limit: float) -> Result:
        """What it measured."""
        return dict(self.message(limit))

    def say(self) -> None:
        """The next word to it: go, stop, end."""
        with contextlib.suppress(BrokenPipeError):
            self.control.send("go")

    def end(self) -> None:
        """Its end, in order or not."""
        if self.process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
            self.process.join(3)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(3)


class ProgramPeer:
    """A process of the Rust program, or of any that prints lines; the last one is JSON."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        self.rest = b""

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    def line(self, limit: float) -> str:
        """The next line of its output."""
        assert self.process.stdout
        until = time.monotonic() + limit
        while b"\n" not in self.rest:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise Failed(f"{self.process.args!r} said nothing for {limit:.0f} s")
            more = os.read(self.process.stdout.fileno(), 1 << 20)
            if not more:
                raise Failed(f"{self.process.args!r} ended before its time")
            self.rest += more
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()

    def ready(self) -> None:
        """Waits until it is."""
        self.line(START)

    def result(self, limit: float) -> Result:
        """What it measured."""
        return dict(json.loads(self.line(limit)))

    def say(self) -> None:
        """The next line to it."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(b"\n")

    def end(self) -> None:
        """Its end, in order or not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


Peer = PythonPeer | ProgramPeer
CONTEXT = multiprocessing.get_context("spawn")


def writer_and_readers(spec: Spec) -> tuple[Callable[[], Peer], Callable[[int], Peer]]:
    """How to start both ends of a way: `rust WAY` is the Rust program, `rust WAY to Python` has Python readers."""
    program, _, rest = spec.way.partition(" ")
    if program == "rust":
        way, _, python = rest.partition(" to ")
        writer_way = way.removesuffix("-lease")

        def rust_writer() -> Peer:
            return ProgramPeer(
                str(RUST), "writer", writer_way, spec.name, str(spec.nbytes), str(round(spec.fps)), str(spec.frames)
            )

        def rust_reader(index: int) -> Peer:
            if python:
                return PythonPeer(CONTEXT, ways.read, spec._replace(way=f"rust {way}"), None, index)
            words = [way, spec.name, str(spec.nbytes), str(spec.frames), str(round(spec.work * 1000))]
            return ProgramPeer(str(RUST), "reader", *words)

        return rust_writer, rust_reader
    links = ways.links(spec, CONTEXT)
    return (
        lambda: PythonPeer(CONTEXT, ways.write, spec, links),
        lambda index: PythonPeer(CONTEXT, ways.read, spec, links, index),
    )


def hand_over(spec: Spec, during: Callable[[list[Peer]], None] | None = None) -> tuple[Result, list[Result | None]]:
    """One round: a writer, its readers; what each of them measured, None for a reader that did not come back."""
    new_writer, new_reader = writer_and_readers(spec)
    peers: list[Peer] = []
    try:
        writer = new_writer()
        peers.append(writer)
        writer.ready()
        readers = [new_reader(index) for index in range(spec.readers)]
        peers += readers
        for reader in readers:
            reader.ready()
        time.sleep(SETTLE)
        writer.say()
        if during:
            during(readers)
        limit = spec.frames / spec.fps * 2 + LATE
        written = writer.result(limit)
        read: list[Result | None] = []
        for reader in readers:
            try:
                read.append(reader.result(ways.QUIET + spec.work * (ways.SLOTS + 4) + LATE))
            except Failed:
                read.append(None)
        writer.say()
        return written, read
    finally:
        for peer in reversed(peers):
            peer.end()
        for left in (f"/tmp/{spec.name}.shm", f"/tmp/{spec.name}.zmq"):
            Path(left).unlink(missing_ok=True)


@contextlib.contextmanager
def memory_mount() -> Iterator[Path]:
    """A folder of our own on the memory mount, for every ring of this run."""
    folder = Path(tempfile.mkdtemp(prefix="camring-peers-", dir="/dev/shm"))
    os.environ["CAMRING_SHM_DIR"] = str(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def log(text: str) -> None:
    """Progress, on standard error."""
    print(f"... {text}", file=sys.stderr, flush=True)
