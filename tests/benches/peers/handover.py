"""P1, P2, P3, P8 and P9: frames from one process to others, beside what else there is."""

from __future__ import annotations

import itertools
import mmap
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import stage
import ways
from bench_figures import SHOWN, Bar, Line, Report, at_least, at_most, median, of_rounds, percentile, times
from stage import Failed, Peer, Result
from ways import Spec

FULL_HD = (1080, 1920, 3)
TENSOR = (1, 3, 2048, 2048)
"""The 50.3 MB of floats of the article that began this."""
WARM_UP = 10
"""Frames at the beginning of a round that are not counted."""
_names = itertools.count()


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int
    frames: int
    seconds: float

    @classmethod
    def of(cls, quick: bool) -> Plan:
        """Short for trying the tools, else what is quoted."""
        return cls(2, 40, 3.0) if quick else cls(5, 200, 10.0)


@dataclass
class Round:
    """What a round came to, in microseconds; per frame where it says so."""

    us: list[float]
    writer_cpu: float
    reader_cpu: float


def spec(way: str, shape: tuple[int, ...], fps: float, frames: int, readers: int = 1, work: float = 0.0) -> Spec:
    """A round's plan, under a name of its own."""
    dtype = "float32" if shape == TENSOR else "uint8"
    return Spec(way, f"peers-{os.getpid()}-{next(_names)}", shape, dtype, fps, frames, readers, work)


def judge(written: Result, read: list[Result | None]) -> Round:
    """The figures of a round of which every reader came back."""
    if any(result is None for result in read):
        raise Failed("a reader never came to its end")
    found = [result for result in read if result]
    us = [value for result in found for value in result["us"][WARM_UP:]]
    seen = [max(1, len(result["us"])) for result in found]
    if not us:
        raise Failed(f"the readers saw {seen} frames")
    reader_cpu = [result["cpu_us"] / count for result, count in zip(found, seen, strict=True)]
    return Round(us, written["cpu_us"] / written["frames"], median(reader_cpu))


def in_turn(report: Report, plan: Plan, specs: Callable[[str], Spec], ways: list[str]) -> dict[str, list[Round]]:
    """Rounds of every way in turn; a way that fails twice is skipped, with the reason."""
    rounds: dict[str, list[Round]] = {way: [] for way in ways}
    failures: dict[str, int] = dict.fromkeys(ways, 0)
    for number in range(plan.rounds):
        for way in ways:
            if failures[way] >= 2:
                continue
            made = specs(way)
            stage.log(f"round {number + 1} of {plan.rounds}: {way}, {made.readers} readers, {made.nbytes / 1e6:.1f} MB")
            try:
                rounds[way].append(judge(*stage.hand_over(made)))
            except Failed as error:
                failures[way] += 1
                report.skip(f"{way}, {made.readers} readers, {made.nbytes / 1e6:.1f} MB (a round)", str(error))
    return {way: found for way, found in rounds.items() if found}


def compared(
    goal: str, what: str, rounds: dict[str, list[Round]], ours: str, peers: dict[str, Bar], unit: str = "us", scale: float = 1.0
) -> list[Line]:
    """A line of latency for each peer."""
    if ours not in rounds:
        return []
    mine, mine_p99, medians = of_rounds([found.us for found in rounds[ours]])
    lines = []
    for peer, bar in peers.items():
        if peer not in rounds:
            continue
        other, other_p99, _ = of_rounds([found.us for found in rounds[peer]])
        lines.append(
            Line(
                goal, goal.lower(), what, unit, mine / scale, other / scale, peer.removeprefix("rust "), bar,
                mine_p99 / scale, other_p99 / scale, [value / scale for value in medians],
            )
        )  # fmt: skip
    return lines


def p1(report: Report, plan: Plan) -> None:
    """In place, Rust to Rust, beside iceoryx2."""
    for readers in (1, 4, 16):
        ways = ["rust camring", "rust camring-lease", "rust iceoryx2", "rust bare"]
        rounds = in_turn(report, plan, lambda way, n=readers: spec(way, FULL_HD, 100, plan.frames, n), ways)  # type: ignore[misc]
        words = f"publish in place -> reader has the view, {readers} reader{'s' if readers > 1 else ''}"
        report.lines += compared("P1", words, rounds, "rust camring", {"rust iceoryx2": times(0.8), "rust bare": SHOWN})
        report.lines += compared("P1", words.replace("publish", "bare ring: publish"), rounds, "rust bare", {"rust iceoryx2": SHOWN})
        words = words.replace("the view", "a leased view")
        report.lines += compared("P1", words, rounds, "rust camring-lease", {"rust iceoryx2": times(0.8)})


def p2(report: Report, plan: Plan) -> None:
    """The same with readers in Python."""
    ways = ["rust camring to Python", "rust iceoryx2 to Python", "rust camring-lease"]
    rounds = in_turn(report, plan, lambda way: spec(way, FULL_HD, 100, plan.frames), ways)
    words = "publish in place -> Python has the array"
    peers = {"rust iceoryx2 to Python": times(0.6), "rust camring-lease": SHOWN}
    lines = compared("P2", words, rounds, "rust camring to Python", peers)
    report.lines += lines
    for line in lines:
        if line.beside_is == "camring-lease" and line.beside is not None:
            over = line.ours - line.beside
            report.lines.append(Line("P2", "p2", "Python reader above the Rust reader", "us", over, bar=at_most(100)))


def copies(made: Spec) -> list[float]:
    """Microseconds of the copy alone, into as many places in turn, at the same pace: what no way can be below."""
    places = np.frombuffer(mmap.mmap(-1, ways.SLOTS * made.nbytes), np.uint8).reshape(ways.SLOTS, made.nbytes)
    # The pages are there before anything is measured.
    places.fill(1)
    pictures = [picture.reshape(-1).view(np.uint8) for picture in ways.sources(made)]
    us = []
    due = time.monotonic()
    for number in range(made.frames):
        due += 1 / made.fps
        time.sleep(max(0.0, due - time.monotonic()))
        begin = time.monotonic_ns()
        np.copyto(places[number % ways.SLOTS], pictures[number % len(pictures)])
        us.append((time.monotonic_ns() - begin) / 1e3)
    return us[WARM_UP:]


def p3(report: Report, plan: Plan) -> None:
    """From Python to Python, the copy into shared memory included."""
    goals = {
        FULL_HD: {"multiprocessing.Queue": times(1 / 25), "SharedMemory per frame": times(1 / 7)},
        TENSOR: {"multiprocessing.Queue": times(1 / 40), "SharedMemory per frame": times(1 / 10)},
    }
    others = ["SharedMemory + queue", "iceoryx2 (Python)", "shmsink", "ZeroMQ PUB"]
    for shape, bars in goals.items():
        size = "1080p" if shape == FULL_HD else "50.3 MB float32"
        ways = ["camring", "camring, copied", *bars, *others]
        frames = plan.frames if shape == FULL_HD else max(30, plan.frames // 3)
        rounds = in_turn(report, plan, lambda way, s=shape, n=frames: spec(way, s, 25 if s == FULL_HD else 8, n), ways)  # type: ignore[misc]
        copied = []
        for number in range(plan.rounds):
            stage.log(f"round {number + 1} of {plan.rounds}: the copy alone, {size}")
            copied.append(copies(spec("copy", shape, 25 if shape == FULL_HD else 8, max(40, frames // 2))))
        words = f"publish call, copy included -> Python array, {size}"
        peers = {**bars, **dict.fromkeys(others, SHOWN)}
        report.lines += compared("P3", words, rounds, "camring", peers, "ms", 1e3)
        alone, alone_p99, _ = of_rounds(copied)
        report.lines.append(Line("P3", "p3", f"of it the copy alone, {size}", "ms", alone / 1e3, ours_p99=alone_p99 / 1e3))
        words = words.replace("Python array", "own copy")
        report.lines += compared("P3", words, rounds, "camring, copied", {"multiprocessing.Queue": SHOWN}, "ms", 1e3)
        for peer in ("multiprocessing.Queue",):
            if peer in rounds and "camring" in rounds:
                both = {way: median([r.writer_cpu + r.reader_cpu for r in rounds[way]]) for way in ("camring", peer)}
                words = f"processor time per frame, both sides, {size}"
                line = Line("P3", "p3", words, "ms", both["camring"] / 1e3, both[peer] / 1e3, peer, times(1 / 20))
                report.lines.append(line)


def p8(report: Report, plan: Plan) -> None:
    """Sixteen readers: what they cost the writer, and each of them."""
    frames = int(25 * plan.seconds)
    ways = ["rust camring", "rust iceoryx2", "shmsink", "ZeroMQ PUB"]
    found: dict[int, dict[str, list[Round]]] = {}
    for readers in (1, 16):
        found[readers] = in_turn(report, plan, lambda way, n=readers: spec(way, FULL_HD, 25, frames, n), ways)  # type: ignore[misc]
    for way in ways:
        if way not in found[1] or way not in found[16]:
            continue
        one = median([r.writer_cpu for r in found[1][way]])
        many = median([r.writer_cpu for r in found[16][way]])
        mine = way == "rust camring"
        name = way.removeprefix("rust ")
        what = f"{name}: writer's processor time per frame, copy included, 16 readers"
        report.lines.append(Line("P8", "p8", what, "us", many, one, "with 1 reader", times(1.1) if mine else SHOWN))
        each = median([r.reader_cpu for r in found[16][way]])
        what = f"{name}: a reader's processor time per frame, 16 readers"
        report.lines.append(Line("P8", "p8", what, "us", each, bar=at_most(20) if mine else SHOWN))


P9_WAYS = [
    "camring", "iceoryx2 (Python)", "ZeroMQ conflate", "ZeroMQ PUB", "shmsink", "SharedMemory + queue", "multiprocessing.Queue",
]  # fmt: skip
PERIOD_MS = 40.0


def p9_slow(report: Report, plan: Plan) -> None:
    """A reader that needs 400 ms per frame at 25 fps: how old is what it gets, and does that grow?"""
    short = max(6.0, plan.seconds * 2)
    ages: dict[str, list[list[float]]] = {way: [] for way in P9_WAYS}
    growth: dict[str, list[float]] = {way: [] for way in P9_WAYS}
    blocked: dict[str, list[float]] = {way: [] for way in P9_WAYS}
    for number, way in itertools.product(range(max(1, plan.rounds // 2)), P9_WAYS):
        stage.log(f"round {number + 1}: {way}, a reader that needs 400 ms")
        # The goal is about a minute; of the others a third of it shows what there is to see.
        seconds = plan.seconds * 6 if way == "camring" else short
        try:
            written, read = stage.hand_over(spec(way, FULL_HD, 25, int(25 * seconds), 1, 0.4))
        except Failed as error:
            report.skip(f"{way}, a reader that needs 400 ms (a round)", str(error))
            continue
        result = read[0]
        if not result or len(result["us"]) < 5:
            seen = len(result["us"]) if result else "nobody knows how many"
            report.skip(f"{way}, a reader that needs 400 ms (a round)", f"the reader saw {seen} frames, fewer than 5")
            continue
        age = [value / 1e3 for value in result["us"][1:]]
        ages[way].append(age)
        half = len(age) // 2
        growth[way].append((median(age[half:]) - median(age[:half])) / (half * 0.4))
        blocked[way].append(max(written["publish_us"]) / 1e3)
    for way, rounds in ages.items():
        if not rounds:
            continue
        mine = way == "camring"
        value, high, medians = of_rounds(rounds)
        what = f"{way}: reader that needs 400 ms, age of what it takes"
        bar = at_most(PERIOD_MS) if mine else SHOWN
        report.lines.append(Line("P9", "p9", what, "ms", value, bar=bar, ours_p99=high, rounds=medians))
        what = f"{way}: that age grows by, per second"
        report.lines.append(Line("P9", "p9", what, "ms", median(growth[way]), bar=at_most(1) if mine else SHOWN))
        what = f"{way}: longest publish call meanwhile"
        report.lines.append(Line("P9", "p9", what, "ms", median(blocked[way])))


@dataclass
class Phases:
    """A round with a second reader that runs, is stopped, runs, is stopped."""

    publish_p99: list[float]
    latency: list[float]
    delivered: float
    longest_ms: float


def split(times_ns: list[int], values: list[float], switches: list[int]) -> list[list[float]]:
    """Values by phase."""
    parts: list[list[float]] = [[] for _ in switches]
    for at, value in zip(times_ns, values, strict=True):
        phase = sum(at >= switch for switch in switches) - 1
        if phase >= 0:
            parts[phase].append(value)
    return parts


def stopped_round(way: str, phase: float) -> Phases:
    """A, B, A, B: in B the second reader is stopped."""
    made = spec(way, FULL_HD, 25, int(25 * phase * 4), 2)
    switches: list[int] = []

    def during(readers: list[Peer]) -> None:
        for number in range(4):
            os.kill(readers[1].pid, signal.SIGSTOP if number % 2 else signal.SIGCONT)
            switches.append(time.monotonic_ns())
            time.sleep(phase)
        os.kill(readers[1].pid, signal.SIGCONT)

    written, read = stage.hand_over(made, during)
    first = read[0]
    if not first:
        raise Failed("the undisturbed reader never came to its end")
    # What a queue catches up with after the last phase came too late.
    in_time = [us for us in first["us"] if us < phase * 1e6 / 2]
    publish = split(written["t0s"], written["publish_us"], switches)
    latency = split(first["t0s"], first["us"], switches)
    if not publish[0]:
        raise Failed("nothing was published while both readers ran")
    return Phases(
        [percentile(part, 99) if part else float("nan") for part in publish],
        [median(part) if part else float("nan") for part in latency],
        len(in_time) / made.frames,
        max(written["publish_us"]) / 1e3,
    )


def p9_stopped(report: Report, plan: Plan) -> None:
    """One of two readers is stopped: what does the other one get?"""
    found: dict[str, list[Phases]] = {way: [] for way in P9_WAYS}
    for number, way in itertools.product(range(plan.rounds), P9_WAYS):
        # Of the others two rounds show what there is to see.
        if way != "camring" and number >= 2:
            continue
        stage.log(f"round {number + 1}: {way}, one of two readers stopped")
        try:
            found[way].append(stopped_round(way, max(2.0, plan.seconds / 2)))
        except Failed as error:
            report.skip(f"{way}, one of two readers stopped (a round)", str(error))
    for way, rounds in found.items():
        if not rounds:
            continue
        mine = way == "camring"
        what = f"{way}: one of two readers stopped, frames in time at the other"
        share = median([r.delivered for r in rounds]) * 100
        report.lines.append(Line("P9", "p9", what, "%", share, bar=at_least(99) if mine else SHOWN))
        what = f"{way}: longest publish call meanwhile, one stopped"
        report.lines.append(Line("P9", "p9", what, "ms", median([r.longest_ms for r in rounds])))
        if mine:
            for words, pick in (("publish p99", "publish_p99"), ("the other's latency", "latency")):
                report.lines.append(against_spread(f"{way}: {words}, stopped against running", [getattr(r, pick) for r in rounds]))


def against_spread(what: str, rounds: list[list[float]]) -> Line:
    """B against A of A B A B, held against how far A and B differ among themselves."""
    calm = median([(r[0] + r[2]) / 2 for r in rounds])
    disturbed = median([(r[1] + r[3]) / 2 for r in rounds])
    spread = median([max(abs(r[0] - r[2]), abs(r[1] - r[3])) / ((r[0] + r[2]) / 2) for r in rounds])
    note = f"spread of A B A B in the same run: {spread * 100:.0f} %"
    return Line("P9", "p9", what, "us", disturbed, calm, "both running", times(1 + spread), rounds=[r[1] for r in rounds], note=note)


def p9(report: Report, plan: Plan) -> None:
    """Slow and stopped readers."""
    p9_slow(report, plan)
    p9_stopped(report, plan)
