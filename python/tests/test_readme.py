"""Every program of README.md runs as it is printed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from writer import DEADLINE, Writer

README = Path(__file__).resolve().parents[1] / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
NOT_OURS = ("cv2", "torch")


def test_the_readme_has_its_programs() -> None:
    assert len(PROGRAMS) == 7


@pytest.mark.parametrize("program", PROGRAMS, ids=[f"program {number}" for number in range(1, len(PROGRAMS) + 1)])
def test_a_program_of_the_readme_runs(writer: Callable[..., Writer], program: str) -> None:
    missing = [name for name in NOT_OURS if f"import {name}" in program and importlib.util.find_spec(name) is None]
    if missing:
        compile(program, str(README), "exec")
        pytest.skip(f"{missing[0]} is not installed; the program compiles")
    for ring in ("front", "back"):
        writer(ring, "--fps", "50", "--frames", "25")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=DEADLINE)
    assert ended.returncode == 0, ended.stderr
