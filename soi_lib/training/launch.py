"""Which of the processes that train one run together does what only one may do.

`accelerate launch` gives every process the same command, and says in the environment how many they are and which one
this is. Nothing here loads torch unless there are several.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")


def several() -> bool:
    """Whether this process was launched together with others."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1")


def first() -> bool:
    """Whether this process is the one that writes: it is alone, or the first of several."""
    return not several() or os.environ.get("RANK", "0") == "0"


def _wait() -> None:
    """Go on when all processes are here; the first call brings them together."""
    from accelerate import Accelerator

    from soi_lib import distributed as processes

    Accelerator()
    processes.wait_for_all()


@contextmanager
def held(lock: AbstractContextManager[object]) -> Iterator[None]:
    """Hold `lock`: the first process for all. They enter when it has it, and leave when all have done the block.

    The others wait as long as their backend lets them: gloo raises SoiError after 30 minutes, NCCL ends the process
    after 10.
    """
    if not several():
        with lock:
            yield
    elif first():
        with lock:
            _wait()
            yield
            _wait()
    else:
        _wait()
        yield
        _wait()


def once(do: Callable[[], T], then: Callable[[], T]) -> T:
    """What `do` returns, called by the first process; the others wait until it is done and return `then()`."""
    value = do() if first() else None
    if several():
        _wait()
    return then() if value is None else value
