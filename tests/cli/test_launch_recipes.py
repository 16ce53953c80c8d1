"""The job files of examples/launch, as far as two "machines" on this one allow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from job import make_job
from ruamel.yaml import YAML

from msft.record.run_folder import RunFolder

RECIPES = Path(__file__).parents[2] / "examples" / "launch"
SRUN = """#!/bin/bash
# Both machines are this one: the command once for each.
shift
for machine in 1 2; do "$@" & done
code=0
for machine in 1 2; do wait -n || code=1; done
exit $code
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> requeued.txt; fi
"""


def cluster(place: Path) -> dict[str, str]:
    """The environment of a job, with commands of a cluster that consists of this machine."""
    commands = place / "bin"
    commands.mkdir()
    torchrun = f'#!/bin/bash\nexec {sys.executable} -m torch.distributed.run "$@"\n'
    python = f'#!/bin/bash\nexec {sys.executable} "$@"\n'
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("torchrun", torchrun), ("python", python)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": str(os.getpid()), "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_NODELIST": "here", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
    }  # fmt: skip


@pytest.mark.campaign
@pytest.mark.cpu("two processes need two cards: these are on the CPU")
def test_a_slurm_job_ends_as_a_whole_and_continues(tmp_path: Path) -> None:
    config = make_job(tmp_path, "msft", ", max_epochs: 4, budget: 2, smooth: 1")
    command = ["bash", str(RECIPES / "slurm.sh"), str(config)]
    environment = cluster(tmp_path)
    job = subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE)
    run = RunFolder(tmp_path / "run")
    deadline = time.monotonic() + 240
    while not run.journal.exists() or len(run.journal.read_text().splitlines()) < 4:
        assert time.monotonic() < deadline and job.poll() is None, "it did not begin"
        time.sleep(0.05)
    trained = subprocess.run(["pgrep", "-f", f"msft train {config}"], capture_output=True, text=True, check=True)
    ranks = [pid for pid in trained.stdout.split() if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    os.kill(int(ranks[-1]), 9)
    assert job.wait(timeout=120) == 1, "the machine that is left ends too"
    assert (tmp_path / "requeued.txt").read_text() == f"requeue {os.getpid()}\n"
    before = len(run.journal.read_text().splitlines())
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=240)
    assert run.summary.exists() and len(run.journal.read_text().splitlines()) > before


def test_a_slurm_job_that_cannot_begin_is_not_queued_again(tmp_path: Path) -> None:
    config = make_job(tmp_path)
    config.write_text(config.read_text().replace("batch_size", "batch"))
    job = subprocess.run(
        ["bash", str(RECIPES / "slurm.sh"), str(config)], cwd=tmp_path, env=cluster(tmp_path), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert job.returncode != 0 and "batch" in job.stderr
    assert not (tmp_path / "requeued.txt").exists()


def test_the_kubernetes_job_starts_what_the_documentation_says() -> None:
    service, job = YAML(typ="safe").load_all((RECIPES / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"], "so that the first pod has the name of the rendezvous"
    script = pod["containers"][0]["args"][0]
    assert f"{job['metadata']['name']}-0.{service['metadata']['name']}:" in script
    assert subprocess.run(["bash", "-n", "-c", script], check=False).returncode == 0
    assert f"--nnodes {job['spec']['completions']} " in script
    assert f"--nproc-per-node {pod['containers'][0]['resources']['limits']['nvidia.com/gpu']} " in script
