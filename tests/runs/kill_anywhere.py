"""Kill a reproduction at random moments in all its phases, restart it, and compare the result, bit for bit.

    python tests/runs/kill_anywhere.py --kills 100 --seed 0

One attempt is `reproduce --record`, then `results`, on a tiny profile. SIGKILL ends its process group: the parent
and the workers at once. The moment is drawn in two steps, so that short phases are hit as often as long ones: first
one of the phases that were tried least so far, then a fraction of its usual duration. The next attempt continues. When
an attempt ends undisturbed, its store, recorded folder and results.json are compared with those of an attempt that was
never disturbed, and a new round begins in an empty folder.

A hundred kills take minutes because attempts are forked from a process that has imported everything (imports write
nothing), and because unfinished runs save their state after every epoch instead of every minute. The undisturbed
attempt has two workers; it is also compared with the command itself, with one worker and other threads and hashes in
its environment. A summary is printed as JSON.
"""

import argparse
import ctypes
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

PHASES = ("plan", "corpora", "prepare", "training", "state", "weights", "run folder", "stage", "record", "results")
DONE = {"corpora": "cache/corpora/given/*.txt", "weights": "runs/weights/*.safetensors"}
COMPARED = ("runs", "data/recorded/tiny")
PROFILE = {
    "comparisons": {"source": {"encoder": "tiny", "members": ["twitter", "yelp"], "settings": ["single", "all"]}},
    "stages": {"subsets": ["ambiguous"], "controls": [], "epochs": 2, "balance": False},
}
WORDS = (
    ["reproduce", "--profile", "../given/tiny.yaml", "--jobs", "2", "--record", "--force", "--quiet"],
    ["results", "--profile", "../given/tiny.yaml", "--out", "results.json"],
)
ODD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "3")
ODD |= {"PYTHONHASHSEED": "77", "TOKENIZERS_PARALLELISM": "true"}


# --- what must be equal --------------------------------------------------------------------------------------------


def digest_of(folder: Path) -> dict[str, str]:
    """Return a digest per file of a store, a run or a recorded folder, by its path in the folder.

    Not compared: times, commit and command in manifests and in the metadata of dynamics, their digests (the seals of
    manifests, the checksum list), locks, quarantine, and the states of unfinished runs.
    """
    from soi_lib.dynamics import TrainingDynamics
    from soi_lib.training.checkpoint import digest, read_tensors

    out = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.split("/")[0] in ("locks", "quarantine", "unfinished"):
            continue
        if path.name == "checksums.txt":
            continue
        if path.parent.name == "dynamics":
            value = TrainingDynamics.load(path).fingerprint()
        elif path.suffix == ".safetensors":
            tensors, about = read_tensors(path)
            value = _digest(about | {"sha256": digest(tensors)})
        elif path.name == "manifest.json":
            value = _digest(_lasting(json.loads(path.read_text(encoding="utf-8"))))
        elif path.name == "stages.json":
            value = _digest([_lasting(one) for one in json.loads(path.read_text(encoding="utf-8"))])
        else:
            value = hashlib.sha256(path.read_bytes()).hexdigest()
        out[name] = value
    return out


def _lasting(value: object) -> object:
    gone = ("started", "seconds", "commit", "command", "sha256", "base", "files")
    if isinstance(value, dict):
        return {k: _lasting(v) for k, v in value.items() if k not in gone}
    return value


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def compare(found: Path, expected: Path) -> list[str]:
    """Describe how two folders in which WORDS were executed differ, and files that should not be there."""
    faults = []
    for part in COMPARED:
        one, two = digest_of(found / part), digest_of(expected / part)
        faults += [f"{part}/{name} differs" for name in sorted({*one, *two}) if one.get(name) != two.get(name)]
    one, two = (json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in (found, expected))
    faults += [f"results.json differs in {name}" for name in ("profile", "runs") if one[name] != two[name]]
    for pattern in (".tmp-*", "quarantine", "*.damaged", "unfinished/*"):
        faults += [f"{path.relative_to(found)} is left" for path in found.rglob(pattern)]
    return faults


# --- one attempt ---------------------------------------------------------------------------------------------------


def _note(log: Path, what: str) -> None:
    with open(log, "a", encoding="utf-8") as handle:
        handle.write(f"{what} {os.getpid()} {time.monotonic()}\n")


def _noting(log: Path, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*arguments: Any, **named: Any) -> Any:
        _note(log, f"+{phase}")
        try:
            return function(*arguments, **named)
        finally:
            _note(log, f"-{phase}")

    return noted


def instrument(log: Path) -> None:
    """Make the phases of a reproduction write to `log` when they begin and end."""
    from paper import recorded as results
    from soi_lib.data import cache
    from soi_lib.runs import run, store
    from soi_lib.runs import scheduler as reproduce
    from soi_lib.runs import second_stage as stages
    from soi_lib.training import checkpoint, engine

    checkpoint.Checkpoint.every = 0.0
    for phase, place, name in (
        ("plan", reproduce, "plan"),
        ("corpora", cache, "load_dataset"),
        ("prepare", run, "prepare"),
        ("training", engine, "train"),
        ("state", checkpoint.Checkpoint, "save"),
        ("weights", checkpoint, "save_weights"),
        ("run folder", store.RunStore, "write"),
        ("stage", stages, "_stage"),
        ("record", results, "record"),
        ("results", results, "finished"),
    ):
        setattr(place, name, _noting(log, phase, getattr(place, name)))


def attempt(folder: Path, log: Path) -> int:
    """Start an attempt in `folder`; return its process, which leads a group of its own."""
    import tiny_grid

    def before() -> None:
        os.environ["SOI_CACHE"] = str(folder / "cache")
        instrument(log)

    return tiny_grid.forked(WORDS, folder, log.with_suffix(".said"), before)


def ahead(folder: Path, whole: Path) -> list[str]:
    """Return the phases still ahead of an attempt, with an empty name (let it end) once all runs are done."""
    left = {}
    for phase in PHASES:
        pattern = DONE.get(phase, "runs/*/manifest.json")
        left[phase] = len(list(folder.glob(pattern))) < len(list(whole.glob(pattern)))
    always = {"plan", "record", "results"}
    return [phase for phase in PHASES if left[phase] or phase in always] + ([] if left["stage"] else [""])


def reap(group: int) -> None:
    """Kill what is left of a process group, and wait for it."""
    while True:
        try:
            os.killpg(group, signal.SIGKILL)
            os.waitpid(-group, 0)
        except (ProcessLookupError, ChildProcessError):
            return


def read(log: Path) -> list[tuple[str, int, float]]:
    """Return the notes of an attempt: "+phase" or "-phase", process, time."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    notes = [line.rsplit(" ", 2) for line in lines if line.count(" ") >= 2]
    return [(what, int(pid), float(when)) for what, pid, when in notes]


def durations(log: Path) -> dict[str, float]:
    """Return the median duration of every phase of an undisturbed attempt, in seconds."""
    begun: dict[tuple[str, int], float] = {}
    took: dict[str, list[float]] = {}
    for what, pid, when in read(log):
        if what[0] == "+":
            begun[what[1:], pid] = when
        else:
            took.setdefault(what[1:], []).append(when - begun[what[1:], pid])
    return {phase: sorted(times)[len(times) // 2] for phase, times in took.items()}


# --- all of them ---------------------------------------------------------------------------------------------------


def main() -> int:
    """Kill, restart, compare; return 0 if every round ended with the same bits."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--kills", type=int, default=100)
    asked.add_argument("--seed", type=int, default=0)
    wanted = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-anywhere-") as folder:
        summary = kill(Path(folder).resolve(), wanted.kills, random.Random(wanted.seed))
    print(json.dumps(summary, indent=1))
    return 1 if summary["faults"] else 0


def kill(folder: Path, kills: int, draw: random.Random) -> dict[str, Any]:
    """Repeat rounds of attempts until `kills` of them were killed and the last round is finished."""
    import tiny_grid

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: we inherit workers that outlive their parent
    os.environ |= {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    tiny_grid.make(folder / "given", **PROFILE)
    tiny_grid.preload()
    for name in ("usual", "command"):
        (folder / name).mkdir()
    log = folder / "usual.log"
    process = attempt(folder / "usual", log)
    if os.waitpid(process, 0)[1]:
        raise RuntimeError(log.with_suffix(".said").read_text(encoding="utf-8"))
    reap(process)
    usual = durations(log)
    environment = tiny_grid.environment(folder / "command" / "cache", **ODD)
    for words in WORDS:
        one = [sys.executable, "-m", "paper", *("1" if word == "2" else word for word in words)]  # one worker
        done = subprocess.run(one, cwd=folder / "command", env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    faults = compare(folder / "usual", folder / "command")

    tried: Counter[str] = Counter()
    aimed: Counter[str] = Counter()
    rounds = attempts = killed = 0
    disturbed = folder / "disturbed"
    while killed < kills or disturbed.exists():
        disturbed.mkdir(exist_ok=True)
        log = folder / "attempt.log"
        log.unlink(missing_ok=True)
        phases = ahead(disturbed, folder / "usual")
        fewest = min(tried[phase] for phase in phases)
        phase = draw.choice([phase for phase in phases if tried[phase] == fewest])
        share, which = draw.random(), draw.choice((1, 1, 1, 2))
        tried[phase] += 1
        process = attempt(disturbed, log)
        attempts += 1
        ended = _wait(process, log, phase, which, share * usual[phase] if killed < kills and phase else None)
        reap(process)
        if ended is None:
            killed += 1
            aimed[phase] += 1
            continue
        if ended:
            faults.append(f"attempt {attempts}: {log.with_suffix('.said').read_text(encoding='utf-8').strip()[-500:]}")
        else:
            rounds += 1
            faults += [f"round {rounds}: {fault}" for fault in compare(disturbed, folder / "usual")]
        shutil.rmtree(disturbed)
    return {
        "kills": killed,
        "attempts": attempts,
        "rounds finished and compared": rounds,
        "faults": faults,
        "kills aimed at": {phase: aimed[phase] for phase in PHASES},
        "files compared": sum(len(digest_of(folder / "usual" / part)) for part in COMPARED),
    }


def _wait(process: int, log: Path, phase: str, which: int, after: float | None) -> int | None:
    """Kill `process` `after` seconds after the `which`-th start of `phase`, or return its exit code."""
    moment = None
    while True:
        gone, status = os.waitpid(process, os.WNOHANG)
        if gone:
            return os.waitstatus_to_exitcode(status)
        if after is not None and moment is None:
            begun = [when for what, _, when in read(log) if what == f"+{phase}"]
            moment = time.monotonic() + after if len(begun) >= which else None
        if moment is not None and time.monotonic() >= moment:
            os.killpg(process, signal.SIGKILL)
            return None
        time.sleep(0.001)


if __name__ == "__main__":
    sys.exit(main())
