"""The types that the package promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parents[1]
SLOW = 300.0
"""Longest time of one run of the type checker, seconds: it reads NumPy's types too."""


def check(tmp_path: Path, module: str, *arguments: str) -> None:
    # From a folder of its own, so that the installed package is judged and not the sources.
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "MYPYPATH": str(TESTS)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=SLOW)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_stubs_say_what_the_native_module_has(tmp_path: Path) -> None:
    check(tmp_path, "mypy.stubtest", "camring", "--allowlist", str(TESTS / "stubtest-allowlist.txt"))


def test_programs_that_use_the_package_pass_the_strict_checker(tmp_path: Path) -> None:
    programs = [str(path) for path in sorted(TESTS.glob("*.py"))]
    check(tmp_path, "mypy", "--strict", *programs, str(ROOT / "scripts/demo-reader.py"))
