"""Runs each step of the bench `instructions` under callgrind; compares with the committed baseline, or writes it.

    instructions.py PROGRAM [--update]

Callgrind counts from a step's function to its return (--toggle-collect). Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import json
import platform
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BASELINE = Path(__file__).resolve().parent.parent / "tests/benches/instructions.json"
# A step may need so much more: compilers and libraries change a little, a copy of a frame is tenfold.
TOLERANCE = 0.03
SLACK = 300
LIMIT_S = 240


PRCTL = {"x86_64": 157, "aarch64": 167}
PR_GET_AUXV, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 0x41555856, 38, 22, 2


def without_auxv() -> None:
    """Lets prctl(PR_GET_AUXV) fail in this process and what it starts.

    rustix asks the kernel where the vDSO is, past valgrind, which has unmapped it; refused, it reads /proc/self/auxv, which
    valgrind answers. The other way, rustix on libc, would count another program than the one that is shipped.
    """
    load, equal, give = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EINVAL
    steps = [
        (load, 0, 0, 0),
        (equal, 0, 3, PRCTL[platform.machine()]),
        (load, 0, 0, 16),
        (equal, 0, 1, PR_GET_AUXV),
        (give, 0, 0, refuse),
        (give, 0, 0, allow),
    ]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    room = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(room))
    libc = ctypes.CDLL(None, use_errno=True)
    refused = libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if refused or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def count(program: str, step: str) -> int:
    """Instructions of one step."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--toggle-collect=*counted_{step}*", program, step]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found or int(found[1]) == 0:
        raise SystemExit(f"callgrind counted nothing in {step} (exit code {done.returncode}):\n{done.stderr[-2000:]}")
    return int(found[1])


def comparable() -> bool:
    """Whether this processor runs the code that the baseline was counted with; valgrind knows nothing beyond AVX2."""
    return platform.machine() == "x86_64" and " avx2 " in Path("/proc/cpuinfo").read_text()


def compare(counted: dict[str, int], baseline: dict[str, int]) -> int:
    """Prints a line per step; how many need more than they may."""
    worse = 0
    for step in sorted(counted.keys() | baseline.keys()):
        now, before = counted.get(step), baseline.get(step)
        if now is None or before is None:
            worse += 1
            print(f"{step:<28} {now or '-':>12} {before or '-':>12}  only on one side: run scripts/instructions --update")
            continue
        change = now / before - 1
        allowed = before * TOLERANCE + SLACK
        verdict = ""
        if now - before > allowed:
            worse += 1
            verdict = f"MORE than {before + allowed:.0f}: find out why, or scripts/instructions --update and say why in the commit"
        elif before - now > allowed:
            verdict = "fewer: scripts/instructions --update keeps it so"
        print(f"{step:<28} {now:>12} {before:>12} {change:>+8.1%}  {verdict}".rstrip())
    return worse


def main() -> int:
    """1 when a step needs more instructions than it may."""
    program, update = sys.argv[1], "--update" in sys.argv[2:]
    if not comparable():
        print("not compared: the baseline was counted on x86-64 with AVX2, whose code other processors do not run")
        return 0
    without_auxv()
    steps = subprocess.run([program], capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout.split()
    with ThreadPoolExecutor(2) as pool:
        counted = dict(zip(steps, pool.map(lambda step: count(program, step), steps), strict=True))
    if update:
        BASELINE.write_text(json.dumps(counted, indent=2) + "\n")
        print(f"wrote {BASELINE}: {counted}")
        return 0
    worse = compare(counted, json.loads(BASELINE.read_text()))
    if worse:
        print(f"{worse} steps of the hot path need more instructions than {BASELINE.name} allows")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
