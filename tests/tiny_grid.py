"""A whole reproduction that takes seconds: generated corpora, a random BERT, runs, second stages, two comparisons.

It needs no fetched package: corpora and encoder are folders that a profile names, and the cache is its own. Commands
that would spend most of their time on imports are forked from a process that has done them (`Nursery`).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from authors_data import as_parquet, tiny_bert
from commands import command, main_of

MEMBERS = ("twitter", "yelp", "en")
LABELS = {"twitter": "sentiment", "yelp": "label", "en": "intent"}


def make(folder: Path, **changes: Any) -> Path:
    """Corpora, an encoder and a profile in `folder`; returns the profile. `changes` replace fields of it."""
    corpora = {}
    for member in MEMBERS:
        as_parquet(member, folder / "data" / member)
        source = {"path": str(folder / "data" / member), "label": LABELS[member], "splits": {"ood": ["OOD"]}}
        corpora[member] = source | {
            "text": "utt" if member == "en" else "text",
            "drop": ["duplicates", "empty", "unknown-labels"],
        }
    encoder = tiny_bert(folder / "encoder")
    values = {
        "name": "tiny",
        "seeds": [0],
        "data": {"train": 40, "evaluate": 20},
        "training": {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3},
        "comparisons": {
            "source": {"encoder": "tiny", "members": ["twitter", "yelp"], "settings": ["single", "all"]},
            "lingual": {"encoder": "tiny", "members": ["en"], "settings": ["single"]},
        },
        "stages": {"subsets": ["ambiguous"], "controls": ["random"], "epochs": 2, "balance": False},
        "corpora": corpora,
        "encoders": {"tiny": {"path": str(encoder)}},
    } | changes
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def environment(cache: Path, **more: str) -> dict[str, str]:
    """The environment of a command that keeps its cache in `cache` and stays off hub and GPU."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return kept | {"SOI_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"} | more


def soi(*words: object, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the `soi` command in `cwd`, with `cwd`/cache as its cache unless `env` says otherwise."""
    more.setdefault("env", environment(cwd / "cache"))
    return subprocess.run(command(*words), cwd=cwd, capture_output=True, text=True, **more)


def preload() -> None:
    """Import all that a reproduction imports, and start no thread."""
    from multiprocessing import popen_fork, queues, synchronize  # noqa: F401

    import rich.console  # noqa: F401
    import torch

    from paper.cli import main  # noqa: F401
    from soi_lib.runs import preload  # noqa: F401
    from soi_lib.training import checkpoint  # noqa: F401

    torch.set_num_threads(1)


def forked(commands: Sequence[Sequence[str]], cwd: Path, said: Path, before: Callable[[], None]) -> int:
    """Do `soi` commands one after the other in a forked process, the leader of its own group; returns its number.

    What it says goes to `said`. `before` is called in it first. Its workers are forked too.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        out = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(out, 1), os.dup2(out, 2)
        os.chdir(cwd)
        context = multiprocessing.get_context
        multiprocessing.get_context = lambda method=None: context("fork")  # type: ignore[assignment,misc]
        before()
        for words in commands:
            sys.argv = ["soi", *words]
            try:
                main_of(words)()
                code = 0
            except SystemExit as done:
                code = int(done.code or 0)
            if code:
                break
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        code = 1
    os._exit(code)


class Nursery:
    """A process that has imported everything and forks `soi` commands on demand."""

    def __init__(self, env: dict[str, str]) -> None:
        place = os.pathsep.join(sys.path)
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env | {"PYTHONPATH": place},
        )

    def soi(self, *words: object, cwd: Path, before: str = "") -> tuple[int, str]:
        """The exit code of a command and what it said; statements `before` are executed in its process first."""
        return self.wait(self.start(*words, cwd=cwd, before=before))

    def start(self, *words: object, cwd: Path, before: str = "") -> tuple[int, Path]:
        """Begin a command; its process leads a group."""
        said = cwd / f"said-{os.urandom(4).hex()}"
        return self._ask({"words": list(map(str, words)), "cwd": str(cwd), "said": str(said), "before": before}), said

    def wait(self, started: tuple[int, Path]) -> tuple[int, str]:
        """The exit code of a command that was begun, and what it said."""
        code = self._ask({"wait": started[0]})
        said = started[1].read_text(encoding="utf-8")
        started[1].unlink()
        return code, said

    def _ask(self, question: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """The other side of `Nursery`: a question a line on standard input, a number a line on standard output."""
    preload()
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        else:
            statements = question["before"]
            answer = forked(
                [question["words"]],
                Path(question["cwd"]),
                Path(question["said"]),
                lambda statements=statements: exec(statements, {}),  # type: ignore[misc]
            )
        print(answer, flush=True)


if __name__ == "__main__":
    serve()
