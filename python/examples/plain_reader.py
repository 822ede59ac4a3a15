"""Reads a ring with the standard library alone: copies, and leases (x86-64; one Ring per thread and process)."""

import contextlib, fcntl, mmap, os, random, struct, time
from collections import Counter, namedtuple

Frame = namedtuple("Frame", "seq width height stride flags age_s pixels")
F_OFD_SETLK = 37  # fcntl.F_OFD_SETLK where Python has it: a lock of the open file, not of the process


class Revoked(Exception):
    """A leased frame was overwritten: discard what was made of it."""


class Ring:
    def __init__(self, name, shm="/dev/shm"):
        self.places = [f"{shm}/camring.d/{name}", f"{shm}/camring-{os.geteuid()}.d/{name}", f"{shm}/{name}"]
        self.attach()

    def attach(self):
        path = next((p for p in self.places if os.path.lexists(p)), self.places[0])
        file = open(path, "rb", buffering=0, opener=lambda p, f: os.open(p, f | os.O_NOFOLLOW | os.O_NONBLOCK))
        data = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
        if struct.unpack_from("<8sIH2xQ", data) != (b"CAMRING1", 0x0A0B0C0D, 1, 0):
            raise ValueError(f"{path} is no ring of layout version 1, or is being made")
        self.slot_header, _, self.policy, self.table, self.start, self.stride = struct.unpack_from("<IIIQQQ", data, 0x24)
        self.lease_base, _, presence = struct.unpack_from("<QQQ", data, 0x58)
        self.file, self.bytes, self.leased = file, memoryview(data), Counter()
        self.words, self.halves = self.bytes.cast("Q"), self.bytes.cast("I")
        with contextlib.suppress(OSError):  # a sandbox may refuse locks: then this reader is not counted
            lock(file, fcntl.F_RDLCK, presence + ((os.getpid() & 0x3FFFFF) << 20 | random.getrandbits(20)))

    def newest(self):
        """Slot, place of its stamp, first byte and description of the newest frame; None before the first."""
        if self.halves[0x224 // 4]:  # retired: the name leads to a successor, now or soon
            with contextlib.suppress(FileNotFoundError):  # removed: what is mapped stays readable
                self.attach()
        for _ in range(8):
            head = self.words[0x200 // 8]
            if head == 0:
                return None
            seq, slot = head >> 16, head & 0xFFFF
            at = (self.table + slot * self.slot_header) // 8
            meta = struct.pack("<32Q", *self.words[at : at + 32])
            if meta[:8] != struct.pack("<Q", seq << 1) or self.words[at] != seq << 1:
                continue  # the writer was faster
            width, height, pixfmt, _, length, plane = struct.unpack_from("<IIIIQI", meta, 0x10)
            (stride,), (flags,) = struct.unpack_from("<I", meta, 0x38), struct.unpack_from("<I", meta, 0x48)
            end = plane + stride * (height - 1) + width * 3  # the padding of the last row may be missing
            if pixfmt not in (1, 2) or stride < width * 3 or end > length or plane + stride * height > self.stride:
                raise ValueError(f"frame {seq} is not 8-bit bgr or rgb, or exceeds its slot")
            (arrival,), (suspended,) = struct.unpack_from("<q", meta, 0x70), struct.unpack_from("<q", meta, 0xE8)
            mono, boot = time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_BOOTTIME)
            age_s = mono - arrival / 1e9 + round(boot - mono - suspended / 1e9, 3)
            begin = self.start + slot * self.stride + plane
            pixels = self.bytes[begin : begin + stride * height]  # in place: the writer may change them
            return slot, at, Frame(seq, width, height, stride, flags, age_s, pixels)
        raise BlockingIOError("the writer laps this reader; the ring needs more slots")

    def latest(self):
        """The newest frame as a copy, or None before the first."""
        for _ in range(8):
            found = self.newest()
            if found is None:
                return None
            _, at, frame = found
            copy = frame._replace(pixels=frame.pixels.tobytes())
            if self.words[at] == frame.seq << 1:  # else overwritten meanwhile: this copy may be a mixture
                return copy
        raise BlockingIOError("the writer laps this reader; the ring needs more slots")

    @contextlib.contextmanager
    def lease(self):
        """The newest frame in place, `with ring.lease() as frame`; Revoked at the end if it was overwritten."""
        for _ in range(8):
            found = self.newest()
            if found is None or self.policy not in (0, 1):
                raise BlockingIOError("there is no frame yet, or the ring offers no leases")
            (slot, at, frame), file, words, leased = found, self.file, self.words, self.leased
            try:
                lock(file, fcntl.F_RDLCK, self.lease_base + slot)
            except (BlockingIOError, PermissionError):
                continue  # the writer is just taking the slot
            leased[slot] += 1  # leases of one open file share its locks: the last one unlocks
            try:
                if words[at] == frame.seq << 1:  # else it was taken before the lock was there
                    yield frame
                    if words[at] != frame.seq << 1:
                        raise Revoked(f"frame {frame.seq} was overwritten while it was leased")
                    return
            finally:
                leased[slot] -= 1
                if not leased[slot]:
                    lock(file, fcntl.F_UNLCK, self.lease_base + slot)
        raise BlockingIOError("the writer laps this reader; the ring needs more slots")


def lock(file, kind, byte):
    fcntl.fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0))
