"""Execute one notebook in a separate program, so that only papermill is imported before the kernel starts.

The program reads its arguments as JSON from standard input.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import papermill
from traitlets.config import Config

if __name__ == "__main__":
    call = json.load(sys.stdin)
    # The kernel communicates through sockets in a private folder: TCP ports are chosen some time before they are
    # opened, so kernels that start at the same moment could choose the same ports and crash.
    with tempfile.TemporaryDirectory(prefix="soi-") as private:  # short, since socket paths have at most 107 bytes
        kernel = {"transport": "ipc", "connection_file": str(Path(private, "kernel.json"))}
        papermill.execute_notebook(
            call["source"],
            call["target"],
            call["parameters"],
            kernel_name="python3",
            progress_bar=False,
            cwd=call["cwd"],
            config=Config(KernelManager=kernel),
        )
