"""What a handle outlives: restarts, other sizes, forks, pickles, signals."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from writer import DEADLINE, Writer, eventually, payload_of, read_in_child

import camring

StartWriter = Callable[..., Writer]


def test_the_same_object_reads_on_after_kill_9_and_restart(writer: StartWriter) -> None:
    ring = None
    last = 0
    epochs: list[int] = []
    for _ in range(3):
        running = writer("front", "--fps", "200")
        ring = ring or camring.attach("front")
        # The newest frame of the killed writer may still be unseen: read on until the new one's come.
        while len(epochs) < 1 or ring.writer_epoch not in epochs:
            frame = ring.next(timeout=DEADLINE)
            assert frame.seq > last and bytes(frame) == payload_of(frame.seq, frame.nbytes)
            last = frame.seq
            if frame.writer_epoch not in epochs:
                epochs.append(frame.writer_epoch)
                assert frame.after_restart == (frame.writer_epoch > 1) or frame.skipped > 0
        generation = ring.generation
        eventually(lambda: ring.state == "live", "the writer says that it is live")
        running.kill()
        assert ring.latest().seq >= last, "the last frame stays readable"
        # A handle that has just seen the heart beat believes in it for up to a second.
        eventually(lambda: not ring.writer_alive, "the death is seen")
        assert ring.state == "live"
    assert ring is not None and epochs == [1, 2, 3] and ring.generation == generation
    with pytest.raises(camring.Timeout) as caught:
        while True:
            ring.next(timeout=0.1)
    assert not caught.value.writer_alive and "start camring@front" in str(caught.value)


def test_a_larger_picture_is_followed(writer: StartWriter) -> None:
    writer("front", "--size", "64x48,640x360", "--per-size", "20", "--fps", "200")
    ring = camring.attach("front")
    shapes: set[tuple[int, ...]] = set()
    generations: set[str] = set()
    last = 0
    while len(shapes) < 2 or len(generations) < 2:
        frame = ring.next(timeout=DEADLINE)
        assert frame.seq > last and bytes(frame) == payload_of(frame.seq, frame.nbytes)
        last = frame.seq
        shapes.add(frame.shape)
        generations.add(frame.generation)
    assert shapes == {(48, 64, 3), (360, 640, 3)}
    assert ring.stats().followed >= 1 and ring.stats().resets == 0


def test_the_waiting_room_becomes_the_ring(writer: StartWriter) -> None:
    waiting = writer("front", "--frames", "0", "--size", "640x360")
    ring = camring.attach("front")
    assert ring.shape is None
    waiting.stop()
    writer("front", "--size", "640x360")
    assert ring.next(timeout=DEADLINE).shape == (360, 640, 3)


def test_attach_waits_for_a_ring_that_comes_later(writer: StartWriter) -> None:
    found: list[camring.Ring] = []
    thread = threading.Thread(target=lambda: found.append(camring.attach("front", timeout=DEADLINE)))
    thread.start()
    writer("front")
    thread.join(DEADLINE)
    assert found[0].next(timeout=DEADLINE).seq >= 1


def test_iteration_waits_through_a_restart_and_ends_when_the_camera_is_stopped(writer: StartWriter) -> None:
    first = writer("front", "--fps", "100")
    ring = camring.attach("front")
    epochs = []
    for frame in ring:
        if frame.writer_epoch not in epochs:
            epochs.append(frame.writer_epoch)
            if len(epochs) == 1:
                # An orderly stop and start, as `systemctl restart` does it.
                first.stop()
                second = writer("front", "--fps", "100")
            else:
                second.stop()
    assert epochs == [1, 2]
    assert (ring.state, ring.writer_alive) == ("stopped", False)


def test_iteration_of_a_stopped_camera_gives_its_last_frame_and_ends(writer: StartWriter) -> None:
    writer("front", "--frames", "3", "--fps", "0").wait()
    assert [frame.seq for frame in camring.attach("front")] == [3]


def test_a_pickled_ring_attaches_again(writer: StartWriter, shm_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer("front", "--frames", "3", "--fps", "0").wait()
    monkeypatch.delenv("CAMRING_SHM_DIR")
    ring = camring.attach("front", timeout=0.5, shm_dir=shm_dir, owner=os.geteuid())
    other = pickle.loads(pickle.dumps(ring))
    assert other is not ring and other.latest().seq == 3 and other.__reduce__() == ring.__reduce__()
    assert other.__reduce__()[1] == ("front", 0.5, shm_dir, os.geteuid())
    ring.close()
    with pytest.raises(ValueError, match="is closed"):
        pickle.dumps(ring)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_ring_works_in_a_child_process_and_the_parent_reads_on(
    writer: StartWriter, method: str, shm_dir: Path
) -> None:
    writer("front", "--fps", "100")
    ring = camring.attach("front")
    ring.next(timeout=DEADLINE)
    context: Any = multiprocessing.get_context(method)
    answer = context.SimpleQueue()
    child = context.Process(target=read_in_child, args=(ring, answer))
    child.start()
    eventually(lambda: not answer.empty() or child.exitcode is not None, "the child answers or ends")
    assert not answer.empty(), f"the child ended with {child.exitcode} and no answer"
    assert answer.get() == (True, "front")
    child.join(DEADLINE)
    assert child.exitcode == 0
    assert (shm_dir / "camring.front").exists(), "nothing is unlinked at exit"
    eventually(lambda: os.getpid() in ring.info().readers, "the parent is counted")
    assert ring.next(timeout=DEADLINE).seq > 0


def test_a_fork_during_another_threads_wait_leaves_the_child_able_to_read(writer: StartWriter) -> None:
    writer("front", "--fps", "500")
    ring = camring.attach("front")
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            ring.next(timeout=DEADLINE)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(int(DEADLINE))
                os._exit(0 if ring.next(timeout=DEADLINE).seq > 0 else 1)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE)


def test_other_threads_run_during_a_wait(writer: StartWriter) -> None:
    writer("front", "--frames", "0")
    ring = camring.attach("front")
    steps = 0

    def wait() -> None:
        with pytest.raises(camring.Timeout):
            ring.next(timeout=1.0)

    thread = threading.Thread(target=wait)
    thread.start()
    while thread.is_alive():
        # Each step gives the interpreter lock away and takes it again.
        time.sleep(0.001)
        steps += 1
    assert steps > 20, "a wait that kept the lock would let one step pass per slice of 200 ms"


def test_a_wait_ends_when_another_thread_closes_the_ring(writer: StartWriter) -> None:
    writer("front", "--frames", "0")
    ring = camring.attach("front")
    ended: list[str] = []

    def wait() -> None:
        try:
            ring.next()
        except ValueError as error:
            ended.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    ring.close()
    thread.join(DEADLINE)
    assert ended == ['ring "front" is closed; attach again']


@pytest.mark.parametrize(
    "wait",
    ["camring.attach('front').next()", "list(camring.attach('front'))", "camring.attach('nowhere', timeout=None)"],
)
def test_ctrl_c_ends_a_wait(writer: StartWriter, wait: str) -> None:
    writer("front", "--frames", "0")
    program = f"""
        import camring
        print("waiting", flush=True)
        try:
            {wait}
        except KeyboardInterrupt:
            print("interrupted")
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "waiting\n"
    child.send_signal(signal.SIGINT)
    rest, errors = child.communicate(timeout=DEADLINE)
    # The signal may fall between the line and the wait; then Python's own traceback says so.
    assert rest == "interrupted\n" or errors.rstrip().endswith("KeyboardInterrupt"), errors


def test_no_ring_is_an_error_that_says_where_it_was_looked_for(shm_dir: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        camring.attach("front", timeout=0.0)
    assert isinstance(caught.value, camring.RingNotFound) and isinstance(caught.value, camring.Error)
    places = f"{shm_dir}/camring.d/front, {shm_dir}/camring-{os.geteuid()}.d/front, {shm_dir}/front"
    assert str(caught.value) == (
        f'no ring "front": looked for {places}; is its daemon running? `camring list` shows what there is'
    )
    assert caught.value.filename == f"{shm_dir}/camring.d/front"
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is camring.RingNotFound and str(again) == str(caught.value)


def test_arguments_without_a_meaning_are_refused_in_words(shm_dir: Path) -> None:
    with pytest.raises(camring.InvalidName, match='^name "a/b" contains a slash'):
        camring.attach("a/b")
    with pytest.raises(ValueError, match=r"^timeout is -1; expected None or seconds from 0 on"):
        camring.attach("front", timeout=-1)
    with pytest.raises(ValueError, match="^owner is 'me'; expected None, a user's number, or \"any\"$"):
        camring.attach("front", owner="me")  # type: ignore[arg-type]


def test_a_file_that_is_no_ring_is_refused(shm_dir: Path) -> None:
    (shm_dir / "odd").write_bytes(b"something else" * 1000)
    with pytest.raises(camring.LayoutMismatch, match='^segment "odd" is '):
        camring.attach("odd")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_outside_the_group_is_told_which_group(writer: StartWriter) -> None:
    writer("front", "--frames", "1").wait()
    program = """
        import os, camring
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        try:
            camring.attach("front")
        except PermissionError as error:
            print(type(error).__name__, error.errno, error)
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert child.stdout.startswith('RingPermission 13 ring "front": ')
    assert "may be read by group root" in child.stdout and "add this user to that group" in child.stdout


def test_a_removed_ring_ends_iteration_and_keeps_its_frames(writer: StartWriter, shm_dir: Path) -> None:
    writer("front", "--frames", "2").wait()
    ring = camring.attach("front")
    frame = ring.latest()
    # What `camring rm` does: the mark in the header, then both names.
    path = shm_dir / "camring.front"
    with path.open("r+b") as file:
        file.seek(0x224)
        file.write((2).to_bytes(4, "little"))
    for name in shm_dir.glob("**/*front"):
        name.unlink()
    assert list(ring) == [] and ring.removed
    assert ring.latest().seq == 2 and bytes(frame) == payload_of(2, frame.nbytes)
