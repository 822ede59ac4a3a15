"""P10: a capture process at rest: page faults per frame on both sides, private memory, and how soon the first frame is there.

Beside the bare pipeline (`rtspsrc ! rtph264depay ! h264parse ! avdec_h264 max-threads=1 ! fakesink`) on the same camera.
Writes target/bench/steady.json; started by scripts/bench. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from bench_figures import Line, at_most, median, times  # noqa: E402

CAMRING = os.environ.get("CAMRING_BINARY", str(ROOT / "target/release/camring"))
QUICK = "CAMRING_BENCH_QUICK" in os.environ
ROUNDS, SECONDS = (2, 3.0) if QUICK else (5, 10.0)
FPS = 25
PATIENCE = 30.0
"""For the next line of a process, seconds."""
SETTLE = 4.0
"""After the start: buffers grow to their size, the first keyframes went by; seconds."""


@contextlib.contextmanager
def running(*command: str, read: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process, ended with the block."""
    out = subprocess.PIPE if read else subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()


def line_of(child: subprocess.Popen[str]) -> str:
    """The next line that a process prints."""
    assert child.stdout
    # A line is written as a whole, so that what can be read is one.
    if not select.select([child.stdout], [], [], PATIENCE)[0] or not (line := child.stdout.readline()):
        raise RuntimeError(f"{child.args!r} said nothing for {PATIENCE:.0f} s, or ended")
    return line


@contextlib.contextmanager
def camera() -> Iterator[str]:
    """The simulated camera, with a keyframe every 200 ms; yields its URL."""
    words = ["--listen", "127.0.0.1:0", "--json", "--gop", "200ms", "--bitrate", "6M"]
    with running(CAMRING, "sim", *words, read=True) as child:
        yield str(json.loads(line_of(child))["url"])


def bare(url: str, *words: str) -> list[str]:
    """The smallest pipeline that decodes it; `words` go to gst-launch and to its sink."""
    launch = f"rtspsrc location={url} protocols=tcp latency=100 ! rtph264depay ! h264parse ! avdec_h264 max-threads=1 ! fakesink sync=false"
    # Line by line, also through a pipe.
    return ["stdbuf", "-oL", "gst-launch-1.0", *launch.split(), *words]


def faults(pid: int) -> int:
    """Page faults of a process so far, minor and major."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[7]) + int(fields[9])


def private_mib(pid: int) -> float:
    """Memory of a process that is no file's and nobody else's."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.split("\n") if line.startswith("RssAnon:")) / 1024


def per_frame(before: int, after: int) -> float:
    """Page faults per frame of the measured time."""
    return (after - before) / (SECONDS * FPS)


def at_rest(url: str, folder: str) -> dict[str, float]:
    """One round: our process with a reader that copies, and the bare pipeline."""
    name = "steady"
    with (
        running(CAMRING, "run", name, "--url", url, "--shm-dir", folder) as capture,
        running(CAMRING, "watch", name, "--verify", "--json", "--shm-dir", folder) as reader,
        running(*bare(url)) as other,
    ):
        time.sleep(SETTLE)
        pids = {"capture": capture.pid, "reader": reader.pid, "bare": other.pid}
        before = {who: faults(pid) for who, pid in pids.items()}
        time.sleep(SECONDS)
        found = {f"{who} faults": per_frame(before[who], faults(pid)) for who, pid in pids.items()}
        return found | {"capture MiB": private_mib(capture.pid), "bare MiB": private_mib(other.pid)}


def first_frame_ms(url: str, folder: str, number: int) -> float:
    """From the start of `camring run` until its first frame is published."""
    name = f"first-{number}"
    with running(CAMRING, "watch", name, "-n", "1", "--json", "--shm-dir", folder, read=True) as reader:
        # It waits for a name that is not there yet.
        time.sleep(0.3)
        began = time.monotonic()
        with running(CAMRING, "run", name, "--url", url, "--shm-dir", folder):
            while True:
                found: dict[str, Any] = json.loads(line_of(reader))
                if found["event"] == "frame":
                    read_ms = found["publish_to_read_us"] / 1e3
                    # A reader that comes later sees a later frame: the first one is so many periods older.
                    earlier_ms = (found["seq"] - 1) * 1000 / FPS
                    return (time.monotonic() - began) * 1e3 - read_ms - earlier_ms


def first_buffer_ms(url: str) -> float:
    """From the start of the bare pipeline until its first picture."""
    began = time.monotonic()
    with running(*bare(url, "silent=false", "-v"), read=True) as child:
        while "last-message = chain" not in line_of(child):
            pass
        return (time.monotonic() - began) * 1e3


def main() -> None:
    """Measures, and writes the lines."""
    folder = tempfile.mkdtemp(prefix="camring-steady-", dir="/dev/shm")
    try:
        with camera() as url:
            rest = [at_rest(url, folder) for _ in range(ROUNDS)]
            starts = [(first_frame_ms(url, folder, number), first_buffer_ms(url)) for number in range(ROUNDS)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    middle = {key: median([found[key] for found in rest]) for key in rest[0]}
    ours, other = (median(list(column)) for column in zip(*starts, strict=True))
    pipeline = "bare pipeline"
    lines = [
        Line("P10", "steady", "page faults per frame, capture process", "", middle["capture faults"], bar=at_most(0.05)),
        Line("P10", "steady", "page faults per frame, bare pipeline", "", middle["bare faults"]),
        Line("P10", "steady", "page faults per frame, reader that copies", "", middle["reader faults"], bar=at_most(0.05)),
        Line("P10", "steady", "private memory besides the ring", "MiB", middle["capture MiB"], middle["bare MiB"], pipeline, times(1.1)),
        Line("P10", "steady", "daemon start -> first frame, above the bare pipeline's", "ms", ours - other, bar=at_most(150)),
        Line("P10", "steady", "daemon start -> first frame", "ms", ours, other, f"{pipeline}, first picture", rounds=[s[0] for s in starts]),
    ]  # fmt: skip
    file = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "bench/steady.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([line.as_json() for line in lines], indent=1))


if __name__ == "__main__":
    main()
