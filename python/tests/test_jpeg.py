"""`Frame.jpeg()`: what a viewer shows is the picture."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from writer import watched

import camring

WIDTH, HEIGHT = 48, 32


def sides(file: bytes) -> tuple[int, int, int]:
    """Width, height and number of components, from the frame header (SOF0)."""
    at = 2
    while True:
        assert file[at] == 0xFF
        kind, length = file[at + 1], struct.unpack_from(">H", file, at + 2)[0]
        if kind == 0xC0:
            height, width, components = struct.unpack_from(">HHB", file, at + 5)
            return width, height, components
        at += 2 + length


def average(file: bytes) -> tuple[int, ...]:
    """The mean of each component, from the first block's DC coefficients: enough to tell one flat picture from another."""
    at, tables, quantisation = 2, {}, {}
    while True:
        kind, length = file[at + 1], struct.unpack_from(">H", file, at + 2)[0]
        segment = file[at + 4 : at + 2 + length]
        if kind == 0xDB:
            quantisation[segment[0] & 15] = segment[1]
        if kind == 0xC4:
            while segment:
                counts = segment[1:17]
                values = segment[17 : 17 + sum(counts)]
                tables[segment[0]] = codes(counts, values)
                segment = segment[17 + sum(counts) :]
        if kind == 0xC0:
            components = [(segment[6 + 3 * n], segment[8 + 3 * n]) for n in range(segment[5])]
            blocks = [(segment[7 + 3 * n] >> 4) * (segment[7 + 3 * n] & 15) for n in range(segment[5])]
        at += 2 + length
        if kind == 0xDA:
            choice = {segment[1 + 2 * n]: segment[2 + 2 * n] for n in range(segment[0])}
            break
    bits = "".join(f"{byte:08b}" for byte in file[at:].replace(b"\xff\x00", b"\xff"))
    means, position = [], 0
    for (number, table), count in zip(components, blocks, strict=True):
        for block in range(count):
            size, position = symbol(bits, position, tables[choice[number] >> 4])
            value = int(bits[position : position + size] or "0", 2)
            position += size
            if size and value < 1 << size - 1:
                value -= (1 << size) - 1
            if block == 0:
                means.append(round(value * quantisation[table] / 8 + 128))
            done = 1
            while done < 64:
                run, position = symbol(bits, position, tables[16 | choice[number] & 15])
                if run == 0:
                    break
                done += (run >> 4) + 1
                position += run & 15
    return tuple(means)


def codes(counts: bytes, values: bytes) -> dict[str, int]:
    found, code, index = {}, 0, 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            found[f"{code:0{length}b}"] = values[index]
            code, index = code + 1, index + 1
        code <<= 1
    return found


def symbol(bits: str, position: int, table: dict[str, int]) -> tuple[int, int]:
    for length in range(1, 17):
        if bits[position : position + length] in table:
            return table[bits[position : position + length]], position + length
    raise AssertionError("no such code")


def flat(format: str) -> NDArray[Any]:
    """A red picture (200, 30, 60 in red, green, blue), or a grey one of 90."""
    red, green, blue = 200, 30, 60
    packed: dict[str, tuple[int, ...]] = {"bgr": (blue, green, red), "rgb": (red, green, blue)}
    packed |= {"bgra": (blue, green, red, 255), "rgba": (red, green, blue, 255)}
    if format in packed:
        return np.full((HEIGHT, WIDTH, len(packed[format])), packed[format], np.uint8)
    if format == "gray":
        return np.full((HEIGHT, WIDTH), 90, np.uint8)
    if format == "rgb-planar-f32":
        return np.stack([np.full((HEIGHT, WIDTH), value, np.float32) for value in (red, green, blue)])
    # BT.601, limited range, as a small picture without a colour description is taken.
    y = 16 + 65.481 * red / 255 + 128.553 * green / 255 + 24.966 * blue / 255
    cb = 128 - 37.797 * red / 255 - 74.203 * green / 255 + 112 * blue / 255
    cr = 128 + 112 * red / 255 - 93.786 * green / 255 - 18.214 * blue / 255
    array = np.full((HEIGHT * 3 // 2, WIDTH), round(y), np.uint8)
    chroma = array[HEIGHT:].reshape(-1)
    if format == "nv12":
        chroma[0::2], chroma[1::2] = round(cb), round(cr)
    else:
        chroma[: chroma.size // 2], chroma[chroma.size // 2 :] = round(cb), round(cr)
    return array


@pytest.mark.parametrize("format", ["bgr", "rgb", "bgra", "rgba", "i420", "nv12", "rgb-planar-f32", "gray"])
@pytest.mark.parametrize("leased", [False, True])
def test_every_format_shows_the_same_picture(shm_dir: Path, format: str, leased: bool) -> None:
    with camring.Writer("front", format=format) as out:
        out.publish(flat(format))
        frame = camring.attach("front").latest(copy=not leased)
        file = frame.jpeg(95)
        assert file[:2] == b"\xff\xd8" and file[-2:] == b"\xff\xd9"
        if format == "gray":
            assert sides(file) == (WIDTH, HEIGHT, 1) and abs(average(file)[0] - 90) <= 1
            return
        assert sides(file) == (WIDTH, HEIGHT, 3)
        # The full-range BT.601 of JPEG files.
        expected = (84, 114, 210)
        assert all(abs(found - right) <= 3 for found, right in zip(average(file), expected, strict=True)), average(file)


def test_floats_are_shown_by_the_scale_that_they_were_published_with(shm_dir: Path) -> None:
    with camring.Writer("front", format="rgb-planar-f32", value_scale=1 / 255, value_offset=-0.5) as out:
        out.publish(flat("rgb-planar-f32") / 255 - np.float32(0.5))
        frame = camring.attach("front").latest()
        assert frame.value_scale == pytest.approx(1 / 255) and frame.value_offset == -0.5
        found = average(frame.jpeg(95))
        assert all(abs(mean - right) <= 3 for mean, right in zip(found, (84, 114, 210), strict=True)), found


def test_quality_decides_the_size(shm_dir: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)
    with camring.Writer("front") as out:
        out.publish(noise)
        frame = camring.attach("front").latest()
        small, usual, large = frame.jpeg(10), frame.jpeg(), frame.jpeg(100)
        assert len(small) < len(usual) < len(large)
        assert bytes(frame) == noise.tobytes()
        for quality in (0, 101):
            with pytest.raises(ValueError, match=f"^quality is {quality}; expected 1 to 100$"):
                frame.jpeg(quality)
        with pytest.raises((ValueError, OverflowError)):
            frame.jpeg(1000)


def test_what_is_no_picture_is_refused_in_words(shm_dir: Path) -> None:
    with camring.Writer("front", format="opaque") as out:
        out.publish(np.zeros(100, np.uint8))
        with pytest.raises(ValueError) as caught:
            camring.attach("front").latest().jpeg()
        assert str(caught.value) == (
            "frame 1 is 0x0 opaque, which makes no JPEG picture: expected packed, 4:2:0 or float pixels"
        )


def test_other_threads_run_while_a_picture_is_encoded(shm_dir: Path) -> None:
    with camring.Writer("front") as out:
        out.publish(np.zeros((1080, 1920, 3), np.uint8))
        frame = camring.attach("front").latest()
        with watched() as seen:
            seen.busy = True
            frame.jpeg()
            seen.busy = False
        assert seen.inside > 0
