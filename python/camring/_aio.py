"""`async for` over a ring: a thread waits and copies, the event loop never does."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from typing import TYPE_CHECKING, Self

from camring._camring import Frame, Watch

if TYPE_CHECKING:
    from camring._camring import Ring

_LINGER = 1.0
"""How long a thread without a request waits for the next one, seconds."""
_SLICE = 0.2
"""How often it looks meanwhile whether the interpreter ends, seconds."""


class _Request:
    """One `await`; its fields are used by the loop's thread, but for the wake-up."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Frame | None] = self.loop.create_future()

    def answer(self, outcome: Frame | None | BaseException) -> None:
        try:
            self.loop.call_soon_threadsafe(self._settle, outcome)
        except RuntimeError:
            # The loop was closed with the task still waiting: nobody is left to be told.
            return

    def _settle(self, outcome: Frame | None | BaseException) -> None:
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)

    def is_pointless(self) -> bool:
        """Whether nobody can receive an answer any more: without the main thread the interpreter waits for ours."""
        return self.loop.is_closed() or not threading.main_thread().is_alive()


class _Waiter:
    """Waits in a thread of its own for one iterator; the thread ends when nobody has asked for a while."""

    def __init__(self, ring: Ring) -> None:
        self._name = f"camring-{ring.name}"
        self._watch = Watch(ring)
        self._fresh()
        _waiters.add(self)

    def _fresh(self) -> None:
        self._changed = threading.Condition()
        self._request: _Request | None = None
        self._serving = False
        self._over = False
        # A frame that was sent to a cancelled `await`; the next frame counts it as skipped.
        self._unclaimed: Frame | None = None
        self._lost = 0

    after_fork = _fresh

    def ask(self) -> _Request:
        request = _Request()
        with self._changed:
            if self._unclaimed is not None:
                self._lost += self._unclaimed.skipped + 1
                self._unclaimed = None
            self._request = request
            if self._serving:
                self._changed.notify()
            else:
                self._serving = True
                threading.Thread(target=self._serve, name=self._name).start()
        return request

    def withdraw(self) -> None:
        with self._changed:
            self._request = None

    def claimed(self) -> None:
        with self._changed:
            self._unclaimed = None

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._request = None
            self._changed.notify()

    def _next_request(self) -> _Request | None:
        """The open request; None when the thread is to end."""
        with self._changed:
            for _ in range(round(_LINGER / _SLICE)):
                if self._request is not None or self._over or not threading.main_thread().is_alive():
                    break
                self._changed.wait(_SLICE)
            if self._request is None or self._request.is_pointless():
                self._request = None
                self._serving = False
            return self._request

    def _serve(self) -> None:
        while self._next_request() is not None:
            outcome: Frame | None | BaseException
            try:
                there = self._watch.look()
                if there is False:
                    continue
                # A frame that nobody waits for any more is left to whoever asks next.
                if self._request is None:
                    continue
                outcome = self._watch.take(self._lost) if there else None
                if there and outcome is None:
                    # Another thread of the handle was faster.
                    continue
            except BaseException as error:  # noqa: BLE001 - it belongs to the task that waits
                outcome = error
            self._answer(outcome)

    def _answer(self, outcome: Frame | None | BaseException) -> None:
        """To whoever asks now, who need not be the one that the wait began for."""
        with self._changed:
            if isinstance(outcome, Frame):
                self._lost = 0
                self._unclaimed = outcome
            request, self._request = self._request, None
        if request is not None:
            request.answer(outcome)


_waiters: weakref.WeakSet[_Waiter] = weakref.WeakSet()


def _after_fork() -> None:
    # The threads exist in the parent only, and one of them may have held its lock.
    for waiter in list(_waiters):
        waiter.after_fork()


os.register_at_fork(after_in_child=_after_fork)


class Frames:
    """Asynchronous iterator over the newest frames of a ring; made by `aiter(ring)` and `async for`."""

    def __init__(self, ring: Ring) -> None:
        self._waiter = _Waiter(ring)
        self._waiting = False
        weakref.finalize(self, self._waiter.end).atexit = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        """The newest frame not yet seen; waits through outages, ends as iteration does.

        A cancelled wait loses no count: the next frame's `skipped` includes what was read for nobody.
        """
        if self._waiting:
            raise RuntimeError("another task waits on this iterator; give every task its own aiter(ring)")
        request = self._waiter.ask()
        self._waiting = True
        try:
            frame = await request.future
        finally:
            self._waiting = False
            self._waiter.withdraw()
        self._waiter.claimed()
        if frame is None:
            raise StopAsyncIteration
        return frame

    async def aclose(self) -> None:
        """Ends the waiting thread, at the latest after its current look of 0.2 s."""
        self._waiter.end()
