"""A camera whose pictures are above max_size: what its frames say leads back to the camera's own pixels."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import camring
import pytest
from conftest import ROOT

PROGRAM = str(Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release/camring")
COLOURS = [(191, 191, 191), (0, 191, 191), (191, 191, 0), (0, 191, 0), (191, 0, 191), (0, 0, 191), (191, 0, 0)]


@pytest.fixture
def scaled(shm_dir: Path, tmp_path: Path) -> Iterator[str]:
    """Seven colour bars of 1280x720 in a ring of at most 640x480; the name of the ring."""
    options = ["--size", "1280x720", "--fps", "10", "--pattern", "bars", "--until-stdin-closes"]
    with subprocess.Popen(
        [PROGRAM, "sim", "--listen", "127.0.0.1:0", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sim:
        assert sim.stdout is not None
        url = sim.stdout.readline().strip()
        file = tmp_path / "camring.toml"
        file.write_text(f'[camera.front]\nurl = "{url}"\nmax_size = "640x480"\n')
        command = [PROGRAM, "run", "front", "--config", str(file), "--shm-dir", str(shm_dir)]
        with subprocess.Popen(command) as daemon:
            yield "front"
            daemon.terminate()
            assert daemon.wait(10) == 0
        sim.communicate()


def test_a_point_of_a_scaled_frame_leads_back_to_the_cameras_pixels(scaled: str) -> None:
    with camring.attach(scaled, timeout=20) as ring:
        frame = ring.next(timeout=20)
        assert frame.scaled and (frame.width, frame.height) == (640, 360)
        assert (frame.source_width, frame.source_height) == (1280, 720)
        assert frame.to_source(0, 0) == (0, 0) and frame.to_source(640, 360) == (1280, 720)
        picture = frame.numpy()
        for x in range(20, 640, 40):
            source_x, source_y = frame.to_source(x, 200)
            assert source_y == 400
            bar, inside = divmod(source_x, 1280 / 7)
            if 8 < inside < 1280 / 7 - 8:
                found = picture[200, x]
                assert max(abs(int(a) - b) for a, b in zip(found, COLOURS[int(bar)], strict=True)) <= 3, (x, found)
