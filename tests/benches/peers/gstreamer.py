"""The few calls of GStreamer that the peers need, without a copy of our own: a buffer around an array, and an array around a buffer."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import numpy as np

SECOND = 1_000_000_000
PLAYING, NULL = 4, 1
READ = 1
READ_ONLY = 2
"""GST_MEMORY_FLAG_READONLY"""


class Map(ctypes.Structure):
    """GstMapInfo."""

    _fields_ = [
        ("memory", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("maxsize", ctypes.c_size_t),
        ("user_data", ctypes.c_void_p * 4),
        ("_reserved", ctypes.c_void_p * 4),
    ]


def _library(name: str, **functions: tuple[Any, list[Any]]) -> ctypes.CDLL:
    library = ctypes.CDLL(name)
    for function, (result, arguments) in functions.items():
        found = getattr(library, function)
        found.restype, found.argtypes = result, arguments
    return library


P = ctypes.c_void_p
GST = _library(
    "libgstreamer-1.0.so.0",
    gst_init=(None, [P, P]),
    gst_parse_launch=(P, [ctypes.c_char_p, P]),
    gst_bin_get_by_name=(P, [P, ctypes.c_char_p]),
    gst_element_set_state=(ctypes.c_int, [P, ctypes.c_int]),
    gst_buffer_new_wrapped_full=(P, [ctypes.c_int, P, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t, P, P]),
    gst_sample_get_buffer=(P, [P]),
    gst_buffer_map=(ctypes.c_int, [P, P, ctypes.c_int]),
    gst_buffer_unmap=(None, [P, P]),
    gst_mini_object_unref=(None, [P]),
)
APP = _library(
    "libgstapp-1.0.so.0",
    gst_app_src_push_buffer=(ctypes.c_int, [P, P]),
    gst_app_sink_try_pull_sample=(P, [P, ctypes.c_uint64]),
)
GST.gst_init(None, None)


class Pipeline:
    """A running pipeline with an element called `end`."""

    def __init__(self, launch: str) -> None:
        self.pipeline = GST.gst_parse_launch(launch.encode(), None)
        if not self.pipeline:
            raise RuntimeError(f"GStreamer makes no pipeline of {launch!r}; is an element missing?")
        self.end = GST.gst_bin_get_by_name(self.pipeline, b"end")
        GST.gst_element_set_state(self.pipeline, PLAYING)

    def push(self, array: np.ndarray[Any, Any]) -> None:
        """Sends the array's own memory, which must stay as it is until the pipeline has used it."""
        size = array.nbytes
        buffer = GST.gst_buffer_new_wrapped_full(READ_ONLY, array.ctypes.data, size, 0, size, None, None)
        APP.gst_app_src_push_buffer(self.end, buffer)

    def pull(self, seconds: float) -> Picture | None:
        """The next buffer; None after `seconds`, or at the stream's end."""
        sample = APP.gst_app_sink_try_pull_sample(self.end, int(seconds * SECOND))
        return Picture(sample) if sample else None

    def stop(self) -> None:
        """Ends it."""
        GST.gst_element_set_state(self.pipeline, NULL)


class Picture:
    """A buffer in our hands, and its bytes without a copy."""

    def __init__(self, sample: int) -> None:
        self.sample = sample
        self.buffer = GST.gst_sample_get_buffer(sample)
        self.map = Map()
        if not GST.gst_buffer_map(self.buffer, ctypes.byref(self.map), READ):
            raise RuntimeError("a buffer cannot be read")
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * self.map.size).from_address(self.map.data))

    def release(self) -> None:
        """Gives it back; the bytes are gone."""
        GST.gst_buffer_unmap(self.buffer, ctypes.byref(self.map))
        GST.gst_mini_object_unref(self.sample)
