"""camring beside what else there is: runs the groups, prints the table, writes the JSON. Started by scripts/bench-peers."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import bench_figures
import camera
import handover
import stage
from bench_figures import Report, output_of
from handover import Plan

GROUPS = {
    "p1": (handover.p1, "publish in place -> view, Rust, beside iceoryx2"),
    "p2": (handover.p2, "the same from Python"),
    "p3": (handover.p3, "Python to Python, beside queues and shared memory"),
    "p6": (camera.p6, "processor time of capturing a camera"),
    "p7": (camera.p7, "picture pushed -> BGR held"),
    "p8": (handover.p8, "sixteen readers"),
    "p9": (handover.p9, "a slow reader, a stopped reader"),
}


def add_versions(report: Report) -> None:
    """Of everything that took part."""
    for name in ("iceoryx2", "pyzmq", "numpy", "opencv-python-headless", "camring"):
        try:
            report.versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            report.skip(name, "not installed")
    report.versions["Python"] = sys.version.split()[0]
    words = output_of("ffmpeg", "-version").split()
    report.versions["ffmpeg"] = words[2] if len(words) > 2 else ""
    report.versions["OpenCV (Debian)"] = output_of("/usr/bin/python3", "-c", "import cv2; print(cv2.__version__)")


def main() -> int:
    """0 unless something broke; a missed goal is printed, not failed."""
    words = argparse.ArgumentParser(prog="scripts/bench-peers", description=__doc__)
    words.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(f"{name}: {text}" for name, (_, text) in GROUPS.items()))
    words.add_argument("--quick", action="store_true", help="short rounds, for trying the tools; nothing to quote")
    words.add_argument("--json", type=Path, metavar="FILE", default=stage.ROOT / "target/bench/peers.json")
    args = words.parse_args()
    if unknown := set(args.groups) - set(GROUPS):
        words.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    report = bench_figures.Report("bench-peers", args.quick)
    add_versions(report)
    try:
        with stage.memory_mount():
            for name in args.groups or GROUPS:
                GROUPS[name][0](report, Plan.of(args.quick))
    except KeyboardInterrupt:
        report.skip("the groups after this one", "interrupted")
    finally:
        # What was measured is not lost when a later group breaks.
        report.save(args.json)
    report.print()
    print(f"also in {args.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
