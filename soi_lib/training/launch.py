"""What only one of the processes that train a run together may do, and what the others wait for.

`accelerate launch` gives every process the same command; the environment says how many there are and which one this is.
Nothing here loads torch unless there are several.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether this process was launched together with others."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1")


def is_main_process() -> bool:
    """Whether this process is the one that writes: the only one, or the first of several."""
    return not is_distributed() or os.environ.get("RANK", "0") == "0"


def _wait() -> None:
    """Go on when all processes are here; the first call brings them together."""
    from accelerate import Accelerator

    from soi_lib import distributed as processes

    Accelerator()
    processes.wait_for_all()


@contextmanager
def held(lock: AbstractContextManager[object]) -> Iterator[None]:
    """Hold `lock`, the first process for all: they enter together, and leave when all have finished the block.

    The others wait as long as their backend allows: gloo raises SoiError after 30 minutes, NCCL ends the process after
    10.
    """
    if not is_distributed():
        with lock:
            yield
    elif is_main_process():
        with lock:
            _wait()
            yield
            _wait()
    else:
        _wait()
        yield
        _wait()


def once(do: Callable[[], T], then: Callable[[], T]) -> T:
    """The value of `do()`, which only the first process calls; the others wait until it is done and return `then()`."""
    value = do() if is_main_process() else None
    if is_distributed():
        _wait()
    return then() if value is None else value
