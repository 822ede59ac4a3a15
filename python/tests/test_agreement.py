"""The live path from Python: a simulated camera, a daemon, and three readers that must see the same bytes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import camring
import pytest
from conftest import ROOT
from test_reading import documented_reader

RELEASE = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release"
SECONDS = 60 if os.environ.get("CAMRING_SOAK") == "full" else 4

LIMIT = SECONDS + 60.0
"""Longest time that a test of this file may take, seconds."""


@pytest.fixture
def live(shm_dir: Path) -> Iterator[str]:
    """A 1080p25 H.264 camera and its daemon; the name of the ring."""
    program = str(RELEASE / "camring")
    with subprocess.Popen(
        [program, "sim", "--listen", "127.0.0.1:0", "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as sim:
        assert sim.stdout is not None
        url = sim.stdout.readline().strip()
        with subprocess.Popen([program, "run", "front", "--url", url, "--shm-dir", str(shm_dir)]) as daemon:
            yield "front"
            daemon.terminate()
            assert daemon.wait(10) == 0
        sim.communicate()


def read_package(ring: camring.Ring, until: float, seen: dict[int, int]) -> None:
    while time.monotonic() < until:
        frame = ring.next(timeout=20)
        assert frame.seq not in seen
        seen[frame.seq] = zlib.crc32(frame)


def read_documented(ring: Any, until: float, seen: dict[int, int]) -> None:
    while time.monotonic() < until:
        try:
            frame = ring.latest()
        except BlockingIOError:
            continue
        if frame is not None and frame.seq not in seen:
            seen[frame.seq] = zlib.crc32(frame.pixels)


def test_three_readers_agree_on_every_pixel_of_a_live_camera(live: str, shm_dir: Path) -> None:
    ring = camring.attach(live)
    first = ring.next(timeout=30)
    assert (first.width, first.height, first.format) == (1920, 1080, "bgr")
    until = time.monotonic() + SECONDS
    with subprocess.Popen(
        [str(RELEASE / "examples/checksums"), live, str(SECONDS), "--shm-dir", str(shm_dir)],
        stdout=subprocess.PIPE,
        text=True,
    ) as rust:
        package: dict[int, int] = {}
        plain: dict[int, int] = {}
        documented = documented_reader()(live, str(shm_dir))
        beside = threading.Thread(target=read_documented, args=(documented, until, plain))
        beside.start()
        read_package(ring, until, package)
        beside.join(30)
        lines, _ = rust.communicate(timeout=30)
    assert rust.returncode == 0
    library = {int(seq): int(crc, 16) for seq, crc in (line.split() for line in lines.splitlines())}
    common = library.keys() & package.keys() & plain.keys()
    assert len(common) >= SECONDS * 5, f"{len(library)}, {len(package)} and {len(plain)} frames, {len(common)} common"
    differing = [seq for seq in common if not library[seq] == package[seq] == plain[seq]]
    assert differing == []
    print(f"soak: {len(common)} frames of 1080p25 read alike by three readers")
