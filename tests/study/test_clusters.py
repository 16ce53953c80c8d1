"""Runs of a study on a cluster: a lost process's runs resume elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from job import make_job

from msft.cli.main import main
from msft.core.errors import ConfigError, RunError
from msft.study import clusters
from msft.study.clusters import ATTEMPTS, Backend, Elsewhere, LostError, Site, site_of
from msft.study.worker import nothing

SOURCE = Path(__file__).parents[2] / "src"


class Fragile:
    """A cluster of one process, which is lost the first few times."""

    gpus = 0.5

    def __init__(self, losses: int) -> None:
        self.losses, self.closed = losses, False

    def call(self, do: Callable[..., Any], *arguments: Any) -> Any:
        if self.losses:
            self.losses -= 1
            raise LostError("its machine was switched off")
        return do(*arguments)

    def close(self) -> None:
        self.closed = True


def site(folder: Path) -> Site:
    return site_of(Fragile(0), folder / "workers", torch.get_num_threads(), nothing)


def test_a_call_whose_process_is_lost_is_made_again(tmp_path: Path) -> None:
    cluster = Fragile(ATTEMPTS - 1)
    with Elsewhere(cluster, site(tmp_path), 2) as executor:
        assert executor.submit(max, 3, 5).result() == 5
    assert cluster.closed


def test_a_call_that_is_lost_each_time_is_an_error(tmp_path: Path) -> None:
    said = rf"lost its process {ATTEMPTS} times \(its machine was switched off\)"
    with Elsewhere(Fragile(99), site(tmp_path), 1) as executor, pytest.raises(RunError, match=said):
        executor.submit(max, 3, 5).result()


def test_half_a_gpu_for_each_run_is_half_of_its_memory(tmp_path: Path) -> None:
    assert site(tmp_path).sharing == 2


def test_a_machine_without_the_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="keep study, model and data on a disk that all machines share"):
        clusters.there(site(tmp_path / "elsewhere"), max, (3, 5))


@pytest.mark.parametrize("where", ["ray", "slurm"])
def test_what_is_missing_is_named(where: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, {"ray": "ray", "slurm": "submitit"}[where], None)
    with pytest.raises(ConfigError, match=rf"pip install 'msft\[{where}\]'"):
        clusters.cluster(Backend(where=where), tmp_path)


class Submitit:
    """What is asked of the package, which refuses some parameters as it does."""

    class AutoExecutor:
        def __init__(self, **_: Any) -> None: ...

        def update_parameters(self, **asked: Any) -> None:
            Submitit.asked = asked
            if "slurm_partion" in asked:
                raise NameError("Unknown argument 'partion' for executor 'slurm'\nand thirty lines more")
            assert isinstance(asked.get("timeout_min", 1), int), 'Parameter "timeout_min" expected type int'

    asked: ClassVar[dict[str, Any]]


def slurm(monkeypatch: pytest.MonkeyPatch, folder: Path, **options: str) -> dict[str, Any]:
    """The parameters that jobs of SLURM are given."""
    monkeypatch.setitem(sys.modules, "submitit", Submitit)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    clusters.cluster(Backend(where="slurm", cpus=2, options=options), folder)
    return Submitit.asked


def test_an_option_replaces_what_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = slurm(monkeypatch, tmp_path, gpus_per_node="2", slurm_partition="gpu")
    assert asked == {"cpus_per_task": 2, "gpus_per_node": 2, "name": "msft", "slurm_partition": "gpu"}


@pytest.mark.parametrize(
    ("option", "said"),
    [({"slurm_partion": "gpu"}, "Unknown argument 'partion'"), ({"timeout_min": "1h"}, '"timeout_min" expected type')],
)
def test_an_option_that_submitit_refuses_is_named(
    option: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"^--backend-option: \w+: .*{said}.* Fix: ") as raised:
        slurm(monkeypatch, tmp_path, **option)
    assert "thirty lines more" not in str(raised.value)


def test_a_study_that_the_cluster_refuses_leaves_no_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It left a study of no run."""
    monkeypatch.setitem(sys.modules, "submitit", Submitit)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    study = tmp_path / "study"
    command = ["compare", str(make_job(tmp_path, "msft", ", max_epochs: 1")), "--methods", "sft", "--seeds", "1"]
    refused = ["--backend", "slurm", "--backend-option", "slurm_partion=gpu"]
    assert main([*command, *refused, "--output", str(study)]) == 2
    assert "Unknown argument 'partion'" in capsys.readouterr().err
    assert not list(study.glob("*.json"))
    assert main([*command, "--output", str(study)]) == 0


def ended(folder: Path) -> int:
    return len(list(folder.glob("runs/*/*/summary.json")))


@pytest.mark.campaign
def test_a_comparison_on_ray_survives_the_loss_of_a_worker_and_of_the_driver(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    config = make_job(tmp_path, "msft", ", max_epochs: 6, budget: 2, smooth: 1")
    command = [
        sys.executable, "-m", "msft", "compare", str(config), "--methods", "sft,msft,one_pass", "--seeds", "2",
        "--jobs", "2", "--backend", "ray", "--output", str(tmp_path / "study"),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, stderr=subprocess.PIPE)

    def until(done: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
        end = time.monotonic() + 240
        while not done():
            assert time.monotonic() < end and driver.poll() is None, driver.stderr and driver.stderr.read()
            time.sleep(0.05)

    journals = (tmp_path / "study").glob
    driver = start()
    until(lambda: any(f.stat().st_size > 9_000 for f in journals("runs/*/*/journal.jsonl")), driver)
    workers = subprocess.run(["pgrep", "-f", "ray::there"], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(workers[0]), signal.SIGKILL)
    until(lambda: ended(tmp_path / "study") >= 2, driver)
    driver.kill()
    driver.wait()
    again = start()
    assert again.wait(timeout=300) == 0, again.stderr and again.stderr.read()
    assert ended(tmp_path / "study") == 6
    assert main([*command[3:-4], "--output", str(tmp_path / "here")]) == 0
    for file in (tmp_path / "here").glob("runs/*/*/journal.jsonl"):
        same = tmp_path / "study" / file.relative_to(tmp_path / "here")
        assert same.read_text() == file.read_text(), "the same bits, wherever they ran"


@pytest.mark.campaign
def test_runs_are_jobs_of_submitit(tmp_path: Path) -> None:
    """Its own kind of cluster for a machine without SLURM stands for it."""
    pytest.importorskip("submitit")
    made = clusters._Slurm(Backend(where="slurm", options={"timeout_min": "5"}), tmp_path / "jobs", "local")
    with Elsewhere(made, site(tmp_path), 2) as executor:
        assert executor.submit(max, 3, 5).result() == 5
        with pytest.raises(RunError, match="integer division"):
            executor.submit(divmod, 3, 0).result()
