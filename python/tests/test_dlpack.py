"""Frames as DLPack tensors: NumPy's reader, and a consumer of the bare structures."""

from __future__ import annotations

import ctypes
import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from writer import lease_bytes, payload_of

import camring

SIZE = 64 * 48 * 3
READ_ONLY, IS_COPIED = 1, 2


class Tensor(ctypes.Structure):
    """DLTensor, as dlpack.h has it."""

    _fields_: ClassVar = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Legacy(ctypes.Structure):
    """DLManagedTensor."""

    _fields_: ClassVar = [
        ("tensor", Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    ]


class Versioned(ctypes.Structure):
    """DLManagedTensorVersioned."""

    _fields_: ClassVar = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    ]


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.argtypes = [ctypes.py_object, ctypes.c_char_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.argtypes = [ctypes.py_object, ctypes.c_char_p]
USED = {b"dltensor": b"used_dltensor", b"dltensor_versioned": b"used_dltensor_versioned"}


class Consumer:
    """Takes a capsule as a library of tensors does: renames it, and calls the deleter in the end."""

    def __init__(self, capsule: object) -> None:
        self.name = next(name for name in USED if _is_valid(capsule, name))
        self.address = _pointer(capsule, self.name)
        kind = Versioned if self.name == b"dltensor_versioned" else Legacy
        self.managed: Any = kind.from_address(self.address)
        _rename(capsule, USED[self.name])

    @property
    def tensor(self) -> Tensor:
        tensor: Tensor = self.managed.tensor
        return tensor

    def bytes(self) -> bytes:
        tensor = self.tensor
        size = int(np.prod(tensor.shape[: tensor.ndim])) * tensor.bits // 8
        assert tensor.data is not None
        return ctypes.string_at(tensor.data + tensor.byte_offset, size)

    def release(self) -> None:
        self.managed.deleter(self.address)


@pytest.fixture
def out(shm_dir: Path) -> Iterator[camring.Writer]:
    with camring.Writer("front", shape=(48, 64, 3), slots=4) as out:
        out.publish(payload_of(1, SIZE))
        yield out


@pytest.fixture
def ring(out: camring.Writer) -> camring.Ring:
    return camring.attach("front")


def test_numpy_shares_a_copy_writable_and_a_lease_read_only(ring: camring.Ring) -> None:
    copy = ring.latest()
    array = np.from_dlpack(copy)
    assert array.shape == (48, 64, 3) and array.dtype == np.uint8 and array.flags.writeable
    assert np.shares_memory(array, copy.numpy()) and array.tobytes() == payload_of(1, SIZE)
    with ring.lease() as frame:
        array = np.from_dlpack(frame)
        assert np.shares_memory(array, frame.numpy()) and not array.flags.writeable
        mine = np.from_dlpack(frame, copy=True)
        assert mine.flags.writeable and not np.shares_memory(mine, array) and mine.tobytes() == payload_of(1, SIZE)
        shared = np.from_dlpack(frame, copy=False, device="cpu")
        assert np.shares_memory(shared, array)
        del array, shared


def test_a_lease_is_refused_to_consumers_that_cannot_be_told_it_is_read_only(ring: camring.Ring) -> None:
    with ring.lease() as frame:
        for version in (None, (0, 8)):
            with pytest.raises(BufferError) as caught:
                frame.__dlpack__(max_version=version)
            assert str(caught.value) == (
                "this frame is leased and read-only, which DLPack can say from version 1.0 on; "
                "ask with max_version=(1, 0), or for a copy"
            )
        consumer = Consumer(frame.__dlpack__(max_version=None, copy=True))
        assert consumer.name == b"dltensor" and consumer.bytes() == payload_of(1, SIZE)
        consumer.release()


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 3), (2, 0)])
def test_the_structures_are_those_of_dlpack(ring: camring.Ring, version: tuple[int, int] | None) -> None:
    frame = ring.latest()
    assert frame.__dlpack_device__() == (1, 0)
    consumer = Consumer(frame.__dlpack__(max_version=version))
    versioned = version is not None and version[0] >= 1
    assert consumer.name == (b"dltensor_versioned" if versioned else b"dltensor")
    tensor = consumer.tensor
    assert (tensor.device_type, tensor.device_id, tensor.code, tensor.bits, tensor.lanes) == (1, 0, 1, 8, 1)
    assert (tensor.ndim, tensor.shape[:3], tensor.strides[:3]) == (3, [48, 64, 3], [192, 3, 1])
    if versioned:
        assert (consumer.managed.major, consumer.managed.minor, consumer.managed.flags) == (1, 0, 0)
    assert consumer.bytes() == payload_of(1, SIZE)
    consumer.release()


def test_flags_say_read_only_and_copied(ring: camring.Ring) -> None:
    with ring.lease() as frame:
        shared = Consumer(frame.__dlpack__(max_version=(1, 0)))
        copied = Consumer(frame.__dlpack__(max_version=(1, 0), copy=True))
        assert (shared.managed.flags, copied.managed.flags) == (READ_ONLY, IS_COPIED)
        assert shared.tensor.data != copied.tensor.data and shared.bytes() == copied.bytes()
        shared.release()
        copied.release()


def test_floats_and_planes_keep_their_shape(shm_dir: Path) -> None:
    planes = np.arange(3 * 6 * 10, dtype=np.float32).reshape(3, 6, 10)
    with camring.Writer("floats", format="rgb-planar-f32") as out:
        out.publish(planes)
        array = np.from_dlpack(camring.attach("floats").latest())
        assert array.dtype == np.float32 and np.array_equal(array, planes)


def test_what_a_frame_cannot_be_is_a_buffer_error(ring: camring.Ring) -> None:
    frame = ring.latest()
    with pytest.raises(BufferError, match="there are no streams"):
        frame.__dlpack__(stream=1)
    with pytest.raises(BufferError, match=r"^a frame is in main memory, device \(1, 0\), not \(2, 0\)"):
        frame.__dlpack__(dl_device=(2, 0))


def test_a_tensor_keeps_the_pixels_after_everything_else_is_gone(out: camring.Writer, shm_dir: Path) -> None:
    ring = camring.attach("front")
    frame = ring.latest()
    gone = weakref.ref(frame)
    consumer = Consumer(frame.__dlpack__(max_version=(1, 0)))
    del frame
    ring.close()
    gc.collect()
    assert gone() is not None and consumer.bytes() == payload_of(1, SIZE)
    consumer.release()
    gc.collect()
    assert gone() is None, "the released tensor lets go"


def test_a_tensor_keeps_the_lease_and_releasing_it_ends_the_lease(out: camring.Writer, shm_dir: Path) -> None:
    path = shm_dir / "camring.front"
    consumer = Consumer(camring.attach("front").lease().__dlpack__(max_version=(1, 0)))
    gc.collect()
    for number in range(2, 12):
        out.publish(payload_of(number, SIZE))
    assert lease_bytes(path) == 1 and consumer.bytes() == payload_of(1, SIZE)
    consumer.release()
    assert lease_bytes(path) == 0


def test_a_capsule_that_nobody_takes_frees_the_frame(out: camring.Writer, shm_dir: Path) -> None:
    path = shm_dir / "camring.front"
    for version in (None, (1, 0)):
        frame = camring.attach("front").latest()
        gone, capsule = weakref.ref(frame), frame.__dlpack__(max_version=version)
        del frame
        assert gone() is not None, "the capsule keeps it"
        del capsule
        assert gone() is None
    capsule = camring.attach("front").lease().__dlpack__(max_version=(1, 0))
    assert lease_bytes(path) == 1
    del capsule
    assert lease_bytes(path) == 0


def test_a_tensor_may_be_released_by_any_thread_without_the_interpreter(out: camring.Writer, shm_dir: Path) -> None:
    path = shm_dir / "camring.front"
    consumer = Consumer(camring.attach("front").lease().__dlpack__(max_version=(1, 0)))
    # ctypes gives the interpreter lock away around the call, as a library's own thread would not have it.
    thread = threading.Thread(target=consumer.release)
    thread.start()
    thread.join()
    assert lease_bytes(path) == 0


def test_a_view_of_a_tensor_whose_lease_was_ended_stays_readable(out: camring.Writer) -> None:
    with camring.attach("front").lease() as frame:
        array = np.from_dlpack(frame)
    for number in range(2, 12):
        out.publish(payload_of(number, SIZE))
    assert not frame.valid and array.tobytes() != payload_of(1, SIZE)
    del frame
    gc.collect()
    assert array.sum() > 0
