"""The one thread that asks the store. Pages wait for each other, and a run that is being measured meets one query at a time."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from loadtest.store import Store, StoreUnavailable

LOOK_S = 0.1
Answer = TypeVar("Answer")


class Reader:
    """`await reader.ask(question)`: the question is called with a store that may only read, in the thread of all questions."""

    def __init__(self, store: Store) -> None:
        """`store` stays open as long as this does: it keeps an embedded server alive."""
        self._opened = store
        self._store: Store | None = None
        self._over = threading.Event()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")

    @property
    def where(self) -> str:
        return str(self._opened.address)

    async def ask(self, question: Callable[[Store], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, question)

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
        if self._store is None:
            self._store = self._opened.reader()
        try:
            return question(self._store)
        except StoreUnavailable:
            self._store.close()
            self._store = None  # the next question finds out whether the store is back
            raise

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        if self._store:
            self._store.close()
