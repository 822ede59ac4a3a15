"""Collects what the benches of `scripts/bench` wrote into one table and one JSON (scripts/bench_figures.py).

    bench_collect.py [--quick] --json FILE GROUP=FILE...
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from bench_figures import SHOWN, Bar, Line, Report, line_from_json

# The ring's bench says what it measures in words; these are the goals they belong to.
GOALS = [
    (r"^publish to ", "P1"),
    (r"^claim and publish without the pixels", "P12"),
    (r"^copy of 1080p into a reused buffer", "P12"),
    (r"^attach and first view", "P10"),
    (r"^adopt ", "P10"),
    (r"page fault|private memory", "P10"),
]
# Goals, or parts of them, that have no line until what they are about is there.
EXPECTED = [
    ("P4", "two threads", "this machine has one processor"),
]
WORDS = re.compile(r"<= ([0-9.]+) (\S+)")


def goal_of(what: str) -> str:
    """The goal of a line of the ring's bench, or `ring`."""
    return next((goal for pattern, goal in GOALS if re.search(pattern, what)), "ring")


def bar_of(words: str) -> Bar:
    """`<= 1.15 x` or `<= 20 us`."""
    found = WORDS.fullmatch(words)
    if not found:
        return SHOWN
    return Bar("times" if found[2] == "x" else "at_most", float(found[1]))


def lines_of(group: str, found: list[dict[str, Any]]) -> list[Line]:
    """The lines of one bench."""
    if group != "ring":
        return [line_from_json(line) for line in found]
    return [
        Line(goal_of(line["what"]), group, line["what"], line["unit"], line["ours"], line["beside"], line["beside_is"], bar_of(line["bar"]))
        for line in found
    ]


def main() -> int:
    """Prints the table; a missed goal is printed, not failed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true")
    words.add_argument("--json", type=Path, required=True)
    words.add_argument("--load", type=float, default=None, help="the machine's load before the measurement")
    words.add_argument("benches", nargs="+", metavar="GROUP=FILE")
    args = words.parse_args()
    report = Report("bench", args.quick)
    if args.load is not None:
        report.machine["load_before"] = args.load
    for bench in args.benches:
        group, _, file = bench.partition("=")
        try:
            report.lines += lines_of(group, json.loads(Path(file).read_text()))
        except FileNotFoundError:
            report.skip(group, f"{file} was not written: the bench failed, see above")
    if any(line.group == "convert" for line in report.lines):
        for goal, pattern, reason in EXPECTED:
            if not any(line.goal == goal and re.search(pattern, line.what) for line in report.lines):
                report.skip(f"{goal}, {pattern or 'all of it'}", reason)
    report.print()
    report.save(args.json)
    print(f"also in {args.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
