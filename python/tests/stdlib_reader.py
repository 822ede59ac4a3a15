"""The newest frame of a ring with the standard library alone, after docs/segment.md; for any Python 3."""

from __future__ import annotations

import mmap
import os
import struct


def latest(path: str | os.PathLike[str]) -> tuple[int, int, int, int, bytes] | None:
    """(seq, width, height, stride, pixels) of the newest frame, or None while there is none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        ring = mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_SHARED, mmap.PROT_READ)
    finally:
        os.close(fd)
    with ring:
        magic, endian, major = struct.unpack_from("<8sIH", ring, 0)
        if (magic, endian, major) != (b"CAMRING1", 0x0A0B0C0D, 1):
            raise ValueError(f"{path} is no ring of layout version 1")
        (slot_header_bytes, slot_count) = struct.unpack_from("<II", ring, 0x24)
        (table, data, slot_stride, capacity) = struct.unpack_from("<QQQQ", ring, 0x30)
        while True:
            (head,) = struct.unpack_from("<Q", ring, 0x200)
            if head == 0:
                return None
            seq, slot = head >> 16, head & 0xFFFF
            at = table + slot * slot_header_bytes
            header = ring[at : at + 256]
            stamp, _, width, height, _, _, length = struct.unpack_from("<QQIIIIQ", header)
            offset, stride = struct.unpack_from("<I12xI", header, 0x28)
            if slot >= slot_count or length > capacity or stamp != seq << 1:
                continue
            start = data + slot * slot_stride
            payload = ring[start : start + length]
            if struct.unpack_from("<Q", ring, at)[0] == stamp:
                return seq, width, height, stride, payload[offset:]
