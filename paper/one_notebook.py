"""Execute one notebook: a program of its own, so that nothing but papermill is imported before the kernel starts.

It reads its arguments as JSON from standard input.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import papermill
from traitlets.config import Config


def run(source: str, target: str, parameters: dict[str, Any], cwd: str) -> None:
    """Execute a notebook in this process and a kernel. Raises PapermillExecutionError for a cell that fails.

    The kernel talks through sockets in a folder of its own: TCP ports are chosen some time before they are opened, so
    kernels that start at the same moment may choose the same ones, and die.
    """
    with tempfile.TemporaryDirectory(prefix="soi-") as private:  # a short path: that of a socket has 107 bytes at most
        kernel = {"transport": "ipc", "connection_file": str(Path(private, "kernel.json"))}
        papermill.execute_notebook(
            source,
            target,
            parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=cwd,
            config=Config(KernelManager=kernel),
        )


if __name__ == "__main__":
    run(**json.load(sys.stdin))
