"""An event loop that runs only while somebody drives it, in their own thread, and that leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class Pump:
    """The loop is made when it is first needed, so that a pump that never runs has nothing to close."""

    def __init__(self) -> None:
        self._made: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._bug: BaseException | None = None

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._made is None:
            self._made = asyncio.new_event_loop()
        return self._made

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """To its end."""
        return self._loop.run_until_complete(coroutine)

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """It goes on whenever the loop is driven."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def drive(self, patience_s: float) -> None:
        """Until somebody stops it, or for so long; 0 is one turn over what is ready now."""
        loop = self._loop
        limit = loop.call_later(patience_s, loop.stop) if patience_s > 0 else loop.call_soon(loop.stop)
        try:
            loop.run_forever()
        finally:
            limit.cancel()
        if self._bug is not None:
            raise self._bug

    def stop(self) -> None:
        """At the end of this turn: what else is ready in it still gets its say."""
        self._loop.stop()

    def close(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Ends whatever is under way, then does what is to be done last. May be called again."""
        if self._made is None or self._made.is_closed():
            return
        self.run(self._end())
        if last is not None:
            self.run(last())
        self.run(self._made.shutdown_asyncgens())
        self.run(self._made.shutdown_default_executor())
        self._made.close()

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._bug = task.exception()
