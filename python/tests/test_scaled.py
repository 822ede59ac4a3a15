"""A camera whose pictures are scaled, by max_size and for a model: what frames say leads back to the camera's own pixels."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import camring
import numpy as np
import pytest
from conftest import ROOT

PROGRAM = str(Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release/camring")
COLOURS = [(191, 191, 191), (0, 191, 191), (191, 191, 0), (0, 191, 0), (191, 0, 191), (0, 0, 191), (191, 0, 0)]


MODEL = """[camera.front.output.model]
size = "640x640"
format = "rgb-planar-f32"
normalize = { mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }
"""


@pytest.fixture
def scaled(shm_dir: Path, tmp_path: Path) -> Iterator[str]:
    """Seven colour bars of 1280x720 in a ring of at most 640x480, and in a ring for a model; the name of the first."""
    options = ["--size", "1280x720", "--fps", "10", "--pattern", "bars", "--until-stdin-closes"]
    with subprocess.Popen(
        [PROGRAM, "sim", "--listen", "127.0.0.1:0", *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sim:
        assert sim.stdout is not None
        url = sim.stdout.readline().strip()
        file = tmp_path / "camring.toml"
        file.write_text(f'[camera.front]\nurl = "{url}"\nmax_size = "640x480"\n{MODEL}')
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


def test_a_model_input_is_an_array_of_floats_whose_points_lead_back(scaled: str) -> None:
    with camring.attach(f"{scaled}.model", timeout=20) as ring:
        frame = ring.next(timeout=20)
        planes = np.asarray(frame)
        assert ring.shape == planes.shape == (3, 640, 640) and planes.dtype == np.float32
        assert (frame.format, frame.fit, frame.pad_color) == ("rgb-planar-f32", "letterbox", (114, 114, 114, 0))
        # Gray 114 is -0.2118 on this scale.
        assert np.allclose(planes[:, :139, :], (114 / 255 - 0.5) / 0.25, atol=1e-6)
        back = (planes - frame.value_offset) / frame.value_scale
        for x in range(20, 640, 40):
            source_x, source_y = frame.to_source(x, 320)
            assert (source_x, source_y) == (2 * x, 360)
            bar, inside = divmod(source_x, 1280 / 7)
            if 8 < inside < 1280 / 7 - 8:
                red, green, blue = (float(back[channel, 320, x]) for channel in range(3))
                wanted = COLOURS[int(bar)]
                assert max(abs(a - b) for a, b in zip((blue, green, red), wanted, strict=True)) <= 3, (x, wanted)
        assert frame.jpeg()[:2] == b"\xff\xd8"
        with ring.lease() as leased:
            assert np.asarray(leased).shape == (3, 640, 640) and not np.asarray(leased).flags.writeable
