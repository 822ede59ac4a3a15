#!/usr/bin/env python3
"""An example worker: reads the simulated camera's ring and checks every frame by what is painted in it.

    demo-reader.py RING SECONDS

Prints a line about once a second on standard error and one JSON object on standard output at the end; exits with 0 when
every frame was whole, readable and newer than the one before. Needs the package `camring` and nothing else. The painted
stamp is described in src/sim/stamp.rs.
"""

from __future__ import annotations

import argparse
import binascii
import json
import sys
import time
from typing import Any, NamedTuple

import camring

COLUMNS, ROWS = 16, 8
SYNC = 0xA6
BLACK_MAX, WHITE_MIN = 100, 155
FIRST_FRAME = 30.0
"""Longest wait for the ring, seconds."""

# Bytes per pixel and the byte to look at: green, or luma.
CHANNELS = {
    "bgr": (3, 1),
    "rgb": (3, 1),
    "bgra": (4, 1),
    "rgba": (4, 1),
    "gray": (1, 0),
    "i420": (1, 0),
    "nv12": (1, 0),
}


class Unreadable(Exception):
    """There is no readable stamp; the text says why."""


class Torn(Exception):
    """The two stamps of the picture are of different frames."""


class Stamp(NamedTuple):
    """What is painted: the camera's run, the number of the frame, when it was made (CLOCK_MONOTONIC)."""

    run: int
    number: int
    mono_us: int


def cell_values(green: memoryview, stride: int, step: int, left: int, top: int, side: int) -> list[int]:
    """Means of the inner halves of all cells of the stamp whose top-left pixel is (left, top)."""
    first, count = side // 4, side // 2
    values = []
    for row in range(ROWS):
        sums = [0] * COLUMNS
        for y in range(top + row * side + first, top + row * side + first + count):
            start = y * stride + left * step
            line = bytes(green[start : start + COLUMNS * side * step : step])
            for column in range(COLUMNS):
                x = column * side + first
                sums[column] += sum(line[x : x + count])
        values += [total // (count * count) for total in sums]
    return values


def decode(values: list[int]) -> Stamp:
    """The stamp behind the means of its cells."""
    for cell, value in enumerate(values):
        if BLACK_MAX < value < WHITE_MIN:
            raise Unreadable(f"stamp cell {cell % COLUMNS},{cell // COLUMNS} has the value {value}")
    bits = "".join("1" if value >= WHITE_MIN else "0" for value in values)
    stamp = int(bits, 2).to_bytes(16, "big")
    if stamp[0] != SYNC:
        raise Unreadable(f"the stamp begins with {stamp[0]:#04x}, not with {SYNC:#04x}")
    if binascii.crc_hqx(stamp[:14], 0xFFFF) != int.from_bytes(stamp[14:], "big"):
        raise Unreadable("the stamp's checksum does not match its content")
    run, number, mono_us = (int.from_bytes(stamp[a:b], "big") for a, b in ((1, 3), (3, 7), (7, 14)))
    return Stamp(run, number, mono_us)


def read_stamp(frame: camring.Frame) -> Stamp:
    """The painted stamp, from both of its places when the picture has room for two."""
    if frame.format not in CHANNELS:
        raise Unreadable(f"the format {frame.format} has no byte that holds the brightness")
    step, channel = CHANNELS[frame.format]
    side = max(8, min(frame.width // 40, frame.height // 24, 24)) & ~1
    if side * COLUMNS > frame.width or side * ROWS > frame.height:
        raise Unreadable(f"a picture of {frame.width}x{frame.height} has no room for a stamp")
    view = memoryview(frame)
    if view.c_contiguous:
        flat, stride = view.cast("B"), frame.stride
    else:
        flat, stride = memoryview(bytes(view)), frame.width * step
    green = flat[channel:]
    top = decode(cell_values(green, stride, step, 0, 0, side))
    if frame.height >= 2 * side * ROWS:
        left, below = (frame.width - side * COLUMNS) & ~1, (frame.height - side * ROWS) & ~1
        bottom = decode(cell_values(green, stride, step, left, below, side))
        if bottom != top:
            raise Torn(f"frame {top.number} at the top, frame {bottom.number} at the bottom")
    return top


def percentile(values: list[float], percent: int) -> float | None:
    """The value that `percent` of the values do not exceed (nearest rank)."""
    rank = max(1, -(-len(values) * percent // 100))
    return round(sorted(values)[rank - 1], 3) if values else None


class Tally:
    """Counts and times of the frames seen so far."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(
            ("frames_read", "torn", "unreadable", "seq_regressions", "painted_regressions", "skipped"), 0
        )
        self.size = (0, 0)
        self.seq = 0
        self.painted: Stamp | None = None
        self.ages_ms: list[float] = []
        self.latencies_ms: list[float] = []

    def add(self, frame: camring.Frame) -> None:
        """Checks and counts one frame."""
        now_us, age_ms = time.monotonic_ns() // 1000, frame.age * 1e3
        self.counts["frames_read"] += 1
        self.counts["skipped"] += frame.skipped
        self.counts["seq_regressions"] += frame.seq <= self.seq
        self.ages_ms.append(age_ms)
        self.size, self.seq = (frame.width, frame.height), frame.seq
        try:
            stamp = read_stamp(frame)
        except Torn as error:
            self.fault("torn", error)
        except Unreadable as error:
            self.fault("unreadable", error)
        else:
            last = self.painted
            if last and last.run == stamp.run and stamp.number <= last.number:
                self.fault("painted_regressions", f"painted number {stamp.number} after {last.number}")
            self.latencies_ms.append((now_us - stamp.mono_us) / 1e3)
            self.painted = stamp

    def fault(self, kind: str, why: object) -> None:
        """Counts a fault and says it."""
        self.counts[kind] += 1
        print(f"reader   frame {self.seq}: {kind}: {why}", file=sys.stderr)

    def line(self) -> str:
        """A line for people: the newest frame, its age and latency."""
        painted = self.painted.number if self.painted else "-"
        latency = f"{self.latencies_ms[-1]:.1f} ms" if self.latencies_ms else "-"
        return f"frame {self.seq:>6}  painted {painted:>6}  age {self.ages_ms[-1]:>6.1f} ms  latency {latency:>9}"

    def report(self) -> dict[str, Any]:
        """What it comes to."""
        faults = ("torn", "unreadable", "seq_regressions", "painted_regressions")
        ok = self.counts["frames_read"] > 0 and not any(self.counts[fault] for fault in faults)
        return {
            "ok": ok,
            **self.counts,
            "width": self.size[0],
            "height": self.size[1],
            "age_ms_p50": percentile(self.ages_ms, 50),
            "age_ms_p99": percentile(self.ages_ms, 99),
            "latency_ms_p50": percentile(self.latencies_ms, 50),
            "latency_ms_p99": percentile(self.latencies_ms, 99),
        }


def read(ring: camring.Ring, seconds: float) -> Tally:
    """Reads every frame it can for `seconds`."""
    tally = Tally()
    until = time.monotonic() + seconds
    next_line = time.monotonic()
    while (left := until - time.monotonic()) > 0:
        try:
            frame = ring.next(timeout=left)
        except camring.Timeout:
            break
        except camring.Overrun as error:
            print(f"reader   {error}", file=sys.stderr)
            continue
        tally.add(frame)
        if time.monotonic() >= next_line:
            print(f"reader   {tally.line()}", file=sys.stderr)
            next_line += 1.0
    return tally


def main() -> int:
    """0 when everything seen was right, 1 when not, 69 when there is no such ring."""
    arguments = argparse.ArgumentParser(description="Reads the simulated camera's ring and checks every frame.")
    arguments.add_argument("ring", metavar="RING", help="the ring's name")
    arguments.add_argument("seconds", metavar="SECONDS", type=float, help="how long to read")
    args = arguments.parse_args()
    try:
        with camring.attach(args.ring, timeout=FIRST_FRAME) as ring:
            report = read(ring, args.seconds).report()
    except camring.Error as error:
        print(f"demo-reader: {error}", file=sys.stderr)
        return 69
    print(json.dumps(report))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
