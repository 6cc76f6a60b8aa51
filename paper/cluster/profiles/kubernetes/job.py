"""Submit, query and cancel jobs of the grid as Jobs of a Kubernetes cluster, for Snakemake, through kubectl.

Uses only the standard library, since Snakemake calls it with any Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys


def kubectl(*words: str, given: str | None = None) -> str:
    """Return the output of kubectl."""
    command = ["kubectl", "--namespace", os.environ.get("SOI_NAMESPACE", "default"), *words]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout


def manifest(minutes: int, megabytes: int, cores: int, script: str) -> dict:
    """Return the Job that runs `script` once, in this folder, on the shared volume; Snakemake handles retries."""
    lacking = [name for name in ("SOI_IMAGE", "SOI_CLAIM", "SOI_MOUNT") if not os.environ.get(name)]
    if lacking:
        sys.exit(f"error: {', '.join(lacking)} not set. Next: see paper/cluster/profiles/kubernetes/config.yaml")
    size = {"memory": f"{megabytes}Mi", "cpu": str(cores)}
    kept = ("SOI_CACHE", "HF_HUB_OFFLINE", "ACCELERATE_USE_CPU", "PYTHONPATH")
    container = {
        "name": "soi",
        "image": os.environ["SOI_IMAGE"],
        "command": ["sh", script],
        "workingDir": os.getcwd(),
        "env": [{"name": name, "value": os.environ[name]} for name in kept if name in os.environ],
        "resources": {"requests": size, "limits": {"memory": size["memory"]}},
        "volumeMounts": [{"name": "shared", "mountPath": os.environ["SOI_MOUNT"]}],
    }
    pod = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": os.environ["SOI_CLAIM"]}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": "soi-", "labels": {"app": "soi"}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 60 * minutes,
            "ttlSecondsAfterFinished": 86400,
            "template": {"spec": pod},
        },
    }


def main(what: str, *words: str) -> None:
    """Run `submit MINUTES MEGABYTES CORES SCRIPT`, which prints the Job's name, or `status` or `cancel` with names."""
    if what == "submit":
        *sizes, script = words
        job = manifest(*map(int, sizes), script=os.path.abspath(script))
        print(kubectl("create", "--filename", "-", "--output", "name", given=json.dumps(job)).strip())
    elif what == "status":
        now = json.loads(kubectl("get", words[0], "--output", "json")).get("status", {})
        print("success" if now.get("succeeded") else "failed" if now.get("failed") else "running")
    elif what == "cancel":
        kubectl("delete", "--wait=false", *words)
    else:
        sys.exit(f"error: {what!r} is not submit, status or cancel")


if __name__ == "__main__":
    main(*sys.argv[1:])
