"""The JSON schema of the configuration says what `camring check` says, judged by the Python package jsonschema."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from conftest import ROOT

PROGRAM = str(Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "release/camring")
CAMERA = '[camera.front]\nurl = "rtsp://10.0.0.1/a"\n'


@pytest.fixture(scope="module")
def validator() -> Any:
    """Judges parsed files by what `camring schema` prints, which is a schema itself."""
    ended = subprocess.run([PROGRAM, "schema"], check=True, capture_output=True, text=True, timeout=60)
    schema = json.loads(ended.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def accepted_by_the_program(text: str, folder: Path) -> bool:
    file = folder / "camring.toml"
    file.write_text(text)
    return subprocess.run([PROGRAM, "check", str(file)], capture_output=True, timeout=60).returncode == 0


@pytest.mark.parametrize("name", ["camring.toml", "minimal.toml"])
def test_every_shipped_configuration_is_valid(name: str, validator: Any) -> None:
    text = (ROOT / "config" / name).read_text()
    assert [error.message for error in validator.iter_errors(tomllib.loads(text))] == []


def test_the_keys_that_the_shipped_file_shows_as_comments_are_valid_too(validator: Any) -> None:
    text = (ROOT / "config/camring.toml").read_text()
    keys = re.sub(r"^# ((?:[a-z_.0-9]+ = |\[camera\.).*)$", r"\1", text, flags=re.MULTILINE)
    assert keys.count("\n# ") < text.count("\n# ") - 10
    assert [error.message for error in validator.iter_errors(tomllib.loads(keys))] == []


@pytest.mark.parametrize(
    "more",
    [
        "",
        'stall_after = "1m 30s"\n',
        'reconnect.permanent_retry = "5s"\n',
        'reconnect = { max = "7s", auth_retry = "30s..1h" }\n',
        'stall_after = "auto"\ndecode.device = "avdec_h264"\n',
        'output.small = { size = "64x64", region = "0, 0, 64, 64", normalize = "0..1", format = "rgb-planar-f32" }\n',
        "[camera.front.output.m]\n"
        'size = "64x64"\nformat = "rgb-planar-f32"\nnormalize = { mean = [0, 0.5, 1], std = [1, 1, 1] }\n',
        "[defaults]\nslots = 3\n[log]\nlevel = 'debug'\n",
    ],
)
def test_what_the_program_accepts_is_valid(more: str, validator: Any, tmp_path: Path) -> None:
    text = CAMERA + more
    assert accepted_by_the_program(text, tmp_path)
    assert [error.message for error in validator.iter_errors(tomllib.loads(text))] == []


@pytest.mark.parametrize(
    "more",
    [
        "solts = 8\n",
        "slots = 2\n",
        'slots = "8"\n',
        'format = "rgba"\n',
        'max_size = "1080p"\n',
        'ring.mode = "rw-r--r--"\n',
        "ring.mode = 416\n",
        "stall_after = 5\n",
        'stall_after = "soon"\n',
        'tls.verify = "no"\n',
        'tls.pin_sha256 = "abc"\n',
        'segment = "with/slash"\n',
        'decode = "auto"\n',
        '[camera.Front]\nurl = "rtsp://10.0.0.1/a"\n',
        '[camera.back]\nurl = "ftp://10.0.0.1/a"\n',
        "[camera.front.output.a]\nfit = 'squeeze'\n",
        "[camera.front.output.a]\nnormalize = { mean = [0, 0], std = [1, 1, 1] }\n",
        "[logs]\nlevel = 'debug'\n",
        "[defaults]\nurl = 'rtsp://10.0.0.1/a'\n",
    ],
)
def test_what_is_wrong_with_a_key_is_wrong_for_both(more: str, validator: Any, tmp_path: Path) -> None:
    text = CAMERA + more
    assert not accepted_by_the_program(text, tmp_path)
    assert not validator.is_valid(tomllib.loads(text))
