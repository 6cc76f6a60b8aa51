"""What a training was done with: the processor, the versions of packages, the commit. No host names, no paths."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

_SOURCES = ("soi_lib", "paper", "data/packages.txt")


def version(package: str) -> str:
    """The version of an installed package, or "unknown"."""
    try:
        return version_of(package)
    except PackageNotFoundError:
        return "unknown"


def processor() -> str:
    """The name of the processor, as the system knows it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine(device: dict[str, str]) -> dict[str, Any]:
    """What a run was done on: processor, `device` (its name and versions), Python, system."""
    return {
        "cpu": processor(),
        **device,
        "threads": 1,
        "python": platform.python_version(),
        "system": sys.platform,
    }


@lru_cache(maxsize=1)
def commit() -> str:
    """The commit of the checkout that the library runs from, with `+` when files differ from it; else empty.

    A machine that has the files but not their history says it in `$SOI_COMMIT`.
    """
    if given := os.environ.get("SOI_COMMIT"):
        return given

    def git(*words: str) -> str:
        root = Path(__file__).resolve().parents[2]
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *_SOURCES)
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
