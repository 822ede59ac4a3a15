"""What attach makes of damaged, foreign, older and newer files."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from writer import DEADLINE, Writer

import camring

StartWriter = Callable[..., Writer]

FULL = os.environ.get("CAMRING_SOAK") == "full"
SECONDS = 3600.0 / int(os.environ.get("CAMRING_SOAK_PARTS", "8")) if FULL else 2.0
SEED = 1000 + int(os.environ.get("CAMRING_SOAK_PART", "0"))

LIMIT = SECONDS + 60.0
"""Longest time that a test of this file may take, seconds."""


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def with_right_checksum(header: bytearray) -> bytearray:
    struct.pack_into("<I", header, 0x1FC, crc32c(bytes(header[:0x1FC])))
    return header


@pytest.fixture
def file(writer: StartWriter, shm_dir: Path) -> bytes:
    """The bytes of a stopped ring of four slots."""
    writer("front", "--size", "16x8", "--slots", "4", "--frames", "9", "--fps", "0").wait()
    return (shm_dir / "camring.front").read_bytes()


@pytest.mark.parametrize(
    ("major", "minor", "text"),
    [
        (2, 0, "layout version 2.0"),
        (0, 9, "layout version 0.9"),
    ],
)
def test_another_layout_version_is_told_with_both_numbers(
    file: bytes, shm_dir: Path, major: int, minor: int, text: str
) -> None:
    changed = bytearray(file)
    struct.pack_into("<HH", changed, 0x0C, major, minor)
    (shm_dir / "other").write_bytes(with_right_checksum(changed))
    with pytest.raises(camring.LayoutMismatch) as caught:
        camring.attach("other", timeout=0.0)
    assert str(caught.value) == (
        f'segment "other" has {text} but this build speaks layout version 1.0; upgrade the older of the two'
    )
    listed = {info.name: info for info in camring.rings()}
    assert "front" in listed


def test_a_newer_minor_version_is_read(file: bytes, shm_dir: Path) -> None:
    changed = bytearray(file)
    struct.pack_into("<HH", changed, 0x0C, 1, 77)
    (shm_dir / "other").write_bytes(with_right_checksum(changed))
    assert camring.attach("other", timeout=0.0).latest().seq == 9


def test_an_unknown_feature_is_refused_by_its_number(file: bytes, shm_dir: Path) -> None:
    changed = bytearray(file)
    struct.pack_into("<Q", changed, 0x10, 1 << 5)
    (shm_dir / "other").write_bytes(with_right_checksum(changed))
    with pytest.raises(camring.LayoutMismatch, match="upgrade"):
        camring.attach("other", timeout=0.0)


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"something else" * 1000, "is no camring segment"), (b"", "is still being made"), (b"CAMRING1", "is no camring")],
)
def test_what_is_no_ring_is_told_so(shm_dir: Path, content: bytes, text: str) -> None:
    (shm_dir / "odd").write_bytes(content)
    with pytest.raises(camring.LayoutMismatch, match=f'^segment "odd" {text}'):
        camring.attach("odd", timeout=0.0)


def test_pipes_folders_and_links_are_refused_without_waiting(shm_dir: Path, file: bytes) -> None:
    os.mkfifo(shm_dir / "pipe")
    (shm_dir / "folder").mkdir()
    (shm_dir / "link").symlink_to(shm_dir / "camring.front")
    for name in ("pipe", "folder", "link"):
        with pytest.raises(camring.LayoutMismatch):
            camring.attach(name, timeout=0.0)


# Reads whatever it can get of a ring called `other`, which is changed under it; only the package's own errors may come.
FUZZER = """
    import random, struct, sys, time
    from pathlib import Path
    import camring
    sys.path.insert(0, sys.argv[4])
    from test_attach import with_right_checksum

    folder, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    original, path = (folder / "camring.front").read_bytes(), folder / "other"
    chance = random.Random(seed)
    TABLE = 4096
    outcomes = {}

    def places():
        for _ in range(chance.choice((1, 1, 2, 3, 8))):
            yield chance.choice((chance.randrange(0x200), 0x200 + chance.randrange(0x80), chance.randrange(0x640),
                                 TABLE + chance.randrange(4 * 256)))

    def mutate():
        changed = bytearray(original)
        for place in places():
            value = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            width = chance.choice((1, 1, 4, 8))
            changed[place : place + width] = bytes([value]) * width
        if chance.random() < 0.8:
            with_right_checksum(changed)
        return changed

    def read(ring):
        yield ring.latest
        yield ring.lease
        yield lambda: ring.next(timeout=0.0)
        yield lambda: ring.history(9)
        yield lambda: ring.at(chance.choice((1, 5, 9, 1 << 40)))
        yield lambda: ring.after(chance.choice((0, 5, 8)), timeout=0.0)
        yield lambda: ring.nearest(chance.randrange(1 << 50))
        yield lambda: ring.latest(max_age=1e9)
        yield lambda: ring.latest(out=bytearray(16 * 8 * 3))
        yield ring.held
        yield lambda: repr((ring, ring.state, ring.reason, ring.shape, ring.format, ring.stats()))
        yield lambda: (ring.info(), ring.info().counters, ring.info().readers, ring.removed, ring.writer_alive)
        yield lambda: camring.wait_any([ring], timeout=0.0)

    def use(frame):
        for found in frame if isinstance(frame, list) else [frame]:
            if isinstance(found, camring.Frame):
                bytes(found), repr(found), found.flags, found.color, found.planes, found.age, found.numpy().sum()
                for call in (found.jpeg, lambda: found.to_source(1, 2), lambda: found.__dlpack__(max_version=(1, 0))):
                    try:
                        call()
                    except (ValueError, BufferError, camring.Revoked):
                        pass

    end, runs = time.monotonic() + seconds, 0
    while time.monotonic() < end or runs < 50:
        runs += 1
        path.write_bytes(mutate()) if chance.random() < 0.9 else path.write_bytes(mutate()[: chance.randrange(70000)])
        try:
            ring = camring.attach("other", timeout=0.0, shm_dir=folder)
        except (camring.LayoutMismatch, camring.RingNotFound) as error:
            outcomes[type(error).__name__] = outcomes.get(type(error).__name__, 0) + 1
            continue
        for call in read(ring):
            try:
                use(call())
                outcome = "read"
            except camring.Error as error:
                outcome = type(error).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        ring.close()
        path.unlink()
    print(runs, outcomes)
"""


def test_changed_headers_give_errors_or_frames_and_never_a_crash(file: bytes, shm_dir: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FUZZER), shm_dir, str(SECONDS), str(SEED), Path(__file__).parent],
        capture_output=True,
        text=True,
        timeout=SECONDS + 40,
    )
    assert child.returncode == 0, f"seed {SEED}: {child.returncode}\n{child.stdout}{child.stderr}"
    runs, _, outcomes = child.stdout.partition(" ")
    assert int(runs) >= 50 and "'read'" in outcomes and "'LayoutMismatch'" in outcomes, child.stdout
    print(f"soak: {runs} changed headers: {outcomes.strip()}")


def test_a_header_that_changes_while_it_is_read_gives_errors_or_frames(file: bytes, shm_dir: Path) -> None:
    path = shm_dir / "other"
    path.write_bytes(file)
    program = """
        import random, sys, time
        chance, end = random.Random(7), time.monotonic() + float(sys.argv[2])
        with open(sys.argv[1], "r+b", buffering=0) as file:
            print("ready", flush=True)
            while time.monotonic() < end:
                file.seek(chance.choice((0x200, 0x200 + chance.randrange(16), 4096 + chance.randrange(1024))))
                file.write(bytes([chance.randrange(256)]) * chance.choice((1, 8)))
    """
    seconds = min(SECONDS, 60.0)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), path, str(seconds)], stdout=subprocess.PIPE, text=True
    ) as changer:
        assert changer.stdout is not None and changer.stdout.readline() == "ready\n"
        ring = camring.attach("other", timeout=0.0)
        reads = 0
        while changer.poll() is None:
            for read in (ring.latest, ring.lease, lambda: ring.history(4), lambda: ring.at(9)):
                try:
                    read()
                except camring.Error:
                    pass
                reads += 1
        assert reads > 100


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("mode", "member", "works"), [(0o640, True, True), (0o640, False, False), (0o644, False, True)])
def test_members_of_the_group_read_and_others_are_told_which_group(
    shm_dir: Path, mode: int, member: bool, works: bool
) -> None:
    group = 54321
    with camring.Writer("front", shape=(8, 16, 3), mode=mode, shm_dir=shm_dir) as out:
        out.publish(bytes(8 * 16 * 3))
        for path in [shm_dir / "camring.front", *shm_dir.glob("*.d")]:
            os.chown(path, 0, group)
        program = f"""
            import os, camring
            os.setgroups({[group] if member else []}); os.setgid(65534); os.setuid(65534)
            try:
                with camring.attach("front", timeout=0.0).lease() as frame:
                    print("read", frame.seq)
            except camring.RingPermission as error:
                print(type(error).__name__, error.errno, error)
            try:
                open({str(shm_dir / "camring.front")!r}, "r+b")
                print("writable")
            except PermissionError:
                print("read-only")
        """
        child = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=DEADLINE
        )
        assert child.returncode == 0, child.stderr
        if works:
            assert child.stdout == "read 1\nread-only\n"
        else:
            assert child.stdout.startswith('RingPermission 13 ring "front": ') and "read-only\n" in child.stdout
            assert f"may be read by group gid {group} only; add this user to that group" in child.stdout
