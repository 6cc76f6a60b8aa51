"""Train all runs of a profile, several at a time, with one progress display.

Each worker process trains one run after another on one thread and one device; `soi_lib.training.device` decides how
many there are. The longest runs go first, so that no core waits for the last one. An interrupted reproduction continues
with the runs that are not in the store. Workers exit when their parent does, however it ends.

In a terminal, progress is one bar. In a log file it is one line every half minute and one per finished run; if there
are few runs, also one line per epoch. The time left is estimated from the cost of the examples trained so far and the
time that they took, after some seconds of steady work; the start of the workers, their slow first steps, and work done
elsewhere are not counted.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, TextIO

from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook

from soi_lib.errors import StoreError
from soi_lib.runs.config import Profile
from soi_lib.runs.run import do_run
from soi_lib.runs.second_stage import do_stage
from soi_lib.runs.spec import Job, Progress, StageSpec, core_seconds, plan, plan_stages, staged
from soi_lib.runs.store import RunStore, StoredRun, open_run
from soi_lib.training import device as devices

_SLOW = 5.0
"""Seconds after the first training step that are left out of the estimate."""
_STEADY = 10.0
"""Seconds of training after that before the time left is estimated."""
_LINE = 30.0
"""Seconds between two lines in a log file."""
_FEW = 8
"""With at most this many runs, a log file has one line per epoch."""


def describe_job(job: Job, store: RunStore) -> dict[str, Any]:
    """Return a row of the plan, for tables and for programs that train it elsewhere."""
    base = job.base if isinstance(job, StageSpec) else job
    stage = f"{job.subset}, {job.control or 'subset'}" if isinstance(job, StageSpec) else ""
    return {
        "key": job.key,
        "comparison": base.comparison,
        "setting": "+".join(base.setting),
        "budget": base.setting.budget,
        "seed": base.seed,
        "state": "done" if store.get(job.key) else "to do",
        "minutes": round(core_seconds(job) / 60, 3),
        "kind": "stage" if stage else "run",
        "name": job.name,
        "stage": stage,
        "base": base.key if stage else None,
        "examples": job.examples,
        "encoder": base.encoder,
        "device": base.device,
        "precision": job.training.precision,
        "inputs": dict(base.fingerprints),
    }


def reproduce(
    profile: Profile, store: RunStore, *, jobs: int | None = None, quiet: bool = False, **which: Any
) -> list[StoredRun]:
    """Train the missing runs of `profile`, and return all runs in the order of the plan. `which` is as for `plan`.

    The weights of new runs are kept if stages of the profile start from them; the stages themselves are trained by
    `reproduce_stages`.
    """
    return run_all(runs_of(profile, store, **which), store, jobs=jobs, quiet=quiet)


def runs_of(profile: Profile, store: RunStore, **which: Any) -> list[Job]:
    """Return the runs of `profile`; missing runs that second stages start from are to keep their weights."""
    specs = plan(profile, **which)
    return [replace(spec, keep_weights=staged(profile, spec) and store.get(spec.key) is None) for spec in specs]


def reproduce_stages(
    profile: Profile, store: RunStore, *, jobs: int | None = None, quiet: bool = False, **which: Any
) -> list[StoredRun]:
    """Train the missing stages of `profile` and the runs they start from; return all in the order of `plan_stages`.

    Weights of stored runs that were not kept are recreated first. `which` is as for `plan`. Raises StoreError.
    """
    stages = plan_stages(profile, **which)
    missing = [stage.base for stage in stages if stage.found(store) is None]
    bases = {base.key: replace(base, keep_weights=True) for base in missing}
    run_all(list(bases.values()), store, jobs=jobs, quiet=quiet)
    return run_all(stages, store, jobs=jobs, quiet=quiet)


def do(job: Job, store: RunStore, progress: Progress | None = None) -> StoredRun:
    """Train a run or a stage, unless `store` has it."""
    if isinstance(job, StageSpec):
        return do_stage(job, store, progress=progress)
    return do_run(job, store, progress=progress)


def run_all(
    specs: Sequence[Job],
    store: RunStore,
    *,
    jobs: int | None = None,
    quiet: bool = False,
    then: Callable[[Job], None] | None = None,
) -> list[StoredRun]:
    """Train those of `specs` that `store` does not have, and return all of them, in order. Raises StoreError.

    `then` is called with each one that was trained, in the process that trained it and so has loaded what it needs.
    Under `accelerate launch` all processes train every run together, one run after another.
    """
    if devices.launched_together():
        jobs, quiet = 1, quiet or not devices.is_writer()
    done = {spec.key: run for spec in specs if (run := spec.found(store)) is not None}
    missing = [spec for spec in specs if spec.key not in done]
    if devices.is_writer():
        store.tidy()
    if missing:
        jobs = jobs or devices.default_jobs(missing[0].device)
        _train(missing, store, total=len(specs), jobs=jobs, quiet=quiet, then=then)
        done |= {spec.key: open_run(store.path(spec.key)) for spec in missing}
    return [done[spec.key] for spec in specs]


def _train(
    specs: list[Job], store: RunStore, *, total: int, jobs: int, quiet: bool, then: Callable[[Job], None] | None
) -> None:
    device, jobs = specs[0].device, min(jobs, len(specs))
    context = _context(device)
    reports, slots = context.Queue(), context.Queue()
    for card in [None] * jobs if devices.launched_together() else devices.visible_cards(device, jobs):
        slots.put(card)
    if not quiet:
        print(_placed(specs, jobs), file=sys.stderr)
    costs = {spec.key: core_seconds(spec) for spec in specs}
    queue = sorted(specs, key=lambda spec: (-costs[spec.key], spec.key))
    by_key = {spec.key: spec for spec in specs}
    shown = Display(by_key, costs, finished=total - len(specs), workers=jobs, quiet=quiet)

    def listen() -> None:
        while (report := reports.get()) is not None:
            shown.report(*report)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    others = set(multiprocessing.active_children())
    start = partial(_start_worker, reports, dict(os.environ), device, slots)
    pool = ProcessPoolExecutor(max_workers=jobs, mp_context=context, initializer=start)
    try:
        with _deaf():  # workers start here and inherit it, so that only the parent handles interrupts
            futures: dict[Future[None], Job] = {pool.submit(_work, spec, store.root, then): spec for spec in queue}
        for future in as_completed(futures):
            future.result()
            reports.put((futures[future].key, None, 0))
    except BrokenProcessPool as error:
        hint = "make sure there is enough memory, or use --jobs 1; the same command continues"
        raise StoreError("a worker process was killed", where=store.root, hint=hint) from error
    except KeyboardInterrupt:
        for process in set(multiprocessing.active_children()) - others:  # otherwise exiting would wait for them
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        reports.put(None)
        listener.join(timeout=5)
        shown.bar.close()


def _context(device: str) -> BaseContext:
    """Return how workers are started: on the CPU, forked from a lasting process that has imported what they need."""
    # CUDA does not survive a fork, and outside Linux threads may not either
    if device != "cpu" or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["soi_lib.runs.preload"])
    return context


def _placed(specs: Sequence[Job], jobs: int) -> str:
    """Return where these runs are trained, as a line for people."""
    device = specs[0].device
    n = len(devices.cards(device)) if device == "cuda" else 1
    named = {"cpu": "the CPU", "cuda": "the GPU" if n == 1 else f"{n} GPUs"}
    where = named.get(device, f"GPU {device.partition(':')[2]}")
    precision = " and ".join(sorted({spec.training.precision for spec in specs}))
    return f"training on {where} in {precision}, {f'{jobs} runs side by side' if jobs > 1 else '1 run at a time'}"


@contextmanager
def _deaf() -> Iterator[None]:
    """Block interrupts (Ctrl-C) while the block runs; processes started in it never receive any."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_reports: Any = None


def _start_worker(reports: Any, environment: dict[str, str], device: str, slots: Any) -> None:
    """Set up a worker: its device, one thread, no hub, the progress queue, and an exit when the parent is gone."""
    global _reports
    _reports = reports
    os.environ.clear()
    os.environ |= environment  # the parent's current one, which may have changed since the first worker
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # for the processes of one run, which connect through accelerate
    if (card := slots.get()) is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = card  # this and the next before CUDA starts here
    os.environ.setdefault(*devices.CUBLAS_WORKSPACE)
    devices.one_thread_no_hub()
    tqdm.set_lock(threading.RLock())  # its own lock is a system semaphore, which outlives a terminated worker

    def watch() -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _work(spec: Job, root: Path, then: Callable[[Job], None] | None) -> None:
    """Train one run in a worker, reporting progress at most five times per second."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    pending, last = 0, time.monotonic()

    def progress(key: str, epoch: int, n: int) -> None:
        nonlocal pending, last
        pending += n
        if time.monotonic() - last > 0.2:
            _reports.put((key, epoch, pending))
            pending, last = 0, time.monotonic()

    do(spec, RunStore(root), progress)
    if then is not None and devices.is_writer():
        then(spec)


# --- progress ----------------------------------------------------------------------------------------------------


class _Lines:
    """A log file, in which every state of a bar is a separate line."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        """Write a state without the carriage return and trailing blanks, which are for terminals."""
        if text.strip():
            self.file.write(text.strip() + "\n")

    def flush(self) -> None:
        self.file.flush()


def error_stream() -> Any:
    """Return the stream that a bar writes to: standard error, line by line if neither a terminal nor a notebook."""
    return sys.stderr if sys.stderr.isatty() or issubclass(tqdm, tqdm_notebook) else _Lines(sys.stderr)


class Display:
    """One bar, or lines, over all runs.

    `jobs` are the runs to do and `costs` how long each takes, in any unit, by key. `finished` runs were done before.
    """

    def __init__(
        self, jobs: Mapping[str, Job], costs: Mapping[str, float], *, finished: int, workers: int, quiet: bool
    ) -> None:
        self.jobs, self.finished, self.workers = jobs, finished, workers
        self.total = finished + len(jobs)
        self.seen = dict.fromkeys(jobs, 0)
        self.epoch: dict[str, int] = {}
        self.cost = {key: costs[key] / job.examples for key, job in jobs.items()}
        """Cost of one example, by key."""
        self.left = dict(costs)
        self.steady_from = math.inf
        self.trained = self.examples = 0.0
        """Cost and number of examples since `steady_from`."""
        stream = error_stream()
        self.lines, self.last_line = isinstance(stream, _Lines), time.monotonic()
        self.bar = tqdm(
            desc=f"runs {finished}/{self.total}: ",
            total=sum(job.examples for job in jobs.values()),
            disable=quiet,
            dynamic_ncols=not self.lines,
            file=stream,
            leave=not self.lines,
            mininterval=math.inf if self.lines else 0.5,
            maxinterval=math.inf if self.lines else 10,
            bar_format="{desc}{percentage:3.0f} %"
            + ("," if self.lines else "|{bar}|")
            + " {n_fmt}/{total_fmt} examples [{elapsed}{postfix}]",
        )

    def report(self, key: str, epoch: int | None, n: int) -> None:
        """Count `n` more examples of a run in its `epoch`; None means that the run is done."""
        now = time.monotonic()
        news = epoch is None or (len(self.jobs) <= _FEW and epoch != self.epoch.get(key))
        unseen = self.jobs[key].examples - self.seen[key]
        if epoch is None:
            self.epoch.pop(key, None)
            self.left.pop(key)
            n = unseen  # smaller splits and runs done elsewhere: not our work
            self.finished += 1
        else:
            self.epoch[key] = epoch
            n = min(n, unseen)  # for a stage the total is an estimate
            self.left[key] = max(0.0, self.left[key] - n * self.cost[key])
            if now >= self.steady_from:
                self.trained += n * self.cost[key]
                self.examples += n
            self.steady_from = min(self.steady_from, now + _SLOW)
        self.seen[key] += n
        self._describe()
        self.bar.update(n)
        if self.lines and (news or now - self.last_line >= _LINE):
            self.bar.refresh()
            self.last_line = now

    def _describe(self) -> None:
        self.bar.set_description(f"runs {self.finished}/{self.total}", refresh=False)
        parts = [self._time_left()] if self.left else []
        if self.epoch:
            named = [(self.jobs[key], epoch + 1) for key, epoch in self.epoch.items()]
            running = [f"{'+'.join(job.setting)} {number}/{job.training.epochs}" for job, number in named]
            parts.append(f"epochs: {', '.join(running)}")
        self.bar.set_postfix_str(", ".join(parts), refresh=False)

    def _time_left(self) -> str:
        """Return the time left and the speed, in words; a run has one worker, so the longest run is a lower bound."""
        taken = time.monotonic() - self.steady_from
        if taken < _STEADY or not self.trained:
            return "estimating"
        work = max(sum(self.left.values()), self.workers * max(self.left.values()))
        return f"{_duration(work * taken / self.trained)} left, {self.examples / taken:.0f} examples/s"


def _duration(seconds: float) -> str:
    """Return an approximate duration in words."""
    if seconds < 90:
        return f"about {math.ceil(seconds / 5) * 5} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes // 60} h {minutes % 60} min"
