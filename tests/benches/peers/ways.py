"""The ways to hand frames from one Python process to others, each as a writer and a reader; and the processes that use them.

A writer takes (number, time, array); a reader gives the same back, in the order the way has. What a reader holds it gives
back with `done`. Ways that need something from their parent (queues) say so in `links`.
"""

from __future__ import annotations

import ctypes
import os
import queue
import struct
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numpy as np

SLOTS = 8
"""Frames that a way may have on their way."""
QUIET = 1.0
"""Without a frame for so many seconds a reader is at its end."""
PATIENCE = 30.0
"""Until the first frame, seconds."""
SOURCES = 4
Array = np.ndarray[Any, Any]
Got = tuple[int, int, Array]


class Spec(NamedTuple):
    """What is handed over."""

    way: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    fps: float
    frames: int
    readers: int
    work: float = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of a frame."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def _stamp(array: Array, number: int, t0_ns: int) -> None:
    array.reshape(-1).view(np.uint8)[:16].view(np.int64)[:] = (t0_ns, number)


def _stamped(array: Array) -> Got:
    t0_ns, number = array.reshape(-1).view(np.uint8)[:16].view(np.int64)
    return int(number), int(t0_ns), array


class Blocked(Exception):
    """The way takes no more frames: its readers are too slow."""


class Reader:
    """What most readers need not do."""

    def done(self) -> None:
        """Gives back what the last `take` gave; nothing is held."""

    def close(self) -> None:
        """Leaves nothing behind; goes with the process."""


class CamringWriter:
    """Copies into a slot of the ring."""

    def __init__(self, spec: Spec, links: Any) -> None:
        import camring

        shape = spec.shape[1:] if spec.dtype == "float32" else spec.shape
        pixels = "rgb-planar-f32" if spec.dtype == "float32" else "bgr"
        self.writer = camring.Writer(spec.name, shape=shape, format=pixels, slots=SLOTS)
        self.shape = shape

    def publish(self, number: int, t0_ns: int, array: Array) -> None:
        """The time goes as the frame's time of arrival."""
        self.writer.publish(array.reshape(self.shape), arrival_ns=t0_ns, source_seq=number)

    def close(self) -> None:
        """Ends it."""
        self.writer.close()


class CamringReader(Reader):
    """The newest frame, in place; of a Python writer, whose time stands in the arrival."""

    copies = False
    time = "arrival_ns"

    def __init__(self, spec: Spec, links: Any, index: int) -> None:
        import camring

        self.timeout = camring.Timeout
        self.ring = camring.attach(spec.name, timeout=PATIENCE)
        self.frame: Any = None

    def take(self, limit: float) -> Got | None:
        """An array over the ring's memory, or over a copy of the frame."""
        try:
            frame = self.ring.next(limit) if self.copies else self.ring.lease_next(limit)
        except self.timeout:
            return None
        array = np.asarray(frame)
        self.frame = frame
        return frame.source_seq, getattr(frame, self.time), array

    def done(self) -> None:
        """Gives the lease back."""
        self.frame.release()


class CamringCopyReader(CamringReader):
    """The newest frame, copied."""

    copies = True


class CamringRustReader(CamringReader):
    """Of the Rust writer, which puts the time at which publishing began into another field."""

    time = "decoded_ns"


class QueueWriter:
    """Pickles the array through a pipe for each reader."""

    def __init__(self, spec: Spec, links: Any) -> None:
        self.queues = links
        self.end = 0.0

    def put(self, item: Any) -> None:
        """Waits for room, until the end of the round: a queue without a bound fills the memory instead."""
        for each in self.queues:
            try:
                each.put(item, timeout=max(0.01, self.end - time.monotonic()))
            except queue.Full:
                raise Blocked from None

    def publish(self, number: int, t0_ns: int, array: Array) -> None:
        """Pickles it, in a thread of the queue's."""
        self.put((number, t0_ns, array))

    def close(self) -> None:
        """Lets go of what nobody will fetch."""
        for each in self.queues:
            each.cancel_join_thread()


class QueueReader(Reader):
    """Unpickles it."""

    def __init__(self, spec: Spec, links: Any, index: int) -> None:
        self.queue = links[index]

    def take(self, limit: float) -> Got | None:
        """The oldest in the queue."""
        try:
            found: Got = self.queue.get(timeout=limit)
        except queue.Empty:
            return None
        return found


class PerFrameWriter(QueueWriter):
    """A new segment per frame, whose name goes through a queue."""

    def publish(self, number: int, t0_ns: int, array: Array) -> None:
        """Creates, copies, sends the name."""
        segment = SharedMemory(create=True, size=array.nbytes)
        np.ndarray(array.shape, array.dtype, buffer=segment.buf)[:] = array
        segment.close()
        self.put((number, t0_ns, segment.name))


class PerFrameReader(QueueReader):
    """Opens the segment, and removes it when done; one reader only."""

    def __init__(self, spec: Spec, links: Any, index: int) -> None:
        super().__init__(spec, links, index)
        self.shape, self.dtype = spec.shape, spec.dtype
        self.segment: Any = None

    def take(self, limit: float) -> Got | None:
        """An array over the segment."""
        try:
            number, t0_ns, name = self.queue.get(timeout=limit)
        except queue.Empty:
            return None
        self.segment = SharedMemory(name)
        return number, t0_ns, np.ndarray(self.shape, self.dtype, buffer=self.segment.buf)

    def done(self) -> None:
        """Removes it."""
        try:
            self.segment.close()
        except BufferError:
            # The caller still has the array: the memory goes with it.
            pass
        self.segment.unlink()


class NamesWriter(QueueWriter):
    """A pool of segments; names go through a queue and come back through another."""

    def __init__(self, spec: Spec, links: Any) -> None:
        super().__init__(spec, links[0])
        self.free = links[1]
        self.pool = [SharedMemory(create=True, size=spec.nbytes) for _ in range(SLOTS)]
        self.idle = [SLOTS - 1 - index for index in range(SLOTS)]
        self.held = [0] * SLOTS
        self.names = [segment.name for segment in self.pool]
        for segment in self.pool:
            # The first touch of fresh pages is no part of a hand-over.
            segment.buf[:] = bytes(len(segment.buf))

    def publish(self, number: int, t0_ns: int, array: Array) -> None:
        """Waits until every reader has given some segment back."""
        while True:
            try:
                index = self.free.get(block=not self.idle, timeout=max(0.01, self.end - time.monotonic()))
            except queue.Empty:
                if not self.idle:
                    raise Blocked from None
                break
            self.held[index] -= 1
            if self.held[index] == 0:
                self.idle.append(index)
        index = self.idle.pop()
        np.ndarray(array.shape, array.dtype, buffer=self.pool[index].buf)[:] = array
        self.held[index] = len(self.queues)
        self.put((number, t0_ns, index, self.names[index]))

    def close(self) -> None:
        """Removes the pool."""
        for each in [*self.queues, self.free]:
            each.cancel_join_thread()
        for segment in self.pool:
            segment.close()
            segment.unlink()


class NamesReader(Reader):
    """Opens each segment of the pool once."""

    def __init__(self, spec: Spec, links: Any, index: int) -> None:
        queues, self.free = links
        self.queue = queues[index]
        self.shape, self.dtype = spec.shape, spec.dtype
        self.known: dict[str, SharedMemory] = {}
        self.index = 0

    def take(self, limit: float) -> Got | None:
        """An array over a segment of the pool."""
        try:
            number, t0_ns, self.index, name = self.queue.get(timeout=limit)
        except queue.Empty:
            return None
        if name not in self.known:
            self.known[name] = SharedMemory(name)
        return number, t0_ns, np.ndarray(self.shape, self.dtype, buffer=self.known[name].buf)

    def done(self) -> None:
        """Gives it back."""
        self.free.put(self.index)


class ZmqWriter:
    """PUB on a Unix socket, as libzmq comes."""

    conflate = False

    def __init__(self, spec: Spec, links: Any) -> None:
        import zmq

        self.socket = zmq.Context().socket(zmq.PUB)
        if self.conflate:
            self.socket.setsockopt(zmq.CONFLATE, 1)
        self.socket.bind(f"ipc:///tmp/{spec.name}.zmq")

    def publish(self, number: int, t0_ns: int, array: Array) -> None:
        """No copy on our side: libzmq sends from the array."""
        self.socket.send_multipart([struct.pack("qq", t0_ns, number), array], copy=False)

    def close(self) -> None:
        """Ends it, without what was not sent."""
        self.socket.close(linger=0)


class ZmqReader(Reader):
    """SUB."""

    conflate = False

    def __init__(self, spec: Spec, links: Any, index: int) -> None:
        import zmq

        self.socket = zmq.Context().socket(zmq.SUB)
        if self.conflate:
            self.socket.setsockopt(zmq.CONFLATE, 1)
        self.socket.subscribe(b"")
        self.socket.connect(f"ipc:///tmp/{spec.name}.zmq")
        self.shape, self.dtype = spec.shape, spec.dtype

    def take(self, limit: float) -> Got | None:
        """The oldest that libzmq has."""
        if not self.socket.poll(limit * 1000):
            return None
        head, frame = self.socket.recv_multipart(copy=False)
        t0_ns, number = struct.unpack("qq", head.bytes)
        return number, t0_ns, np.frombuffer(frame.buffer, self.dtype).reshape(self.shape)


class ConflateWriter(ZmqWriter):
    """PUB that keeps the newest message only; those have one part."""

    conflate = True

    def publish(self, number: int, t0_ns: int, array: Array) -> None:
        """Copies, because the time stands in the array."""
        _stamp(array, number, t0_ns)
        self.socket.send(array, copy=True)


class ConflateReader(ZmqReader):
    """SUB that keeps the newest message only."""

    conflate = True

    def take(self, limit: float) -> Got | None:
        """The newest that libzmq has."""
        if not self.socket.poll(limit * 1000):
            return None
        frame = self.socket.recv(copy=False)
        return _stamped(np.frombuffer(frame.buffer, self.dtype).reshape(self.shape))


def _iceoryx2(spec: Spec) -> Any:
    """The services, with the settings of src/iceoryx.rs."""
    import iceoryx2 as iox2

    iox2.set_log_level(iox2.LogLevel.Error)
    node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)
    name = iox2.ServiceName.new(spec.name)
    frames = node.service_builder(name).publish_subscribe(iox2.Slice[ctypes.c_uint8]).enable_safe_overflow(True)
    frames = frames.subscriber_max_buffer_size(1).subscriber_max_borrowed_samples(2).history_size(0)
    frames = frames.max_subscribers(32).max_nodes(36).open_or_create()
    event = node.service_builder(name).event().max_listeners(32).max_notifiers(4).max_nodes(36).open_or_create()
    return iox2, frames, event


class Iceoryx2Writer:
    """Copies into a loaned sample, and notifies."""

    def __init__(self, spec: Spec, links: Any) -> None:
        iox2, frames, event = _iceoryx2(spec)
        self.publisher = frames.publisher_builder().initial_max_slice_len(spec.nbytes).create()
        self.notifier = event.notifier_builder().create()

    def publish(self, number: int, t0_ns: int, array: Array) -> None:
        """The time stands in the sample."""
        sample = self.publisher.loan_slice_uninit(array.nbytes)
        target = np.frombuffer(sample.payload().as_memory_view(), np.uint8)
        target[:] = array.reshape(-1).view(np.uint8)
        _stamp(target, number, t0_ns)
        sample.assume_init().send()
        self.notifier.notify()

    def close(self) -> None:
        """Removes its shared memory."""
        self.publisher.delete()
        self.notifier.delete()


class Iceoryx2Reader(Reader):
    """Woken by the event, it takes what is newest."""

    def __init__(self, spec: Spec, links: Any, index: int) -> None:
        self.iox2, frames, event = _iceoryx2(spec)
        self.subscriber = frames.subscriber_builder().buffer_size(1).create()
        self.listener = event.listener_builder().create()
        self.shape, self.dtype = spec.shape, spec.dtype
        self.sample: Any = None

    def take(self, limit: float) -> Got | None:
        """An array over the sample."""
        until = time.monotonic() + limit
        while True:
            newest = None
            while (sample := self.subscriber.receive()) is not None:
                newest = sample
            if newest is not None:
                self.sample = newest
                flat = np.frombuffer(newest.payload().as_memory_view(), np.uint8)
                number, t0_ns, _ = _stamped(flat)
                return number, t0_ns, flat
            left = until - time.monotonic()
            if left <= 0:
                return None
            try:
                self.listener.timed_wait(self.iox2.Duration.from_nanos(int(left * 1e9)))
            except self.iox2.ListenerWaitError:
                # A signal: it does not wait on by itself, as it would in Rust.
                continue

    def done(self) -> None:
        """Gives it back."""
        self.sample.delete()

    def close(self) -> None:
        """Removes its shared memory."""
        self.subscriber.delete()
        self.listener.delete()


class ShmsinkWriter:
    """appsrc ! shmsink, which copies into its shared memory."""

    def __init__(self, spec: Spec, links: Any) -> None:
        from gstreamer import Pipeline

        path = f"/tmp/{spec.name}.shm"
        size = spec.nbytes * SLOTS + (1 << 16)
        self.pipeline = Pipeline(
            f"appsrc name=end format=time is-live=true block=false max-bytes=0 ! shmsink socket-path={path} shm-size={size}"
            " wait-for-connection=false sync=false"
        )

    def publish(self, number: int, t0_ns: int, array: Array) -> None:
        """Our side does not copy; the stamp stands in the array."""
        _stamp(array, number, t0_ns)
        self.pipeline.push(array)

    def close(self) -> None:
        """Ends it."""
        self.pipeline.stop()


class ShmsinkReader(Reader):
    """shmsrc ! appsink."""

    def __init__(self, spec: Spec, links: Any, index: int) -> None:
        from gstreamer import Pipeline

        path = f"/tmp/{spec.name}.shm"
        self.pipeline = Pipeline(f"shmsrc socket-path={path} ! appsink name=end sync=false max-buffers=1 drop=true")
        self.picture: Any = None

    def take(self, limit: float) -> Got | None:
        """An array over the sink's shared memory."""
        self.picture = self.pipeline.pull(limit)
        return _stamped(self.picture.bytes) if self.picture else None

    def done(self) -> None:
        """Gives it back."""
        self.picture.release()


WAYS: dict[str, tuple[Any, Any]] = {
    "camring": (CamringWriter, CamringReader),
    "camring, copied": (CamringWriter, CamringCopyReader),
    "multiprocessing.Queue": (QueueWriter, QueueReader),
    "SharedMemory per frame": (PerFrameWriter, PerFrameReader),
    "SharedMemory + queue": (NamesWriter, NamesReader),
    "ZeroMQ PUB": (ZmqWriter, ZmqReader),
    "ZeroMQ conflate": (ConflateWriter, ConflateReader),
    "iceoryx2 (Python)": (Iceoryx2Writer, Iceoryx2Reader),
    "shmsink": (ShmsinkWriter, ShmsinkReader),
    # Python readers of the Rust writers in src/.
    "rust camring": (None, CamringRustReader),
    "rust iceoryx2": (None, Iceoryx2Reader),
}


def links(spec: Spec, context: Any) -> Any:
    """What writer and readers inherit: the queues have as much room as the others have slots."""
    if spec.way in ("multiprocessing.Queue", "SharedMemory per frame"):
        return [context.Queue(SLOTS) for _ in range(spec.readers)]
    if spec.way == "SharedMemory + queue":
        return [context.Queue(SLOTS) for _ in range(spec.readers)], context.Queue()
    return None


def sources(spec: Spec) -> list[Array]:
    """Gradients with noise, as a camera's pictures; used in turn so that caches stay cold."""
    random = np.random.default_rng(1)
    count = int(np.prod(spec.shape))
    base = (np.arange(count, dtype=np.uint32) // 64 % 240).astype(np.uint8)
    block = random.integers(0, 16, 1 << 20, dtype=np.uint8)
    noise = np.resize(block, count)
    made = [np.ascontiguousarray((base + np.roll(noise, 7919 * index)).astype(spec.dtype)) for index in range(SOURCES)]
    return [array.reshape(spec.shape) for array in made]


def write(spec: Spec, links: Any, control: Connection) -> None:
    """The writer's process: ready, go, frames, result, end."""
    writer = WAYS[spec.way][0](spec, links)
    pictures = sources(spec)
    control.send("ready")
    control.recv()
    t0s: list[int] = []
    publish_us: list[float] = []
    before = time.process_time()
    due = time.monotonic()
    # A way that blocks publishes fewer frames in the time of the round, not the same ones later.
    writer.end = due + spec.frames / spec.fps + 0.5
    for number in range(2, 2 + spec.frames):
        due += 1 / spec.fps
        time.sleep(max(0.0, due - time.monotonic()))
        t0_ns = time.monotonic_ns()
        t0s.append(t0_ns)
        try:
            writer.publish(number, t0_ns, pictures[number % SOURCES])
        except Blocked:
            pass
        publish_us.append((time.monotonic_ns() - t0_ns) / 1e3)
        if time.monotonic() > writer.end:
            break
    cpu_us = (time.process_time() - before) * 1e6
    control.send({"frames": len(t0s), "cpu_us": cpu_us, "publish_us": publish_us, "t0s": t0s})
    control.recv()
    writer.close()
    # What nobody has fetched must not keep this process.
    sys.stdout.flush()
    os._exit(0)


def read(spec: Spec, links: Any, index: int, control: Connection) -> None:
    """A reader's process: ready, frames until the last one or a quiet second, result."""
    reader = WAYS[spec.way][1](spec, links, index)
    control.send("ready")
    us: list[float] = []
    t0s: list[int] = []
    numbers: list[int] = []
    limit = PATIENCE
    before, end = time.process_time(), 0.0
    while (got := reader.take(limit)) is not None:
        held_ns = time.monotonic_ns()
        number, t0_ns, array = got
        if number < 2:
            reader.done()
            continue
        if not numbers:
            before = time.process_time()
            end = time.monotonic() + spec.frames / spec.fps
        limit = QUIET + spec.work
        us.append((held_ns - t0_ns) / 1e3)
        t0s.append(t0_ns)
        numbers.append(number)
        del array, got
        reader.done()
        if number > spec.frames:
            break
        if spec.work:
            if time.monotonic() > end:
                break
            time.sleep(spec.work)
    cpu_us = (time.process_time() - before) * 1e6
    control.send({"cpu_us": cpu_us, "numbers": numbers, "us": us, "t0s": t0s})
    reader.close()
    # Libraries that hang in their teardown must not keep this process.
    os._exit(0)

