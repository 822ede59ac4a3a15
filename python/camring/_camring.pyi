"""The native half: handles and frames."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self, final

from numpy.typing import NDArray
from typing_extensions import Buffer, disjoint_base

from camring._aio import Frames
from camring._words import Color, Reason, State

__all__ = [
    "Frame",
    "Pixels",
    "Ring",
    "RingInfo",
    "Stats",
    "Watch",
    "Writer",
    "__version__",
    "_attach_again",
    "_close_writers",
    "_words",
    "attach",
    "nearest",
    "rings",
    "wait_any",
]

__version__: str
"""Version of the package."""

def attach(
    name: str,
    *,
    timeout: float | None = 10.0,
    shm_dir: str | os.PathLike[str] | None = None,
    owner: int | Literal["any"] | None = None,
) -> Ring:
    """Attaches to a camera (`front`), an output (`front.small`) or a segment (`camring.front`).

    Waits `timeout` seconds for the name (None = for ever); a ring without a frame attaches at once. shm_dir: another
    memory mount than `$CAMRING_SHM_DIR` or /dev/shm. owner: whose ring to accept when it belongs neither to root, nor
    to this user, nor to camring: a user's number, or "any".

    Raises InvalidName, RingNotFound, RingPermission, LayoutMismatch, SystemRefused.
    """

def rings(*, shm_dir: str | os.PathLike[str] | None = None) -> list[RingInfo]:
    """The rings on this machine, by name; those that this process may not read carry an `error`."""

def wait_any(rings: Sequence[Ring], timeout: float | None = None) -> list[Ring]:
    """Waits until at least one ring has a frame newer than the last one that its handle returned; all such rings.

    Empty after `timeout` seconds, or when every ring was removed. Takes no frame: call `next()` of those returned. One
    system call waits for up to 128 rings. Ctrl-C ends the wait.
    """

def nearest(rings: Sequence[Ring], t_ns: int, tolerance: float) -> list[Frame]:
    """For each ring the held frame that arrived nearest to `t_ns`, ns of CLOCK_MONOTONIC, in the order of the rings.

    Raises Apart, which names the ring whose nearest frame is more than `tolerance` seconds away; NoFrame.
    """

def _close_writers() -> None:
    """Ends what nobody has closed; the package has `atexit` call it."""

def _attach_again(
    name: str, timeout: float | None, shm_dir: str | os.PathLike[str], owner: int | Literal["any"] | None
) -> Ring:
    """What a pickled ring becomes."""

def _words() -> dict[str, list[str]]:
    """Every word of the layout, by kind; the package's enums are tested against it."""

@final
class Ring:
    """A handle on one camera's ring of frames, made by `camring.attach`.

    It survives everything that happens to the camera and its daemon; several threads may share it; a pickled or forked
    one attaches again by name. Everything but `name`, `close` and `closed` raises ValueError once it is closed.
    """

    def latest(
        self, *, copy: bool = True, max_age: float | None = None, out: Buffer | NDArray[Any] | None = None
    ) -> Frame:
        """The newest frame, again when there is no newer one; waits for nothing.

        copy: False leases the frame instead, as lease() does. max_age: refuse a frame older than so many seconds
        (StaleFrame). out: a writable, contiguous buffer of the frame's size to copy into (BufferMismatch); the frame
        then shows that buffer. No other thread may touch it during the call, and a bytearray cannot be resized while
        the frame lives.

        Raises NoFrame until the first frame is published; Overrun; LayoutMismatch.
        """
    def next(self, timeout: float | None = None) -> Frame:
        """Waits for a frame newer than the last one returned, then returns the newest.

        Raises Timeout (a TimeoutError) after `timeout` seconds; Overrun; LayoutMismatch; RingNotFound a second after
        the ring was removed. Ctrl-C ends the wait.
        """
    def lease(self) -> Frame:
        """The newest frame in place: read-only, without a copy, held against the writer until the lease ends.

        `with ring.lease() as frame:` ends it and raises Revoked when the frame was overwritten meanwhile, which a
        writer does only when it finds no other slot; an exception from the block goes first, and gets a note. So does
        `frame.release()` and, in silence, the end of the frame and of all its views. Each lease takes a slot out of the
        writer's hands: hold few, and none for long.

        Raises NoFrame; LeaseUnavailable; Overrun; LayoutMismatch.
        """
    def lease_next(self, timeout: float | None = None) -> Frame:
        """Waits for a frame newer than the last one returned, then leases the newest; as next() and lease()."""
    def at(self, seq: int) -> Frame:
        """The frame with exactly this number; it does not count as returned.

        Raises Overrun, with the oldest number still held, when it was overwritten; NotYet, with the newest number, when
        it is still to come; NoFrame.
        """
    def after(self, seq: int, timeout: float | None = None) -> Frame:
        """The oldest frame still held that is newer than `seq`; waits for one. It does not count as returned.

        Its `skipped` counts the numbers between `seq` and it, overwritten before they were read. Called with the number
        returned before, it gives every frame as long as the reader keeps up. Raises as next() does.
        """
    def history(self, n: int) -> list[Frame]:
        """The newest `n` frames still held, oldest first; fewer when fewer are held. They do not count as returned."""
    def held(self) -> list[int]:
        """Numbers of all frames that are held now, oldest first; copies nothing."""
    def nearest(self, t_ns: int) -> Frame:
        """The held frame that arrived nearest to `t_ns`, ns of CLOCK_MONOTONIC; it does not count as returned."""
    def __aiter__(self) -> Frames:
        """The newest frame not yet seen, again and again, for `async for`: a thread waits and copies, the loop does not.

        Ends as iteration does. Every iterator has a thread of its own while it waits; give each task its own.
        """
    def __iter__(self) -> Iterator[Frame]:
        """The newest frame not yet seen, again and again; waits through outages.

        Ends two seconds after the operator stopped the camera, or at once when the ring was removed.
        """
    def __next__(self) -> Frame: ...
    def stats(self) -> Stats:
        """What this handle has been through."""
    def info(self) -> RingInfo:
        """Everything the ring's header says, at one moment."""
    def close(self) -> None:
        """Detaches; frames already read stay valid."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: object) -> None: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    @property
    def name(self) -> str:
        """The name it was attached by."""
    @property
    def shape(self) -> tuple[int, ...] | None:
        """Shape of the newest frame; None while there is none."""
    @property
    def width(self) -> int | None:
        """Width of the newest frame, pixels; None while there is none."""
    @property
    def height(self) -> int | None:
        """Height of the newest frame, pixels; None while there is none."""
    @property
    def format(self) -> str | None:
        """Format of the newest frame; None while there is none."""
    @property
    def seq(self) -> int:
        """Number of the newest frame; 0 while there is none."""
    @property
    def slots(self) -> int:
        """Frames that the ring keeps."""
    @property
    def state(self) -> State:
        """What the camera's daemon is doing, or was when it ended."""
    @property
    def reason(self) -> Reason:
        """Why."""
    @property
    def writer_alive(self) -> bool:
        """Whether a daemon holds the ring."""
    @property
    def generation(self) -> str:
        """Identity of the ring's file, 32 hexadecimal digits."""
    @property
    def writer_epoch(self) -> int:
        """Daemons that have owned this generation."""
    @property
    def removed(self) -> bool:
        """Whether the operator has removed the ring and no new one has come."""
    @property
    def closed(self) -> bool:
        """Whether it was closed."""

@disjoint_base
class Pixels:
    """The pixels of one frame, as the buffer protocol shows them: the base class of `Frame`."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class Frame(Pixels):
    """One frame: pixels with their metadata; a copy that belongs to the caller, or leased in place.

    `numpy.asarray(frame)`, `memoryview(frame)` and everything else that speaks the buffer protocol see the pixels
    without a copy. Their memory stays as long as anybody uses it, whatever happens to the ring; a copy is the caller's
    to change, a leased frame is read-only and the frame's own until `valid` says otherwise.
    """

    def numpy(self) -> NDArray[Any]:
        """The pixels as a NumPy array, without a copy; writable unless the frame is leased."""
    def jpeg(self, quality: int = 85) -> bytes:
        """The picture as a JPEG file, quality 1 to 100; other threads run meanwhile.

        Raises ValueError for a frame that is no picture; Revoked.
        """
    def release(self) -> None:
        """Ends the lease; Revoked when the frame was overwritten while it was leased. Nothing to do for a copy.

        Views keep their memory, which then may show another frame at any time; `valid` tells.
        """
    def __enter__(self) -> Self: ...
    def __exit__(self, _exception_type: object, exception: object, _traceback: object) -> None: ...
    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """The pixels as a DLPack capsule, for `from_dlpack` of NumPy, PyTorch and others.

        A copy is shared and writable; a leased frame is shared read-only, which only consumers of DLPack 1.0 can be told
        (BufferError for older ones). copy=True: a copy of the pixels. The capsule, and what takes it over, keeps
        the pixels and the lease.
        """
    def __dlpack_device__(self) -> tuple[int, int]:
        """`(1, 0)`: main memory."""
    def to_source(self, x: float, y: float) -> tuple[float, float]:
        """Where the point (x, y) of this picture lies in the camera's own picture: undoes crop, letterbox and scale."""
    @property
    def seq(self) -> int:
        """Number of this frame; the first one of a ring is 1, numbers never repeat."""
    @property
    def skipped(self) -> int:
        """Frames published since the one that the handle returned before, without this one; 0 for the first."""
    @property
    def age(self) -> float:
        """Seconds since the picture's last packet arrived, now; time suspended included."""
    @property
    def age_approximate(self) -> bool:
        """Whether `age` was taken from the wall clock, because the daemon's other clocks are not this process's."""
    @property
    def valid(self) -> bool:
        """Whether the pixels are those of this frame, from when it was read up to now; a copy's always are.

        Also after the lease has ended: the writer may then use the memory for another frame at any time. False in a
        forked child: the lease is its parent's.
        """
    @property
    def is_leased(self) -> bool:
        """Whether this frame is leased: shown in place and held against the writer."""
    @property
    def is_guarded(self) -> bool:
        """Whether the writer takes the lease into account at the moment; False for a copy, and for an ended lease."""
    @property
    def generation(self) -> str:
        """Identity of the ring's file that it was read from, 32 hexadecimal digits."""
    @property
    def writer_epoch(self) -> int:
        """Grows with each daemon that takes the ring over."""
    @property
    def geometry_epoch(self) -> int:
        """Grows when size or format change within a generation."""
    @property
    def session_id(self) -> int:
        """Grows with each session with the camera."""
    @property
    def source_seq(self) -> int:
        """Number of the decoded picture, equal in all outputs of a camera."""
    @property
    def gap(self) -> int:
        """Source pictures that were not published in this ring since its previous frame."""
    @property
    def dropped_before(self) -> int:
        """Frames dropped in this ring before this one, since the ring was made."""
    @property
    def width(self) -> int:
        """Pixels in a row."""
    @property
    def height(self) -> int:
        """Rows."""
    @property
    def format(self) -> str:
        """How the bytes are to be read: `bgr`, `rgb`, `gray`, ..."""
    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the buffer: (H, W, C), or (H, W) for grey."""
    @property
    def stride(self) -> int:
        """Bytes from one row to the next in the first plane."""
    @property
    def planes(self) -> tuple[tuple[int, int], ...]:
        """First byte and bytes from row to row, by plane, counted from the payload's start."""
    @property
    def nbytes(self) -> int:
        """Bytes of the payload."""
    @property
    def payload_crc32c(self) -> int:
        """CRC-32C of the payload; 0 = not computed."""
    @property
    def arrival_ns(self) -> int:
        """When the picture's last packet arrived, ns of CLOCK_MONOTONIC (`time.monotonic_ns()`)."""
    @property
    def arrival_unix_ns(self) -> int:
        """The same, ns since 1970; may jump with the system's clock."""
    @property
    def decoded_ns(self) -> int:
        """When the decoder delivered the picture, ns of CLOCK_MONOTONIC."""
    @property
    def publish_ns(self) -> int:
        """When publishing it began, microseconds before readers could see it; ns of CLOCK_MONOTONIC."""
    @property
    def publish_unix_ns(self) -> int:
        """The same, ns since 1970."""
    @property
    def pts_ns(self) -> int:
        """Presentation time within the session, ns."""
    @property
    def duration_ns(self) -> int:
        """Nominal duration, ns; 0 = unknown."""
    @property
    def lag_ns(self) -> int:
        """From arrival to the converter, ns."""
    @property
    def rtp_timestamp(self) -> int:
        """RTP time of the picture, 90 kHz for video."""
    @property
    def source_unix_ns(self) -> int | None:
        """The camera's own clock, ns since 1970; None when it is not known."""
    @property
    def time_source(self) -> str:
        """Where `source_unix_ns` comes from: `none`, `rtcp_sr`, ..."""
    @property
    def flags(self) -> tuple[str, ...]:
        """Words of the flags that are set, in the order of their bits."""
    @property
    def flag_bits(self) -> int:
        """The flags as a number, bits without a word included."""
    @property
    def keyframe(self) -> bool:
        """Decodable on its own."""
    @property
    def discont(self) -> bool:
        """First frame after a gap in time."""
    @property
    def corrupt(self) -> bool:
        """Known to be damaged."""
    @property
    def tainted(self) -> bool:
        """May show damage that the decoder concealed."""
    @property
    def geometry_changed(self) -> bool:
        """First frame of another size."""
    @property
    def format_changed(self) -> bool:
        """First frame of another source format."""
    @property
    def after_reconnect(self) -> bool:
        """First frame of a new session with the camera."""
    @property
    def after_restart(self) -> bool:
        """First frame of a new daemon on this ring."""
    @property
    def interlaced(self) -> bool:
        """Two fields woven into one picture."""
    @property
    def untrusted_time(self) -> bool:
        """The camera's time is implausible."""
    @property
    def synthetic(self) -> bool:
        """Not from a camera: a test picture, a file, or a program."""
    @property
    def scaled(self) -> bool:
        """Scaled to its size."""
    @property
    def color(self) -> Color:
        """Colour description of the source, as code points of ITU-T H.273."""
    @property
    def pixel_aspect(self) -> tuple[int, int]:
        """Pixel aspect ratio (width, height); (0, 0) = unknown."""
    @property
    def source_format(self) -> str:
        """The decoder's own format."""
    @property
    def source_width(self) -> int:
        """Width of the decoded picture, pixels."""
    @property
    def source_height(self) -> int:
        """Height of the decoded picture, pixels."""
    @property
    def rotation(self) -> int:
        """Degrees that the picture was turned by."""
    @property
    def fit(self) -> str:
        """How the picture was made to fit: `none`, `letterbox`, `stretch` or `crop`."""
    @property
    def scale(self) -> tuple[float, float]:
        """Output pixels per source pixel, x and y."""
    @property
    def offset(self) -> tuple[float, float]:
        """`x = x_source * scale + offset`, x and y."""
    @property
    def pad_color(self) -> tuple[int, int, int, int]:
        """Colour of the padding, in pixel order."""
    @property
    def value_scale(self) -> float:
        """Float formats: value = byte * value_scale + value_offset."""
    @property
    def value_offset(self) -> float:
        """Float formats: value = byte * value_scale + value_offset."""

@final
class RingInfo:
    """What one ring says about itself, at one moment."""

    @property
    def name(self) -> str:
        """The ring's name, as `attach` takes it."""
    @property
    def error(self) -> str | None:
        """What keeps this process from reading it, else None; every other field but the name is then empty."""
    @property
    def segment(self) -> str:
        """Its public name in the memory mount."""
    @property
    def state(self) -> State | None:
        """What its daemon is doing."""
    @property
    def reason(self) -> Reason | None:
        """Why."""
    @property
    def writer_alive(self) -> bool:
        """Whether a daemon holds it."""
    @property
    def writer_epoch(self) -> int:
        """Daemons that have owned this generation."""
    @property
    def generation(self) -> str:
        """Identity of its file, 32 hexadecimal digits."""
    @property
    def slots(self) -> int:
        """Frames it keeps."""
    @property
    def file_bytes(self) -> int:
        """Bytes of memory it takes."""
    @property
    def seq(self) -> int:
        """Number of the newest frame; 0 = none yet."""
    @property
    def fps(self) -> float:
        """Frames per second; 0 while none come."""
    @property
    def width(self) -> int | None:
        """Width of the newest frame, pixels; None while there is none."""
    @property
    def height(self) -> int | None:
        """Height of the newest frame, pixels; None while there is none."""
    @property
    def format(self) -> str | None:
        """Format of the newest frame; None while there is none."""
    @property
    def age(self) -> float | None:
        """Age of the newest frame, seconds; None while there is none."""
    @property
    def stale(self) -> bool:
        """Whether the newest frame is older than the ring's `stale_after`."""
    @property
    def readers(self) -> list[int]:
        """Pids of the readers that count themselves."""
    @property
    def decoder(self) -> str:
        """The decoder; empty before the first session."""
    @property
    def codec(self) -> str:
        """The stream's codec; empty before the first session."""
    @property
    def counters(self) -> dict[str, int]:
        """The daemon's counters by name."""

@final
class Stats:
    """What a handle has been through."""

    @property
    def frames(self) -> int:
        """Different frames returned."""
    @property
    def skipped(self) -> int:
        """Frames published but not returned."""
    @property
    def retries(self) -> int:
        """Copies that the writer overtook and that were repeated."""
    @property
    def followed(self) -> int:
        """Generations followed."""
    @property
    def resets(self) -> int:
        """Generations that did not continue the numbers of the one before."""
    @property
    def missed_wakes(self) -> int:
        """Sleeps that ended by themselves although something had changed."""

@final
class Watch:
    """Looks for frames of a ring on behalf of one iterator, without taking them."""

    def __new__(cls, ring: Ring) -> Self: ...
    def look(self) -> bool | None:
        """Waits a slice: True = there is a frame that the handle has not returned, False = not yet, None = the camera
        has ended."""
    def take(self, lost: int) -> Frame | None:
        """The newest frame if the handle has not returned it, else None; `lost` is added to its `skipped`."""

@final
class Writer:
    """Publishes arrays into a ring: pictures that were drawn on, or a camera that is a program.

    Every reader of the layout reads such a ring. Its state is `live` from the first picture on and `stopped` after
    `close`; the ring stays, and the next writer of the name takes it over and continues the numbers. Several threads may
    share a writer. A forked child may not publish (Forked): it makes a writer of its own, for another ring.
    """

    def __new__(
        cls,
        name: str,
        *,
        shape: Sequence[int] | None = None,
        format: str = "bgr",
        slots: int = 8,
        shm_dir: str | os.PathLike[str] | None = None,
        segment: str | None = None,
        lease_policy: Literal["fresh", "protect", "off"] = "fresh",
        mode: int = 0o640,
        group: str | None = None,
        stale_after: float = 1.0,
        value_scale: float = 1.0,
        value_offset: float = 0.0,
        timeout: float | None = 5.0,
    ) -> Self:
        """Takes the ring `name` (`front`, or `front.small`), or makes it.

        shape: the arrays' shape, (height, width, channels) or what `format` has instead; the ring is then made at its
        full size at once, and arrays of another shape are refused. None: the first array decides, and a larger one
        makes a larger generation that readers follow. format: `bgr`, `rgb`, `gray`, `bgra`, `rgba`, `i420`, `nv12`,
        `rgb-planar-f32` or `opaque`. slots: frames kept, 3 to 256. segment: another public name than `camring.NAME`.
        mode, group: who may read. stale_after: readers' default for "stale", seconds. value_scale,
        value_offset: what the floats of a float format mean, value = byte * value_scale + value_offset. timeout:
        seconds to wait for another writer of the ring to end (None = for ever).

        Raises InvalidName; RingBusy, with the other writer's pid; NoRoom; NameTaken; RingPermission; SystemRefused.
        """
    def publish(
        self,
        array: Buffer | NDArray[Any],
        *,
        arrival_ns: int | None = None,
        source_seq: int | None = None,
        source_unix_ns: int | None = None,
        pts_ns: int | None = None,
        like: Frame | None = None,
    ) -> int:
        """Copies `array` into the ring as its newest frame and wakes the readers; returns the frame's number.

        array: a contiguous buffer of the ring's shape and items (a NumPy array, a Frame), or as many plain bytes where
        the ring's shape is fixed. arrival_ns: when the picture arrived, ns of CLOCK_MONOTONIC; None = now. source_seq:
        number of the source's picture; None = one more than the last. source_unix_ns: the source's own clock. like: the
        frame that the picture was made from: its times, source number and place in the source are taken over. Other
        threads run while it copies; what they write into the array meanwhile may be in the frame.

        Raises BufferMismatch; NoSlot; NoRoom; Forked; Revoked for a leased frame that was overwritten meanwhile.
        """
    def close(self) -> None:
        """Ends the ring's life with this writer: state `stopped`. The ring and its frames stay."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, exception_type: object = None, _exception: object = None, _traceback: object = None
    ) -> None:
        """Closes; after an exception the ring's reason says `internal`."""
    @property
    def closed(self) -> bool:
        """Whether it was closed, or belongs to the process that this one was forked from."""
    @property
    def name(self) -> str:
        """The ring's name."""
    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape that every array must have; None = the array decides."""
    @property
    def format(self) -> str:
        """How the bytes are to be read: `bgr`, `rgb`, `gray`, ..."""
    @property
    def seq(self) -> int:
        """Number of the newest frame, an earlier writer's included; 0 while there is none."""
    @property
    def adopted(self) -> bool:
        """Whether a ring was there and was taken over."""
    @property
    def problem(self) -> str | None:
        """What is wrong with the ring's names or leases now, in words; None = nothing. Looks, and mends what it can."""
