"""A complete reproduction that takes seconds: generated corpora, a random BERT, second stages, two comparisons.

It needs no fetched package: a profile names folders for corpora and encoder, and the cache is separate. `Nursery` forks
commands from a process that has already imported everything.
"""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from authors_data import as_parquet, tiny_bert
from own_data import main_of

COLUMNS = {"twitter": ("text", "sentiment"), "yelp": ("text", "label"), "en": ("utt", "intent")}


def make(folder: Path, **changes: Any) -> Path:
    """Write corpora, an encoder and a profile to `folder`; return the profile. `changes` replace its fields."""
    corpora = {}
    for member, (text, label) in COLUMNS.items():
        path = as_parquet(member, folder / "data" / member)
        corpora[member] = {"path": str(path), "text": text, "label": label, "splits": {"ood": ["OOD"]}}
        corpora[member]["drop"] = ["duplicates", "empty", "unknown-labels"]
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
    """Return the environment of a command with its cache in `cache`, without hub and GPU."""
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return kept | {"SOI_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"} | more


def preload() -> None:
    """Import everything that a reproduction imports, without starting a thread."""
    from multiprocessing import popen_fork, queues, synchronize  # noqa: F401

    import rich.console  # noqa: F401
    import torch

    from paper.cli import main  # noqa: F401
    from soi_lib.runs import preload  # noqa: F401
    from soi_lib.training import checkpoint  # noqa: F401

    torch.set_num_threads(1)


def forked(commands: Sequence[Sequence[str]], cwd: Path, said: Path, before: Callable[[], None]) -> int:
    """Call `before`, then run commands until one fails, in a forked process that leads its own group; return its id.

    Its output goes to `said`. Its workers are forked, too.
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
    """A process that has imported everything and forks commands on demand."""

    def __init__(self, env: dict[str, str]) -> None:
        env = env | {"PYTHONPATH": os.pathsep.join(sys.path)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen([sys.executable, __file__], text=True, env=env, **pipes)

    def soi(self, *words: object, cwd: Path, before: str = "") -> tuple[int, str]:
        """Run a command; return its exit code and output. Statements `before` are executed in its process first."""
        return self.wait(self.start(*words, cwd=cwd, before=before))

    def start(self, *words: object, cwd: Path, before: str = "") -> tuple[int, Path]:
        """Start a command; its process leads a group."""
        said = cwd / f"said-{os.urandom(4).hex()}"
        return self._ask({"words": list(map(str, words)), "cwd": str(cwd), "said": str(said), "before": before}), said

    def wait(self, started: tuple[int, Path]) -> tuple[int, str]:
        """Wait for a started command; return its exit code and output."""
        code = self._ask({"wait": started[0]})
        said = started[1].read_text(encoding="utf-8")
        started[1].unlink()
        return code, said

    def _ask(self, question: dict[str, Any]) -> int:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Answer `Nursery`: one question per line on standard input, one number per line on standard output."""
    preload()
    for line in sys.stdin:
        question = json.loads(line)
        if "wait" in question:
            answer = os.waitstatus_to_exitcode(os.waitpid(question["wait"], 0)[1])
        else:
            cwd, said, before = Path(question["cwd"]), Path(question["said"]), partial(exec, question["before"], {})
            answer = forked([question["words"]], cwd, said, before)
        print(answer, flush=True)


if __name__ == "__main__":
    serve()
