"""Train all runs of a profile, several at a time, with one progress display.

Each worker process trains one run after another on one thread and one device; `soi_lib.training.device` decides how
many there are. The longest runs go first, so that no core waits for the last one. An interrupted reproduction continues
with the runs that are not in the store. Workers exit when their parent does, however it ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from soi_lib.errors import StoreError
from soi_lib.runs.config import Profile
from soi_lib.runs.progress import Display
from soi_lib.runs.run import do_run
from soi_lib.runs.second_stage import do_stage
from soi_lib.runs.spec import Job, Progress, RunSpec, StageSpec, core_seconds, plan, plan_stages, staged
from soi_lib.runs.store import RunStore, StoredRun, open_run
from soi_lib.training.device import (
    CUBLAS_WORKSPACE,
    cards,
    default_jobs,
    is_writer,
    launched_together,
    one_thread_no_hub,
    visible_cards,
)


def describe_job(job: Job, store: RunStore) -> dict[str, Any]:
    """Return a row of the plan, for tables and for programs that train it elsewhere."""
    base = job.base if isinstance(job, StageSpec) else job
    stage = f"{job.subset}, {job.control or 'subset'}" if isinstance(job, StageSpec) else ""
    return {
        "key": job.key,
        "comparison": base.comparison,
        "setting": "+".join(base.setting),
        "budget": base.budget,
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
    continued = profile.stages is not None and bool(profile.stages.subsets)
    return [
        replace(spec, keep_weights=continued and staged(profile, spec) and store.get(spec.key) is None)
        for spec in plan(profile, **which)
    ]


def reproduce_stages(
    profile: Profile, store: RunStore, *, jobs: int | None = None, quiet: bool = False, **which: Any
) -> list[StoredRun]:
    """Train the missing stages of `profile` and the runs they start from; return all in the order of `plan_stages`.

    Weights of stored runs that were not kept are recreated first. `which` is as for `plan`. Raises StoreError.
    """
    stages = plan_stages(profile, **which)
    bases: dict[str, RunSpec] = {}
    for stage in stages:
        if stage.found(store) is None:
            bases[stage.base.key] = replace(stage.base, keep_weights=True)
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
    if launched_together():
        jobs, quiet = 1, quiet or not is_writer()
    done = {spec.key: run for spec in specs if (run := spec.found(store)) is not None}
    missing = [spec for spec in specs if spec.key not in done]
    if is_writer():
        store.tidy()
    if missing:
        jobs = jobs or default_jobs(missing[0].device)
        _train(missing, store, total=len(specs), jobs=jobs, quiet=quiet, then=then)
        done |= {spec.key: open_run(store.path(spec.key)) for spec in missing}
    return [done[spec.key] for spec in specs]


def _train(
    specs: list[Job], store: RunStore, *, total: int, jobs: int, quiet: bool, then: Callable[[Job], None] | None
) -> None:
    context = _context(specs[0].device)
    reports, slots = context.Queue(), context.Queue()
    device, jobs = specs[0].device, min(jobs, len(specs))
    for card in [None] * jobs if launched_together() else visible_cards(device, jobs):
        slots.put(card)
    if not quiet:
        print(_placed(specs, jobs), file=sys.stderr)
    queue = sorted(specs, key=lambda spec: (-core_seconds(spec), spec.key))
    shown = Display(
        {spec.key: spec for spec in specs},
        {spec.key: core_seconds(spec) for spec in specs},
        finished=total - len(specs),
        workers=jobs,
        quiet=quiet,
    )
    listener = threading.Thread(target=shown.listen, args=(reports,), daemon=True)
    listener.start()
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        max_workers=jobs,
        mp_context=context,
        initializer=_start_worker,
        initargs=(reports, dict(os.environ), device, slots),
    )
    try:
        with _deaf():  # workers start here and inherit it, so that only the parent handles interrupts
            futures: dict[Future[None], Job] = {pool.submit(_work, spec, store.root, then): spec for spec in queue}
        for future in as_completed(futures):
            future.result()
            reports.put((futures[future].key, None, 0))
    except BrokenProcessPool as error:
        raise StoreError(
            "a worker process was killed",
            where=store.root,
            hint="make sure there is enough memory, or use --jobs 1; the same command continues",
        ) from error
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
    """Return how workers are started: on the CPU, forked from a process that has imported what they need.

    That process stays for later runs. CUDA does not survive a fork, and outside Linux threads may not either.
    """
    if device != "cpu" or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["soi_lib.runs.preload"])
    return context


def _placed(specs: Sequence[Job], jobs: int) -> str:
    """Return where these runs are trained, as a line for people."""
    device = specs[0].device
    where = {"cpu": "the CPU", "cuda": "the GPU"}.get(device, f"GPU {device.partition(':')[2]}")
    if device == "cuda" and len(cards(device)) > 1:
        where = f"{len(cards(device))} GPUs"
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
    os.environ.setdefault(*CUBLAS_WORKSPACE)
    one_thread_no_hub()
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
    if then is not None and is_writer():
        then(spec)
