"""Where training runs: the device, the precision, and the processes that train together.

Device and precision are chosen once, before anything is planned. Both affect the exact result, so the kind of device
and the precision are part of a run's identity. If `$SOI_DEVICE` is set, "auto" means its value. `accelerate launch`
gives every process the same command; the environment says how many processes there are and which one this is.
torch is imported only when it is needed.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from soi_lib.errors import SoiError, nearest

if TYPE_CHECKING:
    import torch

Kind = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16"]

CUBLAS_WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""The environment variable and value without which cuBLAS results may differ between runs."""
_NAMES = ("auto", "cpu", "cuda", "cuda:N")
_RUN_MEMORY = 8 * 2**30  # bytes of GPU memory that a run may need: a BERT-base with batches of 32 x 128
_RUNS_A_CARD = 4  # parallel runs on one GPU; more would only take turns


def resolve_device(name: str = "auto") -> str:
    """Return the device that `name` means: "cpu", "cuda" (any GPU), or "cuda:N".

    "auto" is a GPU if there is one, unless `ACCELERATE_USE_CPU` is set. Raises SoiError for any other name; `cards`
    checks whether the GPU exists.
    """
    if name == "auto":
        name = os.environ.get("SOI_DEVICE") or "auto"
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        hint = "use cuda for a GPU" if name.startswith("gpu") else nearest(name, _NAMES)
        raise SoiError("unknown device", where="--device", found=repr(name), expected=", ".join(_NAMES), hint=hint)
    if name != "auto":
        return name
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "on"):
        return "cpu"
    return "cuda" if _count() else "cpu"


def kind_of(device: str) -> Kind:
    """Return the kind of a resolved device, without its number."""
    return "cpu" if device == "cpu" else "cuda"


def cards(device: str) -> tuple[int, ...]:
    """Return the numbers of the GPUs that a resolved device may use, as CUDA numbers the visible ones; none for "cpu".

    Raises SoiError if there is no such GPU.
    """
    if device == "cpu":
        return ()
    count = _count()
    wanted = tuple(range(count)) if device == "cuda" else (int(device.partition(":")[2]),)
    if count and wanted[0] < count:
        return wanted
    import torch

    built = "this build of torch supports only CPUs" if torch.version.cuda is None else "torch sees no such GPU"
    there = f"{count} GPU{'s' if count > 1 else ''}" if count else f"no GPU ({built})"
    expected = "a GPU that torch can use" if device == "cuda" else f"more than {wanted[0]} GPUs"
    what, hint = "this device is not available", "use --device cpu, or run `soi doctor` to see what is missing"
    raise SoiError(what, where=f"device {device}", found=there, expected=expected, hint=hint)


def torch_device(device: str) -> torch.device:
    """Return the resolved `device` for torch: its first GPU, or the CPU. Raises SoiError if there is no such GPU."""
    import torch

    found = cards(device)
    return torch.device("cuda", found[0]) if found else torch.device("cpu")


def resolve_precision(precision: str, kind: str) -> Precision:
    """Return the precision to compute in on a `kind` of device; "auto" is bf16 if it supports that natively, else fp32.

    Raises SoiError for an unknown precision, and for "auto" on "cuda" if there is no GPU.
    """
    names = ("auto", "fp32", "bf16")
    if precision not in names:
        where, hint = "--precision", nearest(precision, names)
        raise SoiError("unknown precision", where=where, found=repr(precision), expected=", ".join(names), hint=hint)
    if precision != "auto":
        return precision  # type: ignore[return-value]
    import torch

    if kind == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    elif _count():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        what = "the precision for a GPU cannot be chosen without a GPU"
        hint = "give --precision bf16 or fp32, or plan on a machine that has the GPU"
        raise SoiError(what, where="--precision auto", hint=hint)
    return "bf16" if native else "fp32"


def processor() -> str:
    """Return the name of the processor, as the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def nvidia_gpus() -> list[dict[str, str]]:
    """Return this machine's NVIDIA GPUs, usable by torch or not: `name` and, if known, `memory` and `driver`."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return [{"name": "an NVIDIA GPU"} for _ in glob("/dev/nvidia[0-9]*")]  # at least their number
    lines = [re.split(r"\s*,\s*", line.strip()) for line in answer.splitlines() if line.strip()]
    return [dict(zip(("name", "memory", "driver"), parts, strict=False)) for parts in lines]


def describe_device(device: torch.device) -> dict[str, str]:
    """Describe a device for a manifest: its name and, on a GPU, the versions of CUDA and the driver."""
    if device.type != "cuda":
        return {"device": device.type}
    import torch

    drivers = [gpu["driver"] for gpu in nvidia_gpus() if "driver" in gpu]
    found = {"device": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    return found | ({"driver": drivers[0]} if drivers else {})


def default_jobs(device: str) -> int:
    """Return the number of parallel runs on a resolved device; `$SOI_JOBS` overrides it.

    On the CPU: one per core, each with one thread. On GPUs: one for every 8 GiB of a card's memory, at most four per
    card and at most one per core, but at least one per card.
    """
    if os.environ.get("SOI_JOBS", "").isdigit():
        return max(1, int(os.environ["SOI_JOBS"]))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device == "cpu":
        return cores
    import torch

    found = cards(device)
    memory = [int(torch.cuda.get_device_properties(card).total_memory) for card in found]
    wanted = sum(min(_RUNS_A_CARD, max(1, size // _RUN_MEMORY)) for size in memory)
    return max(len(found), min(wanted, cores))


def visible_cards(device: str, jobs: int) -> list[str | None]:
    """Return CUDA_VISIBLE_DEVICES for each of `jobs` workers, which share the GPUs evenly; None leaves it unchanged."""
    found = cards(device)
    if device != "cuda":
        return [None] * jobs
    there = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = there or [str(card) for card in found]
    return [names[found[i % len(found)]] for i in range(jobs)]


def one_thread_no_hub() -> None:
    """Make the libraries that a worker will import use one thread and not contact the Hub."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


@contextmanager
def reproducibly(device: str) -> Iterator[None]:
    """Make results in the block bit-identical on the same machine and resolved `device`.

    torch uses one thread, whatever the number of cores, and on a GPU only deterministic algorithms. For these cuBLAS
    needs a workspace of fixed size, which it reads when CUDA starts.
    """
    import torch

    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    deterministic: Any = torch.utils.deterministic
    fill = deterministic.fill_uninitialized_memory
    torch.set_num_threads(1)
    if kind_of(device) == "cuda":
        os.environ.setdefault(*CUBLAS_WORKSPACE)
        torch.use_deterministic_algorithms(True)
        deterministic.fill_uninitialized_memory = False  # a debugging aid that costs time
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        deterministic.fill_uninitialized_memory = fill


@contextmanager
def enough_memory() -> Iterator[None]:
    """Raise a one-line error if memory runs out in the block, on a GPU or on the CPU."""
    import torch

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        hint = "use smaller batches (--batch-size, or training.batch_size in a profile) or fewer parallel runs (--jobs)"
        found = str(error).splitlines()[0][-200:]
        raise SoiError("there is not enough memory to train", found=found, hint=hint) from error


def _count() -> int:
    """Return how many GPUs torch can use."""
    import torch

    return torch.cuda.device_count()


# --- processes launched together -------------------------------------------------------------------------------------


def launched_together() -> bool:
    """Return whether `accelerate launch` started this process together with others."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1")


def is_writer() -> bool:
    """Return whether this process is the one that writes: the only one, or the first of several."""
    return not launched_together() or os.environ.get("RANK", "0") == "0"


def meet() -> None:
    """Wait for all processes, or return at once if there is only one; the first call connects them."""
    if not launched_together():
        return
    import torch
    from accelerate import Accelerator

    from soi_lib.distributed import highest

    Accelerator()
    highest([0], torch.device("cpu"))  # which returns once all have called it


@contextmanager
def held(lock: AbstractContextManager[object]) -> Iterator[None]:
    """Hold `lock` for all processes: the first one acquires it, all enter together and leave when all have finished.

    The others wait as long as their backend allows: gloo raises SoiError after 30 minutes, NCCL terminates the process
    after 10.
    """
    with lock if is_writer() else nullcontext():
        meet()
        yield
        meet()
