"""Worker processes as data loaders make them: fork, spawn and forkserver, pools, and objects that travel."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from writer import DEADLINE, Loader, Writer, eventually, first_number, payload_of

import camring

StartWriter = Callable[..., Writer]
METHODS = ["fork", "spawn", "forkserver"]


@pytest.mark.parametrize("method", METHODS)
def test_a_loader_with_two_workers_gets_whole_frames_and_leaves_everything_behind_as_it_was(
    writer: StartWriter, method: str, shm_dir: Path
) -> None:
    writer("front", "--fps", "200")
    before = sorted(path.name for path in shm_dir.rglob("*"))
    ring = camring.attach("front")
    with ring.lease_next(timeout=DEADLINE) as held:
        seen = list(Loader(ring, workers=2, frames=20, method=method))
        assert held.valid and bytes(held) == payload_of(held.seq, held.nbytes), "the parent's lease goes on"
    assert len(seen) == 40 and all(whole for _, _, whole in seen)
    for pid in {pid for pid, _, _ in seen}:
        numbers = [number for other, number, _ in seen if other == pid]
        assert pid != os.getpid() and numbers == sorted(set(numbers)) and len(numbers) == 20
    assert ring.next(timeout=DEADLINE).seq > max(number for _, number, _ in seen) - 8
    assert sorted(path.name for path in shm_dir.rglob("*")) == before, "nothing is unlinked at exit"
    eventually(lambda: ring.info().readers == [os.getpid()], "the workers' presence is gone")


@pytest.mark.parametrize("method", METHODS)
def test_rings_travel_to_the_processes_of_a_pool(writer: StartWriter, method: str) -> None:
    writer("front", "--frames", "3", "--fps", "0").wait()
    ring = camring.attach("front")
    context: Any = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        assert list(pool.map(first_number, [ring] * 6)) == [3] * 6


@pytest.fixture
def killed_workers(writer: StartWriter) -> Iterator[tuple[camring.Ring, list[int]]]:
    """Forked children that hold leases of their own when they are killed."""
    writer("front", "--fps", "200", "--slots", "6")
    ring = camring.attach("front")
    ring.next(timeout=DEADLINE)
    children = []
    for _ in range(3):
        told, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            with ring.lease():
                os.write(tell, b".")
                signal.pause()
        os.read(told, 1)
        os.close(told)
        os.close(tell)
        children.append(pid)
    yield ring, children


def test_killed_workers_give_their_slots_back(killed_workers: tuple[camring.Ring, list[int]]) -> None:
    ring, children = killed_workers
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    newest = ring.seq
    eventually(lambda: ring.seq > newest + 12, "twice around the ring")
    oldest, *_ = ring.held()
    assert ring.seq - oldest <= 6, "no slot is kept by the dead"
    assert ring.info().counters["leases_revoked"] == 0
