"""scripts/demo-reader.py: the example worker that `camring demo --reader` runs."""

from __future__ import annotations

import binascii
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from writer import DEADLINE, Writer

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/demo-reader.py"


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_reader", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Picture(bytearray):
    """What the reader needs of a frame."""

    format = "bgr"

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        super().__init__(pixels.tobytes())
        self.height, self.width, _ = pixels.shape
        self.stride = self.width * 3


def painted(number: int, width: int, height: int, side: int) -> NDArray[np.uint8]:
    """A grey picture with both stamps, painted after the table of src/sim/stamp.rs."""
    content = b"\xa6" + (7).to_bytes(2, "big") + number.to_bytes(4, "big") + (123456789).to_bytes(7, "big")
    stamp = content + binascii.crc_hqx(content, 0xFFFF).to_bytes(2, "big")
    cells = np.unpackbits(np.frombuffer(stamp, np.uint8)).reshape(8, 16)
    area = np.where(cells == 1, 235, 16).astype(np.uint8).repeat(side, 0).repeat(side, 1)[..., None]
    pixels = np.full((height, width, 3), 128, np.uint8)
    left, top = (width - side * 16) & ~1, (height - side * 8) & ~1
    pixels[: side * 8, : side * 16] = area
    pixels[top : top + side * 8, left : left + side * 16] = area
    return pixels


@pytest.mark.parametrize(("width", "height", "side"), [(1920, 1080, 24), (641, 359, 14), (320, 240, 8)])
def test_a_painted_stamp_reads_back(reader: ModuleType, width: int, height: int, side: int) -> None:
    stamp = reader.read_stamp(Picture(painted(0x01020304, width, height, side)))
    assert stamp == (7, 0x01020304, 123456789)


def test_a_mixture_of_two_frames_is_torn_and_damage_is_unreadable(reader: ModuleType) -> None:
    older, newer = painted(5, 640, 360, 14), painted(6, 640, 360, 14)
    newer[200:] = older[200:]
    with pytest.raises(reader.Torn, match="^frame 6 at the top, frame 5 at the bottom$"):
        reader.read_stamp(Picture(newer))
    older[14:28, 14:28] = 128
    with pytest.raises(reader.Unreadable, match="^stamp cell 1,1 has the value"):
        reader.read_stamp(Picture(older))
    swapped = painted(5, 640, 360, 14)
    swapped[14:28, 28:42] = 251 - swapped[14:28, 28:42]
    with pytest.raises(reader.Unreadable, match="checksum"):
        reader.read_stamp(Picture(swapped))


def run(ring: str, seconds: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), ring, seconds]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env={**os.environ})


def test_frames_without_a_stamp_are_not_all_right(writer: Callable[..., Writer]) -> None:
    writer("front", "--size", "320x240", "--fps", "50")
    ended = run("front", "0.3")
    report: dict[str, Any] = json.loads(ended.stdout)
    assert ended.returncode == 1 and report["ok"] is False
    assert report["unreadable"] == report["frames_read"] > 0
    assert (report["torn"], report["seq_regressions"]) == (0, 0)
    assert (report["width"], report["height"], report["latency_ms_p50"]) == (320, 240, None)
    assert report["age_ms_p50"] is not None
    assert "unreadable: stamp cell" in ended.stderr
