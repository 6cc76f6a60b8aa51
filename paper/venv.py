"""Make the project's virtual environment hold exactly what requirements.lock pins; do nothing when it already does.

Runs on the bare interpreter, before anything is installed. What was installed is remembered inside the environment as
copies of requirements.lock and pyproject.toml, so the check depends on content, not on file times, and an interrupted
installation is simply continued. pip's own talk goes to a log; its progress and its errors go to the screen.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
STAMPED = (LOCK, ROOT / "pyproject.toml")


def stop(message: str) -> None:
    """End with one line and the exit code that a user's error has everywhere in the project."""
    sys.exit(print(f"error: {message}", file=sys.stderr) or 2)


def check_interpreter() -> None:
    """Refuse an interpreter on which the pins cannot be installed, before anything is written."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != (3, 11):
        stop(
            f"{sys.executable}: found Python {found}, expected 3.11. "
            "Next: install Python 3.11, then `make PYTHON=/path/to/python3.11 ...`"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        stop(
            f"{sys.executable}: Python {found} has no venv module. Next: install it "
            "(Debian: apt-get install python3.11-venv) or give another interpreter: `make PYTHON=...`"
        )


def is_current(env: Path) -> bool:
    """Whether `env` was completed with the present pins and still starts."""
    stamps = env / "pins"
    same = all((stamps / f.name).is_file() and (stamps / f.name).read_bytes() == f.read_bytes() for f in STAMPED)
    return same and (env / "bin" / "python").exists() and (env / "bin" / "soi").exists()


class Display:
    """pip's output in one moving line on a terminal, or in a line now and then elsewhere; errors always."""

    def __init__(self, total: int) -> None:
        self.total, self.seen, self.name = total, 0, ""
        self.tty = sys.stdout.isatty()
        self.last = 0.0

    def say(self, text: str, *, final: bool = False) -> None:
        """Show `text` in place of what was shown before; `final` keeps it. Steps of one package show nothing."""
        if self.total == 1 and not text.startswith(("ERROR", "error")):
            return
        if self.tty:
            print(f"\r\033[K  {text}", end="\n" if final else "", flush=True)
        elif final or time.monotonic() - self.last > 10:
            self.last = time.monotonic()
            print(f"  {text}", flush=True)

    def read(self, line: str) -> None:
        """Take one line of pip's output."""
        if match := re.match(r"(?:Collecting|Requirement already satisfied:) (\S+)", line):
            self.seen += 1
            self.say(f"{min(self.seen, self.total)} of {self.total} packages found: {match[1]}")
        elif match := re.match(r"\s*(?:Downloading|Using cached) (\S+)(?: \((.*)\))?", line):
            self.name = match[1].rsplit("/", 1)[-1].split("-")[0]
        elif match := re.match(r"Progress (\d+) of (\d+)", line):
            done, whole = (int(n) / 1e6 for n in match.groups())
            if whole > 5:
                self.say(f"downloading {self.name}: {done:.0f} of {whole:.0f} MB")
        elif line.startswith("Installing collected packages"):
            self.say(f"installing {line.count(',') + 1} packages", final=True)
        elif line.startswith(("ERROR", "error:")):
            self.say(line.rstrip(), final=True)


def pip(env: Path, log: Path, *arguments: str, total: int = 1) -> None:
    """Run the environment's `pip install` with its output shortened; the whole of it goes to `log`."""
    command = [str(env / "bin" / "python"), "-m", "pip", "install", *arguments]
    display = Display(total)
    settings = {**os.environ, "PYTHONUNBUFFERED": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    settings.pop("PYTHONPATH", None)
    with (
        open(log, "a", encoding="utf-8") as sink,
        subprocess.Popen(
            command, cwd=ROOT, env=settings, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        for line in process.stdout or ():
            if not line.startswith("Progress "):
                sink.write(line)
            display.read(line)
    if process.returncode:
        stop(
            f"pip could not install the pinned packages (its log: {log}). Next: check that a package registry can be "
            "reached and that the disk has 3 GB free, then give the same command again; it continues"
        )


def main() -> None:
    """`venv.py FOLDER`: create or complete the environment there."""
    env = Path(sys.argv[1]).resolve()
    check_interpreter()
    if is_current(env):
        return
    pins = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    print(f"== venv: {len(pins)} pinned packages into {env.name}/ (about 3 minutes the first time)", flush=True)
    start = time.monotonic()
    try:
        if not (env / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(env)], check=True)
        stamps = env / "pins"
        shutil.rmtree(stamps, ignore_errors=True)
        log = env / "install.log"
        log.unlink(missing_ok=True)
        installer = next(pin for pin in pins if pin.startswith("pip=="))
        pip(env, log, installer)
        pip(env, log, "--progress-bar", "raw", "-r", str(LOCK), total=len(pins))
        pip(env, log, "--no-deps", "--no-build-isolation", "-e", str(ROOT))
        stamps.mkdir()
        for file in STAMPED:
            shutil.copyfile(file, stamps / file.name)
    except (OSError, subprocess.CalledProcessError) as error:
        stop(f"{env}: could not be written ({error}). Next: free some disk space, then give the same command again")
    print(f"== venv: ready after {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
