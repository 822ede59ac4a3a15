"""`async for` over rings."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from writer import DEADLINE, Writer, eventually, payload_of

import camring

StartWriter = Callable[..., Writer]
SIZE = 64 * 48 * 3


def waiting_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("camring-")]


async def until(condition: Callable[[], bool], what: str) -> None:
    """As `eventually`, while the loop runs."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        await asyncio.sleep(0.001)


def told_of_answers(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Is set as soon as a thread has left something to be done by the loop that runs."""
    loop, told = asyncio.get_running_loop(), threading.Event()
    leave = loop.call_soon_threadsafe

    def tell(*arguments: Any, **options: Any) -> asyncio.Handle:
        handle = leave(*arguments, **options)
        told.set()
        return handle

    monkeypatch.setattr(loop, "call_soon_threadsafe", tell)
    return told


@pytest.fixture(autouse=True)
def without_threads_of_the_test_before() -> None:
    """Threads are counted here, and the one of an iterator that was dropped ends a moment later."""
    eventually(lambda: waiting_threads() == [], "the threads of the test before end")


def test_frames_come_whole_with_exact_counts_and_the_loop_runs_on(writer: StartWriter) -> None:
    writer("front", "--fps", "200", "--frames", "200")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    async def read() -> list[tuple[int, int]]:
        ticker = asyncio.create_task(tick())
        seen = []
        async for frame in camring.attach("front"):
            assert bytes(frame) == payload_of(frame.seq, frame.nbytes)
            seen.append((frame.seq, frame.skipped))
        ticker.cancel()
        return seen

    seen = asyncio.run(asyncio.wait_for(read(), DEADLINE))
    assert seen[-1][0] == 200, "ends with the last frame, after the camera was stopped"
    for (before, _), (seq, skipped) in zip(seen, seen[1:], strict=False):
        assert seq == before + skipped + 1
    assert len(seen) > 2 and ticks > len(seen)
    eventually(lambda: waiting_threads() == [], "the thread ends")


def test_a_camera_that_sends_nothing_does_not_block_the_loop(shm_dir: Path) -> None:
    async def main() -> int:
        with camring.Writer("front", shape=(48, 64, 3)):
            waiting = asyncio.ensure_future(anext(aiter(camring.attach("front"))))
            steps = 0
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                await asyncio.sleep(0.001)
                steps += 1
            assert not waiting.done()
            waiting.cancel()
            return steps

    assert asyncio.run(main()) > 20, "a wait in the loop's thread would let one step pass per slice of 200 ms"
    eventually(lambda: waiting_threads() == [], "the thread ends")


def test_several_rings_share_one_loop(shm_dir: Path) -> None:
    names = [f"camera{number}" for number in range(12)]
    writers = {name: camring.Writer(name, shape=(48, 64, 3)) for name in names}
    seen: dict[str, list[int]] = {name: [] for name in names}

    async def read(name: str) -> None:
        async for frame in camring.attach(name):
            seen[name].append(frame.seq)
            if frame.seq == 10:
                return

    async def feed() -> None:
        for number in range(1, 11):
            for name, out in writers.items():
                out.publish(payload_of(number, SIZE))
            await until(lambda: all(numbers[-1:] == [number] for numbers in seen.values()), f"frame {number} everywhere")

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(feed(), *map(read, names)), DEADLINE)

    asyncio.run(main())
    assert all(numbers == list(range(1, 11)) for numbers in seen.values())
    for out in writers.values():
        out.close()
    gc.collect()
    eventually(lambda: waiting_threads() == [], "the threads end")


def test_a_cancelled_wait_ends_at_once_and_loses_no_count(shm_dir: Path) -> None:
    async def main() -> None:
        with camring.Writer("front", shape=(48, 64, 3)) as out:
            frames = aiter(camring.attach("front"))
            last = 0
            for number in range(1, 101):
                # Cancelled before, while and after the frame comes.
                waiting = asyncio.ensure_future(anext(frames))
                await asyncio.sleep(0)
                out.publish(payload_of(number, SIZE))
                for _ in range(number % 7):
                    await asyncio.sleep(0.0005)
                waiting.cancel()
                try:
                    frame = await waiting
                except asyncio.CancelledError:
                    continue
                assert bytes(frame) == payload_of(frame.seq, SIZE)
                assert last == 0 or frame.seq == last + 1 + frame.skipped
                last = frame.seq
            out.publish(payload_of(101, SIZE))
            frame = await asyncio.wait_for(anext(frames), DEADLINE)
            while frame.seq < 101:
                assert last == 0 or frame.seq == last + 1 + frame.skipped
                last = frame.seq
                frame = await asyncio.wait_for(anext(frames), DEADLINE)
            assert last == 0 or frame.seq == last + 1 + frame.skipped

    asyncio.run(main())
    eventually(lambda: waiting_threads() == [], "the thread ends")


def test_a_frame_read_for_a_cancelled_wait_counts_as_skipped(shm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with camring.Writer("front", shape=(48, 64, 3)) as out:
            ring = camring.attach("front")
            frames = aiter(ring)
            out.publish(payload_of(1, SIZE))
            assert (await anext(frames)).seq == 1
            answered = told_of_answers(monkeypatch)
            waiting = asyncio.ensure_future(anext(frames))
            await asyncio.sleep(0)
            out.publish(payload_of(2, SIZE))
            # The loop stands still meanwhile: the answer is there, and nobody has received it. A frame that was read and is
            # no answer yet would be left to whoever asks next.
            assert answered.wait(DEADLINE), "the thread answers with frame 2"
            assert ring.stats().frames == 2
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            out.publish(payload_of(3, SIZE))
            frame = await asyncio.wait_for(anext(frames), DEADLINE)
            assert (frame.seq, frame.skipped) == (3, 1)

    asyncio.run(main())


def test_wait_for_gives_up_in_time_and_the_next_wait_goes_on(shm_dir: Path) -> None:
    async def main() -> None:
        with camring.Writer("front", shape=(48, 64, 3)) as out:
            frames = aiter(camring.attach("front"))
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(frames), 0.02)
            out.publish(payload_of(1, SIZE))
            assert (await asyncio.wait_for(anext(frames), DEADLINE)).seq == 1
            assert len(waiting_threads()) == 1, "one thread for all of them"

    asyncio.run(main())


def test_iteration_ends_when_the_operator_stopped_the_camera(writer: StartWriter) -> None:
    writer("front", "--frames", "3", "--fps", "0").wait()

    async def main() -> list[int]:
        frames = aiter(camring.attach("front"))
        numbers = [frame.seq async for frame in frames]
        assert [frame.seq async for frame in frames] == [], "ended is ended"
        return numbers

    assert asyncio.run(asyncio.wait_for(main(), DEADLINE)) == [3]


def test_a_ring_closed_by_another_thread_ends_the_wait_with_an_error(shm_dir: Path) -> None:
    async def main() -> None:
        with camring.Writer("front", shape=(48, 64, 3)):
            ring = camring.attach("front")
            waiting = asyncio.ensure_future(anext(aiter(ring)))
            await asyncio.sleep(0)
            ring.close()
            with pytest.raises(ValueError, match=r'^ring "front" is closed; attach again$'):
                await asyncio.wait_for(waiting, DEADLINE)
            with pytest.raises(ValueError, match="is closed"):
                aiter(ring)

    asyncio.run(main())


def test_two_tasks_on_one_iterator_are_told_to_take_one_each(shm_dir: Path) -> None:
    async def main() -> None:
        with camring.Writer("front", shape=(48, 64, 3)) as out:
            ring = camring.attach("front")
            frames = aiter(ring)
            waiting = asyncio.ensure_future(anext(frames))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match=r"^another task waits on this iterator; give every task its own aiter"):
                await anext(frames)
            out.publish(payload_of(1, SIZE))
            assert (await asyncio.wait_for(waiting, DEADLINE)).seq == 1

    asyncio.run(main())


def test_a_dropped_or_closed_iterator_leaves_no_thread(shm_dir: Path) -> None:
    async def one(ring: camring.Ring) -> int:
        async for frame in ring:
            return frame.seq
        return 0

    async def main() -> None:
        with camring.Writer("front", shape=(48, 64, 3)) as out:
            out.publish(payload_of(1, SIZE))
            assert [await one(camring.attach("front")) for _ in range(20)] == [1] * 20
            frames: AsyncIterator[camring.Frame] = aiter(camring.attach("front"))
            await anext(frames)
            await frames.aclose()  # type: ignore[attr-defined]
            gc.collect()
            await until(lambda: waiting_threads() == [], "the threads end")

    asyncio.run(main())


def test_a_process_with_an_open_wait_ends(shm_dir: Path) -> None:
    program = """
        import asyncio, camring
        out = camring.Writer("front", shape=(48, 64, 3))
        loop = asyncio.new_event_loop()
        async def main():
            global waiting
            waiting = asyncio.ensure_future(anext(aiter(camring.attach("front"))))
            await asyncio.sleep(0)
        loop.run_until_complete(main())
        print("end", flush=True)
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=DEADLINE
    )
    assert (child.returncode, child.stdout) == (0, "end\n"), child.stderr


def test_the_loop_serves_on_through_a_restart_of_the_writer(writer: StartWriter) -> None:
    first = writer("front", "--fps", "100")

    async def main() -> list[int]:
        running, epochs = first, []
        async for frame in camring.attach("front"):
            if frame.writer_epoch not in epochs:
                epochs.append(frame.writer_epoch)
                if len(epochs) == 3:
                    return epochs
                running.kill()
                running = writer("front", "--fps", "100")
        return epochs

    assert asyncio.run(asyncio.wait_for(main(), DEADLINE)) == [1, 2, 3]
