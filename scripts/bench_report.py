"""Draws docs/performance.md anew: its tables, between markers, and its plots, from docs/performance/{bench,peers}.json.

    scripts/bench --redraw

Nothing is measured. The text around the markers is written by hand and stays. Standard library only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from bench_figures import ROOT, Line, Report, load
from bench_plot import Column, bars

PAGE = ROOT / "docs/performance.md"
FOLDER = ROOT / "docs/performance"
MARK = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
# The plots: file, goal, pattern of the lines, title. Each line gives a bar for what stands beside ours.
PLOTS = [
    ("p1.svg", "P1", r"has the view, 1 reader$", "Publish in place to view, Rust, one reader (median)"),
    ("p3.svg", "P3", r"^publish call.*Python array, 1080p$", "Publish call to Python array, 1080p (median)"),
    ("p3-tensor.svg", "P3", r"^publish call.*Python array, 50", "Publish call to Python array, 50.3 MB (median)"),
    ("p6.svg", "P6", r"^capture process", "Processor time per captured picture, 1080p H.264"),
    ("p7.svg", "P7", r"BGR array held, 1080p25 over TCP$", "Picture pushed to BGR array held, 1080p25 (median)"),
]


def figure(value: float | None, unit: str) -> str:
    """A cell."""
    if value is None:
        return ""
    digits = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{digits} {unit}".rstrip()


def row(line: Line) -> str:
    """A line of the table."""
    beside = "" if line.beside is None else f"{figure(line.beside, line.unit)} {line.beside_is}"
    ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
    verdict = {"met": "met", "missed": "**missed**", "shown": ""}[line.verdict]
    note = f"; {line.note}" if line.note else ""
    what = f"{line.what}{note}".replace("|", "\\|")
    bar = line.bar.words(line.unit)
    return f"| {line.goal} | {what} | {figure(line.ours, line.unit)} | {figure(line.ours_p99, line.unit)} | {beside} | {ratio} | {bar} | {verdict} |"


def table(report: Report) -> str:
    """The run, its lines, and what was skipped."""
    of = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items() if version)
    judged = [line for line in report.lines if line.verdict != "shown"]
    met = sum(line.verdict == "met" for line in judged)
    head = [
        f"Run of {report.date}, commit {report.commit}: {of['cpu']}, {of['processors']} processors, {of['memory_mib']} MiB,"
        f" {of['system']}, Linux {of['kernel']}; load before {of['load_before']}, after {of.get('load_after', '?')}; {versions}.",
        "",
    ]
    if report.quick:
        head += ["**A quick run**: short rounds, to try the tools. Its figures are not to be quoted.", ""]
    if of["load_before"] > 0.5:
        head += ["**Not a quiet machine**: other work ran at the same time. Ratios say something, times and percentiles little.", ""]
    head += [
        f"{met} of {len(judged)} goals met.",
        "",
        "| goal | what | ours | 99 % | beside, same run | ratio | goal is | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    skipped = [f"- not measured: {entry.what}: {entry.reason}" for entry in report.skipped]
    return "\n".join([*head, *map(row, report.lines), "", *skipped, *([""] if skipped else [])])


def plot(report: Report, goal: str, pattern: str, title: str) -> str | None:
    """Ours, and every peer of the lines that fit."""
    lines = [line for line in report.lines if line.goal == goal and re.search(pattern, line.what) and line.beside]
    if not lines:
        return None
    columns = [Column("camring", lines[0].ours, True)] + [Column(line.beside_is, line.beside or 0.0) for line in lines]
    note = f"{report.date}, {report.machine['cpu']}, {report.machine['processors']} processors; less is better, logarithmic"
    return bars(title, lines[0].unit, sorted(columns, key=lambda column: column.value), note + ("; QUICK RUN" if report.quick else ""))


def plots(report: Report) -> str:
    """Draws the files; the links to them."""
    links = []
    for name, goal, pattern, title in PLOTS:
        text = plot(report, goal, pattern, title)
        if text:
            (FOLDER / name).write_text(text)
            links.append(f"![{title}](performance/{name})\n")
        else:
            (FOLDER / name).unlink(missing_ok=True)
    return "\n".join(links)


def main() -> int:
    """0, or 1 when a file is missing."""
    parts: dict[str, str] = {}
    for name in ("bench", "peers"):
        file = FOLDER / f"{name}.json"
        if not file.exists():
            print(f"{file} is not there; measure with `scripts/{'bench' if name == 'bench' else 'bench-peers'} --json {file}`", file=sys.stderr)
            return 1
        report = load(file)
        parts[name] = table(report)
        if name == "peers":
            parts["plots"] = plots(report)
    text = MARK.sub(lambda found: f"{found[1]}\n{parts[found[2]]}\n{found[3]}", PAGE.read_text())
    PAGE.write_text(text)
    print(f"drew {PAGE} from {FOLDER}/*.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
