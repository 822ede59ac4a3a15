"""P6 and P7: one camera, 1080p25 H.264 over TCP, captured by camring and by what else there is."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import stage
from bench_figures import SHOWN, Bar, Line, Report, at_most, median, of_rounds, times
from handover import Plan
from stage import Failed, ProgramPeer, cpu_us

HERE = Path(__file__).resolve().parent
CAMRING = os.environ.get("CAMRING_BINARY", str(stage.ROOT / "target/release/camring"))
DEBIAN_PYTHON = "/usr/bin/python3"
FPS = 25
SETTLE = 3.0
"""After a process was started: connect, first keyframe, buffers filled; seconds."""
_names = itertools.count()


@contextlib.contextmanager
def camera() -> Iterator[str]:
    """The simulated camera; yields its URL."""
    sim = ProgramPeer(CAMRING, "sim", "--listen", "127.0.0.1:0", "--json", "--bitrate", "6M", "--until-stdin-closes")
    try:
        yield str(json.loads(sim.line(stage.START))["url"])
    finally:
        assert sim.process.stdin
        sim.process.stdin.close()
        sim.end()


@contextlib.contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program of a pipeline; what it says goes to standard error when it fails."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as child:
        try:
            yield child
            if child.poll() is not None:
                assert child.stderr
                raise Failed(f"{command[0]} ended with {child.returncode}: {child.stderr.read().decode()[-300:].strip()}")
        finally:
            child.terminate()
            try:
                child.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.communicate()


@contextlib.contextmanager
def service(url: str) -> Iterator[tuple[str, int]]:
    """`camring run`; yields the ring's name and the process."""
    name = f"peers-camera-{os.getpid()}-{next(_names)}"
    with process(CAMRING, "run", name, "--url", url) as child:
        yield name, child.pid


def gst(url: str, *rest: str) -> Callable[[], contextlib.AbstractContextManager[list[int]]]:
    """A pipeline of GStreamer up to the decoder, and what comes after it."""

    @contextlib.contextmanager
    def started() -> Iterator[list[int]]:
        command = ["gst-launch-1.0", "-q", "rtspsrc", f"location={url}", "protocols=tcp", "latency=100", "!", "rtph264depay"]
        command += ["!", "h264parse", "!", "avdec_h264", "max-threads=1", "!", *rest, "fakesink", "sync=false"]
        with process(*command) as child:
            yield [child.pid]

    return started


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    return [int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]


def p6(report: Report, plan: Plan) -> None:
    """Processor time per picture of capturing, in processes of their own, on the same stream, in turn."""

    @contextlib.contextmanager
    def ours(url: str) -> Iterator[list[int]]:
        with service(url) as (_, pid):
            yield [pid]

    @contextlib.contextmanager
    def pipe(url: str) -> Iterator[list[int]]:
        with process(sys.executable, str(HERE / "consume.py"), "ffmpeg-pipe", url, "1000000") as child:
            time.sleep(1)
            yield [child.pid, *children(child.pid)]

    with camera() as url:
        ways: dict[str, Callable[[], contextlib.AbstractContextManager[list[int]]]] = {
            "camring run": lambda: ours(url),
            "rtspsrc ! avdec_h264 ! fakesink": gst(url),
            "the same ! videoconvert to BGR": gst(url, "videoconvert", "n-threads=1", "!", "video/x-raw,format=BGR", "!"),
        }
        if shutil.which("ffmpeg"):
            ways["ffmpeg rawvideo pipe"] = lambda: pipe(url)
        else:
            report.skip("ffmpeg rawvideo pipe", "no ffmpeg on this machine")
        found: dict[str, list[float]] = {way: [] for way in ways}
        for number, (way, started) in itertools.product(range(plan.rounds), ways.items()):
            stage.log(f"round {number + 1} of {plan.rounds}: processor time of {way}")
            try:
                with started() as pids:
                    time.sleep(SETTLE)
                    before, began = sum(map(cpu_us, pids)), time.monotonic()
                    time.sleep(plan.seconds)
                    spent = sum(map(cpu_us, pids)) - before
                    found[way].append(spent / 1e3 / ((time.monotonic() - began) * FPS))
            except (Failed, FileNotFoundError) as error:
                report.skip(f"{way} (a round)", str(error))
    goals: dict[str, Bar] = dict(zip(list(ways)[1:], (times(1.2), times(0.65), times(0.55)), strict=False))
    for peer, bar in goals.items():
        if found["camring run"] and found[peer]:
            mine, other = median(found["camring run"]), median(found[peer])
            what = "capture process, processor time per picture, 1080p25 H.264"
            report.lines.append(Line("P6", "p6", what, "ms", mine, other, peer, bar, rounds=found["camring run"]))


# What a user would write, with the interpreter that has the backend.
CONSUMERS = {
    "bare pipeline + cvtColor": ("bare", sys.executable),
    "OpenCV FFmpeg, default": ("opencv-ffmpeg", sys.executable),
    "OpenCV FFmpeg, 1 thread, no buffer": ("opencv-ffmpeg-best", sys.executable),
    "OpenCV GStreamer, plain": ("opencv-gstreamer", DEBIAN_PYTHON),
    "OpenCV GStreamer, tuned": ("opencv-gstreamer-best", DEBIAN_PYTHON),
    "ffmpeg pipe": ("ffmpeg-pipe", sys.executable),
}


def consumed(way: str, python: str, source: str, frames: int) -> tuple[list[float], list[float]]:
    """Milliseconds from painted to held, and from painted to arrived where the way tells, in a process of its own."""
    program = ProgramPeer(python, str(HERE / "consume.py"), way, source, str(frames))
    try:
        found = program.result(frames / FPS * 2 + 60)
    except Failed as error:
        raise Failed(f"{way}: {error}") from None
    finally:
        program.end()
    values = [float(value) for value in found["ms"]]
    if len(values) < frames // 2:
        raise Failed(f"{way}: {found['unreadable']} of {frames} pictures had no readable stamp, {len(values)} had one")
    return values, [float(value) for value in found["camera_ms"]]


def p7(report: Report, plan: Plan) -> None:
    """From the picture pushed into the server to a BGR array in a program of the user's."""
    frames = max(50, int(FPS * plan.seconds))
    found: dict[str, list[list[float]]] = {"camring": [], **{name: [] for name in CONSUMERS}}
    arrived: list[list[float]] = []
    with camera() as url:
        for number, name in itertools.product(range(plan.rounds), found):
            stage.log(f"round {number + 1} of {plan.rounds}: picture to array, {name}")
            try:
                if name == "camring":
                    with service(url) as (ring, _):
                        time.sleep(SETTLE)
                        held, there = consumed("camring", sys.executable, ring, frames)
                        found[name].append(held)
                        arrived.append(there)
                else:
                    way, python = CONSUMERS[name]
                    found[name].append(consumed(way, python, url, frames)[0])
            except Failed as error:
                report.skip(f"{name} (a round)", str(error))
    found = {name: rounds for name, rounds in found.items() if rounds}
    if "camring" not in found:
        return
    mine, mine_p99, medians = of_rounds(found["camring"])
    others = {name: of_rounds(rounds) for name, rounds in found.items() if name != "camring"}
    tuned = {name: value for name, value in others.items() if name.startswith("OpenCV")}
    best = min(tuned, key=lambda name: tuned[name][0], default="")
    bars = {"bare pipeline + cvtColor": times(1.2), "OpenCV FFmpeg, default": times(1 / 15)}
    what = "picture pushed -> BGR array held, 1080p25 over TCP"
    for name, (value, high, _) in others.items():
        bar = times(1 / 4) if name == best else bars.get(name, SHOWN)
        report.lines.append(Line("P7", "p7", what, "ms", mine, value, name, bar, mine_p99, high, medians))
    report.lines.append(Line("P7", "p7", f"{what}, 99 %", "ms", mine_p99, bar=at_most(1000 / FPS)))
    # The camera's encoder and the network are nobody's merit: the same for all, and here taken off all.
    camera_ms = of_rounds(arrived)[0]
    report.lines.append(Line("P7", "p7", "of it before the last packet arrived (camera, network)", "ms", camera_ms))
    what = "last packet arrived -> BGR array held (the camera's share taken off)"
    for name, (value, _, _) in others.items():
        report.lines.append(Line("P7", "p7", what, "ms", mine - camera_ms, value - camera_ms, name))
