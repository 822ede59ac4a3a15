"""Figures of the benches: a line is ours beside its limit or peer, judged by a bar; one table and one JSON for all scripts.

# The JSON

    schema    "camring-bench/1"
    script    "bench" or "bench-peers"
    quick     true: short rounds, for trying the tools; nothing to quote
    date, commit, machine{cpu, processors, memory_mib, kernel, system, load_before, load_after}, versions{name: version}
    lines     list of {goal, group, what, unit, ours, ours_p99, beside, beside_p99, beside_is, ratio, bar, verdict, rounds, note}
    skipped   list of {what, reason}

`bar` is {"kind": "times" | "at_most" | "at_least" | "shown", "limit": number}: ours at most `limit` times what stands
beside it; at most, or at least, so much in the line's unit; shown only. `verdict` is "met", "missed" or "shown".
Standard library only.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = "camring-bench/1"


def percentile(samples: list[float], percent: float) -> float:
    """The value below which `percent` of the samples lie."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median(samples: list[float]) -> float:
    """Of at least one sample."""
    return statistics.median(samples)


@dataclass(frozen=True)
class Bar:
    """What a line is held against."""

    kind: str
    limit: float = 0.0

    def words(self, unit: str) -> str:
        """For the table."""
        number = f"{self.limit:.3g}" if self.limit < 1000 else f"{self.limit:.0f}"
        return {
            "times": f"<= {number} x",
            "at_most": f"<= {number} {unit}".rstrip(),
            "at_least": f">= {number} {unit}".rstrip(),
            "shown": "",
        }[self.kind]


SHOWN = Bar("shown")


def times(limit: float) -> Bar:
    """At most so many times what stands beside."""
    return Bar("times", limit)


def at_most(limit: float) -> Bar:
    """At most so much, in the line's unit."""
    return Bar("at_most", limit)


def at_least(limit: float) -> Bar:
    """At least so much, in the line's unit."""
    return Bar("at_least", limit)


@dataclass
class Line:
    """One line of the table."""

    goal: str
    group: str
    what: str
    unit: str
    ours: float
    beside: float | None = None
    beside_is: str = ""
    bar: Bar = SHOWN
    ours_p99: float | None = None
    beside_p99: float | None = None
    rounds: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours to what stands beside it."""
        return self.ours / self.beside if self.beside else None

    @property
    def verdict(self) -> str:
        """Met, missed, or only shown."""
        if self.bar.kind == "times":
            held = self.ratio is not None and self.ratio <= self.bar.limit
        elif self.bar.kind == "at_most":
            held = self.ours <= self.bar.limit
        elif self.bar.kind == "at_least":
            held = self.ours >= self.bar.limit
        else:
            return "shown"
        return "met" if held else "missed"

    def as_json(self) -> dict[str, Any]:
        """As in the module's text."""
        return {**asdict(self), "ratio": self.ratio, "verdict": self.verdict}


def line_from_json(found: dict[str, Any]) -> Line:
    """What `as_json` wrote."""
    known = {key: value for key, value in found.items() if key in Line.__dataclass_fields__}
    return Line(**{**known, "bar": Bar(**found["bar"])})


@dataclass
class Skipped:
    """What could not be measured, and why."""

    what: str
    reason: str


def of_rounds(rounds: list[list[float]]) -> tuple[float, float, list[float]]:
    """Median of the rounds' medians, median of their 99th percentiles, the medians."""
    medians = [median(samples) for samples in rounds if samples]
    if not medians:
        raise ValueError("no round has a sample")
    return median(medians), median([percentile(samples, 99) for samples in rounds if samples]), medians


def output_of(*command: str) -> str:
    """The first line that a command prints, or nothing when there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().split("\n")[0].strip()


def machine() -> dict[str, Any]:
    """Where this runs."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().split("\n") if line.startswith("model name")),
        platform.machine(),
    )
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().strip().split("\n") if "=" in line
    )
    return {
        "cpu": cpu,
        "processors": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20,
        "kernel": platform.release(),
        "system": release.get("PRETTY_NAME", "").strip('"'),
        "load_before": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """The commit measured, with a plus when files differ from it."""
    name = output_of("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    changed = output_of("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return name + ("+" if changed else "")


def versions() -> dict[str, str]:
    """Of what both scripts use."""
    rust = output_of("rustc", "--version").split()
    gst = output_of("gst-launch-1.0", "--version").split()
    return {"rustc": rust[1] if len(rust) > 1 else "", "GStreamer": gst[-1] if gst else ""}


@dataclass
class Report:
    """A run of a script."""

    script: str
    quick: bool
    lines: list[Line] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=versions)
    machine: dict[str, Any] = field(default_factory=machine)
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"))
    commit: str = field(default_factory=commit)

    def skip(self, what: str, reason: str) -> None:
        """Notes what is not measured, once."""
        if not any(known.what == what for known in self.skipped):
            self.skipped.append(Skipped(what, reason))

    def print(self) -> None:
        """The table on standard output."""
        of = self.machine
        print(f"{of['cpu']}, {of['processors']} processors, {of['system']}, Linux {of['kernel']}; {self.date}, {self.commit}")
        if self.quick:
            print("quick: short rounds, for trying the tools; nothing to quote")
        print(f"{'goal':<5}{'what':<66}{'ours':>12} {'p99':>9}  {'beside':<36}{'ratio':>8}  {'goal is':<14}verdict")
        for line in self.lines:
            beside = "" if line.beside is None else f"{line.beside:.2f} {line.beside_is}"
            ratio = "" if line.ratio is None else f"{line.ratio:.2f} x"
            p99 = "" if line.ours_p99 is None else f"{line.ours_p99:.2f}"
            verdict = {"met": "met", "missed": "MISSED", "shown": ""}[line.verdict]
            ours = f"{line.ours:.2f} {line.unit}".rstrip()
            bar = line.bar.words(line.unit)
            print(f"{line.goal:<5}{line.what:<66}{ours:>12} {p99:>9}  {beside:<36}{ratio:>8}  {bar:<14}{verdict}")
        for skipped in self.skipped:
            print(f"skipped: {skipped.what}: {skipped.reason}")
        judged = [line for line in self.lines if line.verdict != "shown"]
        print(f"{sum(line.verdict == 'met' for line in judged)} of {len(judged)} goals met")

    def save(self, path: Path) -> None:
        """The JSON."""
        self.machine["load_after"] = round(os.getloadavg()[0], 2)
        found = {
            "schema": SCHEMA,
            "script": self.script,
            "quick": self.quick,
            "date": self.date,
            "commit": self.commit,
            "machine": self.machine,
            "versions": self.versions,
            "lines": [line.as_json() for line in self.lines],
            "skipped": [asdict(skipped) for skipped in self.skipped],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")


def load(path: Path) -> Report:
    """A report that `save` wrote."""
    found = json.loads(path.read_text())
    if found.get("schema") != SCHEMA:
        raise ValueError(f"{path} has the schema {found.get('schema')!r}, expected {SCHEMA!r}; measure again")
    return Report(
        script=found["script"],
        quick=found["quick"],
        lines=[line_from_json(line) for line in found["lines"]],
        skipped=[Skipped(**skipped) for skipped in found["skipped"]],
        versions=found["versions"],
        machine=found["machine"],
        date=found["date"],
        commit=found["commit"],
    )
