"""Who asks the store. While a run writes to it, one question is asked at a time, so that what is measured meets one query at
a time; at other times two, which is what two cores can answer."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from loadtest.store import Store, StoreUnavailable

LOOK_S = 0.1
AT_ONCE = 2
Answer = TypeVar("Answer")


class Reader:
    """`await reader.ask(question)`: the question is called with a store that may only read, in a thread of its own."""

    def __init__(self, store: Store) -> None:
        """`store` stays open as long as this does: it keeps an embedded server alive."""
        self._opened = store
        self._idle: SimpleQueue[Store | None] = SimpleQueue()  # a connection for each thread; None: still to be made
        for _ in range(AT_ONCE):
            self._idle.put(None)
        self._over = threading.Event()
        self._alone = asyncio.Lock()
        self._threads = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="reader")

    @property
    def where(self) -> str:
        return str(self._opened.address)

    async def ask(self, question: Callable[[Store], Answer], beside: bool = False) -> Answer:
        """`beside`: another question may be answered at the same time."""
        if beside:
            return await self._ask(question)
        async with self._alone:
            return await self._ask(question)

    async def _ask(self, question: Callable[[Store], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._answer, question)

    def is_over(self) -> bool:
        """The server is to end: what streams is to stop."""
        return self._over.is_set()

    def end(self) -> None:
        self._over.set()

    async def rest(self, seconds: float) -> None:
        """Sleep, but not through the end."""
        until = time.monotonic() + seconds
        while not self.is_over() and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, LOOK_S))

    def _answer(self, question: Callable[[Store], Answer]) -> Answer:
        store = self._idle.get()
        try:
            store = store or self._opened.reader()
            return question(store)
        except StoreUnavailable:
            if store:
                store.close()
            store = None  # the next question finds out whether the store is back
            raise
        finally:
            self._idle.put(store)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for _ in range(AT_ONCE):
            if store := self._idle.get():
                store.close()
