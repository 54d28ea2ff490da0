"""Calls that many threads make at the same time, done as one: a transaction costs the same for one record as for twenty."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Call:
    """`over` is set when it was done, or when it is its turn to do `company`."""

    item: Any
    over: threading.Event = field(default_factory=threading.Event)
    company: list[_Call] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    error: BaseException | None = None


class Together:
    """A call that comes alone is done at once. Those that come while it is being done wait, and are done together after it.

    So nobody waits for company, and the more calls there are, the more of them one turn does.
    """

    def __init__(self, most: int = 64) -> None:
        """`most`: so many are done in one turn."""
        self._most = most
        self._lock = threading.Lock()
        # A key is here while somebody does its calls; those that wait for their turn stand behind it.
        self._waiting: dict[Hashable, list[_Call]] = {}

    def do(self, key: Hashable, item: Item, do: Callable[[Sequence[Item]], Sequence[Result]]) -> Result:
        """What `do` returns for `item`.

        Args:
            key: only calls of the same key are done together, by the `do` of any of them.
            do: returns a result for each item, in their order.

        Raises:
            Exception: whatever `do` raised, for all that it was to do.
        """
        call = _Call(item)
        with self._lock:
            waiting = self._waiting.get(key)
            if waiting is None:
                self._waiting[key] = []
                call.company = [call]
            else:
                waiting.append(call)
        if not call.company:
            call.over.wait()
        if call.company:
            self._do_all(key, call.company, do)
        if call.error is not None:
            raise call.error
        result: Result = call.results[0]
        return result

    def _do_all(self, key: Hashable, company: list[_Call], do: Callable[[Sequence[Any]], Sequence[Any]]) -> None:
        try:
            for each, result in zip(company, do([each.item for each in company]), strict=True):
                each.results.append(result)
        except BaseException as exc:
            for each in company:
                each.error = exc
        finally:
            self._hand_on(key)
            for each in company:
                each.company = []
                each.over.set()

    def _hand_on(self, key: Hashable) -> None:
        with self._lock:
            waiting = self._waiting.pop(key)
            if not waiting:
                return
            self._waiting[key] = waiting[self._most :]
            next_one = waiting[0]
            next_one.company = waiting[: self._most]
            next_one.over.set()
