"""The grid on Snakemake, killed and continued locally, and with Slurm's executor, gives the results of the library.

Snakemake is taken from $SOI_SNAKEMAKE or .venv-scale, which `make test-scale` creates.
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "runs")]

import fake_slurm  # noqa: E402
import tiny_grid  # noqa: E402
from kill_anywhere import digest_of  # noqa: E402

SNAKEMAKE = Path(os.environ.get("SOI_SNAKEMAKE") or ROOT / ".venv-scale" / "bin" / "snakemake")
pytestmark = pytest.mark.scale
SMALL = {
    "comparisons": {"source": {"encoder": "tiny", "members": ["twitter", "yelp"], "settings": ["single"]}},
    "stages": {"subsets": ["ambiguous"], "controls": [], "epochs": 2, "balance": False},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A checkout with both packages and a profile, and the result of `reproduce` in `undisturbed`."""
    assert SNAKEMAKE.exists(), f"{SNAKEMAKE} not found. Next: make scale"
    folder = tmp_path_factory.mktemp("grid")
    for part in ("soi_lib", "paper"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data").mkdir()
    shutil.copyfile(ROOT / "data" / "packages.txt", folder / "data" / "packages.txt")
    tiny_grid.make(folder, **SMALL)
    nursery = tiny_grid.Nursery(tiny_grid.environment(folder / "cache"))
    for words in (("reproduce", "-q", "--jobs", 2), ("results", "--out", "undisturbed.json")):
        code, said = nursery.soi(*words, "--profile", "tiny.yaml", "--runs", "undisturbed", cwd=folder)
        assert code == 0, said
    nursery.close()
    return folder


def command(place: Path, name: str, *words: object, **config: object) -> tuple[list[str], dict[str, str]]:
    """Return a call of Snakemake with its store and results in `name`, and its environment."""
    values = {"profile": "tiny.yaml", "runs": f"{name}/runs", "out": f"{name}/out"} | config
    values["soi"] = f"{sys.executable} -m paper"  # the copy of the library in this folder
    settings = [f"{key}={value}" for key, value in values.items()]
    env = tiny_grid.environment(place / "cache", XDG_CACHE_HOME=str(place / "snakemake"), PYTHONPATH=str(place))
    snakefile = place / "paper" / "cluster" / "Snakefile"
    return [str(SNAKEMAKE), "-s", str(snakefile), *map(str, words), "--config", *settings], env


def snakemake(place: Path, name: str, *words: object) -> str:
    call, env = command(place, name, *words)
    done = subprocess.run(call, cwd=place, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def same_results(place: Path, name: str) -> None:
    """Assert that results and store equal those of the library alone."""
    found = json.loads((place / name / "out" / "results.json").read_text(encoding="utf-8"))
    expected = json.loads((place / "undisturbed.json").read_text(encoding="utf-8"))
    assert found["runs"] == expected["runs"]
    assert found["profile"] == expected["profile"]
    assert digest_of(place / name / "runs") == digest_of(place / "undisturbed")


def test_killed_and_continued_the_results_are_those_of_the_library(place):
    call, env = command(place, "local", "--jobs", 2, "--rerun-incomplete")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(call, cwd=place, env=env, start_new_session=True, **quiet)
    deadline = time.monotonic() + 600
    markers = place / "local" / "out" / "done"
    while not [m for m in markers.glob("*") if m.stat().st_size] and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (place / "local" / "out" / "results.json").exists()
    snakemake(place, "local", "--unlock")
    said = snakemake(place, "local", "--jobs", 2, "--rerun-incomplete")
    same_results(place, "local")
    first = next(iter(sorted(json.loads((place / "undisturbed.json").read_text())["runs"], key=lambda r: r["key"])))
    assert first["key"] in said or (markers / first["key"]).exists()

    assert "Nothing to be done" in snakemake(place, "local", "--jobs", 2, "--dry-run")
    library = place / "soi_lib" / "training" / "__init__.py"
    library.write_text(library.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    assert "Updated input files" in snakemake(place, "local", "--jobs", 2, "--dry-run")  # edits are noticed
    gone = next(markers.glob("*"))
    shutil.rmtree(place / "local" / "runs" / gone.name)
    snakemake(place, "local", "--jobs", 2)  # deleted runs, too; the others are found in the store
    same_results(place, "local")


def test_through_the_executor_of_slurm(place):
    slurm = place / "slurm"
    fake_slurm.install(slurm / "bin")
    profile = place / "paper" / "cluster" / "profiles" / "slurm"
    words = ("--profile", profile, "--default-resources", "slurm_account=lab", "slurm_partition=short")
    waiting = ("--slurm-init-seconds-before-status-checks", 1, "--latency-wait", 5)
    path = f"{slurm / 'bin'}{os.pathsep}{os.environ['PATH']}"
    call, env = command(place, "slurm", *words, *waiting, speed=0.001)
    env |= {"PATH": path, "FAKE_SLURM": str(slurm)}
    done = subprocess.run(call, cwd=place, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    same_results(place, "slurm")
    plan = {row["key"]: row for row in json.loads((slurm / "out" / "plan.json").read_text(encoding="utf-8"))}
    asked = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(slurm.glob("*.json"))]
    assert sorted(one["comment"].rpartition("_")[2] for one in asked) == sorted(plan)  # one run, one job, one key
    for one in asked:
        row = plan[one["comment"].rpartition("_")[2]]
        assert int(one["time"]) == 10 + math.ceil(2 * row["minutes"] / 0.001)
        assert one["mem"] == "6000"
    stages = [row for row in plan.values() if row["kind"] == "stage"]
    assert stages
    assert all(row["minutes"] < plan[row["base"]]["minutes"] for row in stages)


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_the_profiles_plan(place, name):
    """A dry run reads the entire profile: the executor, its settings, and those of the store."""
    said = snakemake(place, f"dry-{name}", "--profile", place / "paper" / "cluster" / "profiles" / name, "--dry-run")
    assert "plan" in said
    assert "results" in said


KUBECTL = """#!/bin/sh
# create: run the container's command here; get: report its final state
case "$3" in
  create) cat > "$PLACE/job.json"
    if sh "$PLACE/job.sh"; then echo succeeded > "$PLACE/ended"; else echo failed > "$PLACE/ended"; fi
    echo job.batch/soi-1 ;;
  get) echo "{\\"status\\": {\\"$(cat "$PLACE/ended")\\": 1}}" ;;
  delete) echo "$@" > "$PLACE/deleted" ;;
esac
"""


def test_a_job_through_kubectl(tmp_path):
    """The Job has the time and memory of the plan; its script runs in this folder, and its final state is reported."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(KUBECTL, encoding="utf-8")
    kubectl.chmod(0o755)
    settings = {"SOI_IMAGE": "python:3.11", "SOI_CLAIM": "soi", "SOI_MOUNT": "/soi", "SOI_CACHE": "/soi/cache"}
    env = os.environ | settings | {"PLACE": str(tmp_path), "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    script = ROOT / "paper" / "cluster" / "profiles" / "kubernetes" / "job.py"

    def job(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, script, *map(str, words)]
        return subprocess.run(call, cwd=tmp_path, env=env | more, capture_output=True, text=True)

    for ending, told in (("touch done", "success"), ("exit 3", "failed")):
        (tmp_path / "job.sh").write_text(ending, encoding="utf-8")
        assert job("submit", 11, 6000, 1, "job.sh").stdout == "job.batch/soi-1\n"
        assert job("status", "job.batch/soi-1").stdout == f"{told}\n"
    assert (tmp_path / "done").exists()
    made = json.loads((tmp_path / "job.json").read_text(encoding="utf-8"))["spec"]
    (container,) = made["template"]["spec"]["containers"]
    assert container["command"] == ["sh", str(tmp_path / "job.sh")]
    assert container["workingDir"] == str(tmp_path)
    assert made["activeDeadlineSeconds"] == 660
    assert container["resources"]["requests"] == {"memory": "6000Mi", "cpu": "1"}
    assert {"name": "SOI_CACHE", "value": "/soi/cache"} in container["env"]
    job("cancel", "job.batch/soi-1")
    assert "job.batch/soi-1" in (tmp_path / "deleted").read_text(encoding="utf-8")
    refused = job("submit", 11, 6000, 1, "job.sh", SOI_CLAIM="")
    assert refused.returncode == 1
    assert "SOI_CLAIM not set" in refused.stderr
