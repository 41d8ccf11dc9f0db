"""Several requests on their way at the same time, but not more than memory has room for."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def as_they_end(
    work: Callable[[_Item], _Result], items: Iterable[_Item], at_once: int
) -> Iterator[tuple[int, _Result]]:
    """Yield (number, result) of each item as its work ends; `at_once` are worked on in threads.

    What an item raises is raised here. If the caller leaves the loop, items not begun are left out.
    """
    rest = iter(enumerate(items))
    running: dict[Future[_Result], int] = {}
    with ThreadPoolExecutor(at_once, "lpipstore") as threads:
        try:
            for number, item in islice(rest, at_once):
                running[threads.submit(work, item)] = number
            while running:
                for ready in wait(running, return_when=FIRST_COMPLETED).done:
                    number = running.pop(ready)
                    yield number, ready.result()
                    for following, item in islice(rest, 1):
                        running[threads.submit(work, item)] = following
        finally:
            for future in running:
                future.cancel()
