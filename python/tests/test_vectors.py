"""The conformance vectors of docs/vectors, read by the package and by the standard-library reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from test_plain_reader import PROGRAM, load
from writer import payload_of

import camring

VECTORS = sorted((ROOT / "docs/vectors").glob("*.json"))
assert VECTORS, "docs/vectors has no case"

ERRORS: list[tuple[str, type[Exception]]] = [
    ("no_frame", camring.NoFrame),
    ("overrun", camring.Overrun),
    ("not_yet", camring.NotYet),
    ("lease_unavailable", camring.LeaseUnavailable),
]

# Fields of docs/segment.md, section 3.3, by what a frame calls them; `boot_minus_mono_ns` shows in the age alone.
FIELDS: dict[str, Callable[[camring.Frame], object]] = {
    name: lambda frame, name=name: getattr(frame, name)
    for name in (
        "seq width height geometry_epoch writer_epoch session_id rtp_timestamp pts_ns duration_ns source_unix_ns "
        "source_seq dropped_before payload_crc32c gap value_scale value_offset lag_ns"
    ).split()
} | {
    "pixfmt": lambda frame: word(frame.format),
    "plane_count": lambda frame: len(frame.planes),
    "plane_off": lambda frame: padded(offset for offset, _ in frame.planes),
    "plane_stride": lambda frame: padded(stride for _, stride in frame.planes),
    "payload_len": lambda frame: frame.nbytes,
    "flags": lambda frame: list(frame.flags),
    "color": lambda frame: [*frame.color[:3], int(frame.color.full_range)],
    "arrival_mono_ns": lambda frame: frame.arrival_ns,
    "arrival_real_ns": lambda frame: frame.arrival_unix_ns,
    "decoded_mono_ns": lambda frame: frame.decoded_ns,
    "publish_mono_ns": lambda frame: frame.publish_ns,
    "publish_real_ns": lambda frame: frame.publish_unix_ns,
    "pixel_aspect": lambda frame: list(frame.pixel_aspect),
    "source_pixfmt": lambda frame: word(frame.source_format),
    "source_size": lambda frame: [frame.source_width, frame.source_height],
    "rotation": lambda frame: frame.rotation // 90,
    "time_source": lambda frame: word(frame.time_source),
    "fit": lambda frame: word(frame.fit),
    "scale": lambda frame: list(frame.scale),
    "offset": lambda frame: list(frame.offset),
    "pad_color": lambda frame: list(frame.pad_color),
}


def word(text: str) -> str | int:
    """A number without a word stands as the number."""
    return int(text) if text.isdigit() else text


def padded(values: Any) -> list[int]:
    return [*values, 0, 0, 0, 0][:4]


def put(vector: dict[str, Any], shm_dir: Path) -> None:
    with (shm_dir / "camring.yard").open("wb") as file:
        file.truncate(vector["file_bytes"])
        for offset, digits in vector["chunks"]:
            file.seek(offset)
            file.write(bytes.fromhex(digits))


def attach_word(error: Exception) -> str:
    if isinstance(error, camring.LayoutMismatch):
        return "not_ready" if "is still being made" in str(error) else "layout_mismatch"
    assert isinstance(error, camring.RingNotFound)
    return "removed" if "was removed" in str(error) else "superseded"


def read_word(error: camring.Error) -> dict[str, object]:
    for name, kind in ERRORS:
        if isinstance(error, kind):
            facts = {key: word(str(value)) for key, value in vars(error).items() if key != "seq"}
            return {"error": name, **facts}
    assert isinstance(error, camring.LayoutMismatch)
    if "of the unknown format" in str(error):
        return {"error": "unknown_format"}
    assert "contradicts itself" in str(error)
    return {"error": "corrupt"}


def assert_frame(read: Callable[[], camring.Frame], expected: dict[str, Any]) -> None:
    if "error" in expected:
        with pytest.raises(camring.Error) as caught:
            read()
        found = read_word(caught.value)
        for name, value in expected.items():
            if name == "text":
                assert all(text in str(caught.value) for text in value)
            else:
                assert found.get(name, value if name == "format" else None) == value, (name, found)
        return
    frame = read()
    for name, value in expected.items():
        if name in FIELDS:
            assert FIELDS[name](frame) == value, name
    if "guarded" in expected:
        assert frame.is_guarded == expected["guarded"] and frame.valid
    assert_planes(frame, expected.get("planes", []))


def assert_planes(frame: camring.Frame, planes: list[dict[str, Any]]) -> None:
    payload = payload_of(frame.seq, frame.nbytes)
    if frame.planes and frame.planes[0][0] == 0 and len(bytes(frame)) == frame.nbytes:
        assert bytes(frame) == payload
    for plane, (offset, stride) in zip(planes, frame.planes, strict=False):
        begin = offset + stride * (plane["rows"] - 1)
        assert payload[begin : begin + plane["row_bytes"]].hex() == plane["last_row"]


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_the_package_reads_every_vector_as_it_says(shm_dir: Path, path: Path) -> None:
    vector = json.loads(path.read_text())
    expect = vector["expect"]
    put(vector, shm_dir)
    if expect["attach"] != "ok":
        with pytest.raises((camring.LayoutMismatch, camring.RingNotFound)) as caught:
            camring.attach("camring.yard", timeout=0.0)
        assert attach_word(caught.value) == expect["attach"]
        assert all(text in str(caught.value) for text in expect.get("text", []))
        return
    ring = camring.attach("camring.yard", timeout=0.0)
    assert not ring.writer_alive
    if "latest" in expect:
        assert_frame(ring.latest, expect["latest"])
    if "lease" in expect:
        assert_frame(ring.lease, expect["lease"])
    for seq, expected in expect.get("at", {}).items():
        assert_frame(lambda seq=seq: ring.at(int(seq)), expected)  # type: ignore[misc]
    if "held" in expect:
        assert ring.held() == expect["held"]
    info = ring.info()
    for name, value in expect.get("status", {}).items():
        if name in info.counters:
            assert info.counters[name] == value, name
        elif name in ("state", "reason"):
            assert word(getattr(info, name)) == value, name
        elif hasattr(info, name):
            assert getattr(info, name) == value, name
    assert ring.slots == expect.get("config", {}).get("slot_count", ring.slots)


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_the_plain_reader_agrees_where_it_reads_and_never_returns_more(shm_dir: Path, path: Path) -> None:
    vector = json.loads(path.read_text())
    expect = vector["expect"]
    put(vector, shm_dir)
    plain = load(PROGRAM)
    try:
        ring = plain.Ring("camring.yard", str(shm_dir))
        found = ring.latest()
    # It makes the first few checks only: Python's own errors stand for the others.
    except (ValueError, OSError, IndexError, OverflowError, TypeError):
        bgr = expect.get("latest", {}).get("pixfmt") in ("bgr", "rgb")
        assert not bgr or expect["attach"] != "ok", "a frame of 8-bit bgr or rgb is what it can read"
        return
    if expect["attach"] == "ok" and found is not None and "seq" in expect.get("latest", {}):
        assert found.seq == expect["latest"]["seq"]
        begin = expect["latest"].get("plane_off", [0])[0]
        payload = payload_of(found.seq, expect["latest"]["payload_len"])[begin:]
        assert payload.startswith(found.pixels[: len(payload)]) and len(found.pixels) >= found.width * 3
