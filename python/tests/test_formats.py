"""Every pixel format and the metadata of scaled pictures, by rewriting the newest frame's header of a stopped ring."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from writer import Writer, payload_of

import camring

SIZE = 64 * 64 * 3
PAYLOAD = payload_of(1, SIZE)
FORMATS = ["opaque", "bgr", "rgb", "gray", "i420", "nv12", "rgb-planar-f32", "bgra", "rgba"]

Rewrite = Callable[..., camring.Ring]


@pytest.fixture
def rewrite(writer: Callable[..., Writer], shm_dir: Path) -> Rewrite:
    """A ring whose only frame has another header: fields by (offset, struct code) as in docs/segment.md."""
    writer("front", "--size", "64x64", "--frames", "1").wait()
    path = shm_dir / "camring.front"

    def apply(*fields: tuple[int, str, object]) -> camring.Ring:
        with path.open("r+b") as file:
            header = file.read(4096)
            (slot_header_bytes,) = struct.unpack_from("<I", header, 0x24)
            (table,) = struct.unpack_from("<Q", header, 0x30)
            (head,) = struct.unpack_from("<Q", header, 0x200)
            for offset, code, value in fields:
                file.seek(table + (head & 0xFFFF) * slot_header_bytes + offset)
                file.write(struct.pack("<" + code, *(value if isinstance(value, tuple) else (value,))))
        return camring.attach("front")

    return apply


def picture(
    name: str, width: int, height: int, planes: list[tuple[int, int]], length: int
) -> list[tuple[int, str, object]]:
    offsets = tuple(offset for offset, _ in planes) + (0,) * (4 - len(planes))
    strides = tuple(stride for _, stride in planes) + (0,) * (4 - len(planes))
    return [
        (0x10, "4I", (width, height, FORMATS.index(name), len(planes))),
        (0x20, "Q", length),
        (0x28, "4I", offsets),
        (0x38, "4I", strides),
    ]


@pytest.mark.parametrize(
    ("name", "size", "planes", "length", "shape"),
    [
        ("bgr", (64, 64), [(0, 192)], 12288, (64, 64, 3)),
        ("rgb", (10, 6), [(0, 30)], 180, (6, 10, 3)),
        ("gray", (64, 64), [(0, 64)], 4096, (64, 64)),
        ("bgra", (16, 8), [(0, 64)], 512, (8, 16, 4)),
        ("rgba", (16, 8), [(0, 64)], 512, (8, 16, 4)),
        ("i420", (64, 64), [(0, 64), (4096, 32), (5120, 32)], 6144, (96, 64)),
        ("nv12", (64, 64), [(0, 64), (4096, 64)], 6144, (96, 64)),
        ("i420", (5, 3), [(0, 5), (15, 3), (21, 3)], 27, (27,)),
        ("opaque", (0, 0), [(0, 0)], 100, (100,)),
    ],
)
def test_a_tight_payload_has_the_usual_shape_of_its_format(
    rewrite: Rewrite,
    name: str,
    size: tuple[int, int],
    planes: list[tuple[int, int]],
    length: int,
    shape: tuple[int, ...],
) -> None:
    ring = rewrite(*picture(name, *size, planes, length))
    frame = ring.latest()
    assert (frame.format, frame.shape, ring.shape, frame.nbytes) == (name, shape, shape, length)
    assert frame.planes == tuple(planes)
    array = frame.numpy()
    assert array.shape == shape and array.dtype == np.uint8 and array.flags.c_contiguous
    assert array.tobytes() == PAYLOAD[:length]


def test_planar_floats_are_three_planes_of_float32(rewrite: Rewrite) -> None:
    planes = [(0, 64), (1024, 64), (2048, 64)]
    ring = rewrite(*picture("rgb-planar-f32", 16, 16, planes, 3072), (0xE0, "2f", (0.5, -1.0)))
    frame = ring.latest()
    array = frame.numpy()
    assert array.shape == frame.shape == (3, 16, 16) and array.dtype == np.float32
    assert array.tobytes() == PAYLOAD[:3072]
    assert (frame.value_scale, frame.value_offset) == (0.5, -1.0)
    view = memoryview(frame)
    assert (view.format, view.itemsize, view.strides) == ("f", 4, (1024, 64, 4))
    out = np.empty((3, 16, 16), np.float32)
    ring.latest(out=out)
    assert out.tobytes() == PAYLOAD[:3072]
    with pytest.raises(camring.BufferMismatch):
        ring.latest(out=np.empty((3, 16, 16), np.int32))


def test_padded_rows_are_strides_and_never_skewed(rewrite: Rewrite) -> None:
    frame = rewrite(*picture("bgr", 20, 10, [(16, 70)], 16 + 70 * 10)).latest()
    array = frame.numpy()
    assert (array.shape, array.strides, frame.stride) == ((10, 20, 3), (70, 3, 1), 70)
    for row in range(10):
        assert array[row].tobytes() == PAYLOAD[16 + row * 70 :][:60]
    assert bytes(memoryview(frame)) == array.tobytes()
    assert bytes(frame) == array.tobytes()
    with pytest.raises(BufferError, match="^this frame's rows are padded; ask for a buffer with strides$"):
        zlib.crc32(frame)
    out = bytearray(716)
    assert np.array_equal(rewrite().latest(out=out).numpy(), array) and out == PAYLOAD[:716]


def test_requests_for_another_memory_order_are_answered_or_refused(rewrite: Rewrite) -> None:
    requests = pytest.importorskip("_testbuffer")
    tight, padded = rewrite().latest(), rewrite(*picture("bgr", 20, 10, [(0, 70)], 700)).latest()
    for flags in (requests.PyBUF_SIMPLE, requests.PyBUF_ND, requests.PyBUF_C_CONTIGUOUS, requests.PyBUF_ANY_CONTIGUOUS):
        assert requests.ndarray(tight, getbuf=flags).nbytes == SIZE
        with pytest.raises(BufferError, match="rows are padded"):
            requests.ndarray(padded, getbuf=flags)
    for flags in (requests.PyBUF_STRIDED, requests.PyBUF_FULL, requests.PyBUF_RECORDS_RO):
        view = requests.ndarray(padded, getbuf=flags)
        assert (view.shape, view.strides, view.readonly) == ((10, 20, 3), (70, 3, 1), False)
    for frame in (tight, padded):
        with pytest.raises(BufferError, match="ask for a C-contiguous buffer"):
            requests.ndarray(frame, getbuf=requests.PyBUF_F_CONTIGUOUS)


def test_what_no_reader_can_show_is_an_error_not_a_picture(rewrite: Rewrite) -> None:
    with pytest.raises(camring.LayoutMismatch, match='^ring "front" holds frames of the unknown format 99; upgrade'):
        rewrite((0x18, "I", 99)).latest()
    with pytest.raises(camring.LayoutMismatch, match='^ring "front" contradicts itself: frame 1 exceeds its slot'):
        rewrite(*picture("bgr", 640, 640, [(0, 1920)], SIZE)).latest()
    with pytest.raises(camring.LayoutMismatch, match="contradicts itself"):
        rewrite(*picture("bgr", 0xFFFFFFFF, 0xFFFFFFFF, [(0xFFFFFFFF, 0xFFFFFFFF)], SIZE)).latest()


def test_points_lead_back_into_the_cameras_picture(rewrite: Rewrite) -> None:
    ring = rewrite(
        (0x48, "I", 1 << 12 | 1 << 2 | 1 << 8 | 1 << 30),
        (0x4C, "4B", (1, 13, 5, 1)),
        (0x80, "q", 1_700_000_000_000_000_000),
        (0xB4, "2H", (4, 3)),
        (0xB8, "I", 9),
        (0xBC, "4B", (1, 4, 1, 1)),
        (0xC0, "2I", (1920, 1080)),
        (0xC8, "4f", (0.5, 0.25, 10.0, -20.0)),
        (0xD8, "4B", (114, 114, 114, 0)),
        (0xF0, "Q", 77),
    )
    frame = ring.latest()
    assert frame.to_source(10.0, -20.0) == (0.0, 0.0) and frame.to_source(20.0, 5.0) == (20.0, 100.0)
    assert (frame.scale, frame.offset, frame.fit, frame.rotation) == ((0.5, 0.25), (10.0, -20.0), "letterbox", 90)
    assert (frame.source_width, frame.source_height, frame.source_format) == (1920, 1080, "i420")
    assert frame.flags == ("corrupt", "gap", "scaled") and frame.flag_bits >> 30 == 1
    assert frame.corrupt and frame.scaled and not frame.keyframe and frame.gap == 9 and frame.lag_ns == 77
    assert frame.color == camring.Color(primaries=1, transfer=13, matrix=5, full_range=True)
    assert (frame.source_unix_ns, frame.time_source) == (1_700_000_000_000_000_000, "rtcp_sr")
    assert (frame.pixel_aspect, frame.pad_color) == ((4, 3), (114, 114, 114, 0))
    with pytest.raises(ValueError, match="has the scale 0 x 0.25: no way back"):
        rewrite((0xC8, "f", 0.0)).latest().to_source(1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "channels", "order"),
    [
        ("bgr", 3, [0, 1, 2]),
        ("rgb", 3, [2, 1, 0]),
        ("bgra", 4, [0, 1, 2]),
        ("rgba", 4, [2, 1, 0]),
        ("gray", 1, [0, 0, 0]),
    ],
)
def test_video_capture_gives_bgr_whatever_the_ring_holds(
    rewrite: Rewrite, name: str, channels: int, order: list[int]
) -> None:
    rewrite(*picture(name, 16, 8, [(0, 16 * channels)], 16 * 8 * channels)).close()
    ok, pixels = camring.VideoCapture("front").read()
    expected = np.frombuffer(PAYLOAD, np.uint8)[: 16 * 8 * channels].reshape(8, 16, channels)[..., order]
    assert ok and pixels is not None and np.array_equal(pixels, expected)
    assert pixels.flags.c_contiguous and pixels.flags.writeable


def test_video_capture_names_a_format_that_it_cannot_show(rewrite: Rewrite) -> None:
    rewrite(*picture("nv12", 64, 64, [(0, 64), (4096, 64)], 6144)).close()
    with pytest.raises(camring.LayoutMismatch, match='^ring "front" holds nv12 frames but VideoCapture gives BGR'):
        camring.VideoCapture("front").read()
