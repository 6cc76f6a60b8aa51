"""A mock of Slurm: `sbatch` starts jobs immediately on this machine; the other commands report on them.

Called as `fake_slurm.py COMMAND ARGUMENTS...`; its state is in the folder $FAKE_SLURM.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

COMMANDS = ("sbatch", "sacct", "squeue", "scancel", "srun", "scontrol", "sinfo", "sacctmgr", "sshare")
PLACE = Path(os.environ.get("FAKE_SLURM", "."))


def install(folder: Path) -> None:
    """Write a script for each command to `folder`, for use in PATH."""
    folder.mkdir(parents=True)
    for name in COMMANDS:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{__file__}" {name} "$@"\n', encoding="utf-8")
        script.chmod(0o755)


def value(words: list[str], *names: str) -> str:
    """Return the value of an option, written `--name value` or `--name=value`."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        for name in names:
            if word == name:
                return following
            if word.startswith(f"{name}="):
                return word.partition("=")[2]
    return ""


def sbatch(words: list[str]) -> None:
    number = 1
    while True:
        try:
            (PLACE / f"{number}.state").touch(exist_ok=False)
            break
        except FileExistsError:
            number += 1
    request = {"time": value(words, "-t"), "mem": value(words, "--mem"), "comment": value(words, "--comment")}
    (PLACE / f"{number}.json").write_text(json.dumps(request), encoding="utf-8")
    (PLACE / f"{number}.state").write_text("RUNNING", encoding="utf-8")
    log = value(words, "--output", "-o").replace("%j", str(number))
    command = [sys.executable, "-S", __file__, "job", str(number), log, value(words, "-D"), value(words, "--wrap")]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, start_new_session=True, **quiet)
    (PLACE / f"{number}.pid").write_text(str(process.pid), encoding="utf-8")
    print(number)


def job(number: str, log: str, folder: str, command: str) -> None:
    """Run a job with its output in `log`, and save its final state."""
    with open(log or os.devnull, "ab") as out:
        env = os.environ | {"SLURM_JOB_ID": number, "SLURM_CPUS_PER_TASK": "1"}
        done = subprocess.run(["bash", "-c", command], cwd=folder or None, env=env, stdout=out, stderr=out)
    (PLACE / f"{number}.state").write_text("FAILED" if done.returncode else "COMPLETED", encoding="utf-8")


def srun(words: list[str]) -> None:
    """Replace this process by the command after the options."""
    while words and words[0].startswith("-"):
        words = words[1:]
    os.execvp(words[0], words)


def main(command: str, *words: str) -> None:
    """Imitate a command, as far as the tests need it."""
    if command in ("sbatch", "srun"):
        globals()[command](list(words))
    elif command == "job":
        job(*words)
    elif command in ("sacct", "squeue"):
        for path in sorted(PLACE.glob("*.state")):
            print(f"{path.stem}|{path.read_text(encoding='utf-8') or 'PENDING'}")
    elif command == "scancel":
        for word in words:
            if word.isdigit() and (PLACE / f"{word}.pid").exists():
                os.killpg(int((PLACE / f"{word}.pid").read_text(encoding="utf-8")), signal.SIGKILL)
                (PLACE / f"{word}.state").write_text("CANCELLED", encoding="utf-8")
    else:
        print({"scontrol": "MinJobAge = 300 sec", "sinfo": "PARTITION\nshort*"}.get(command, "lab"))


if __name__ == "__main__":
    main(*sys.argv[1:])
