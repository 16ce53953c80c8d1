"""`msft check`: the estimate before anything is loaded or written."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from job import make_job

from msft.cli.main import main


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)

    def no_weights(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("msft.model.open._weights", no_weights)
    monkeypatch.setattr("safetensors.safe_open", no_weights)
    return make_job(tmp_path, "msft", ", max_epochs: 2, budget: 1")


def planned(config: Path, capsys: pytest.CaptureFixture[str], *overrides: str) -> dict[str, Any]:
    arguments = [part for override in overrides for part in ("--set", override)]
    before = sorted(config.parent.rglob("*"))
    assert main(["check", str(config), "--json", *arguments]) == 0
    assert sorted(config.parent.rglob("*")) == before, "something was written"
    made: dict[str, Any] = json.loads(capsys.readouterr().out)
    return made


def test_the_numbers(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = planned(config, capsys)
    copy, choice, double = made["parts"]
    assert [part["task"] for part in made["parts"]] == ["copy", "yes no", "double"]
    assert (copy["train"], copy["validation"], copy["test"]) == (24, 8, 8)
    assert (choice["train"], choice["scorer"], double["test"], double["test_error"]) == (24, "choice", 0, None)
    # A byte is a token: "abc0>" and its completion and the end of sequence, of which the latter two are learned.
    assert (copy["mean_tokens"], copy["longest"], copy["trained_share"]) == (7, 7, pytest.approx(2 / 7))
    assert copy["validation_error"] == pytest.approx(0.5 / 8**0.5)
    examples = sum(part["train"] for part in made["parts"])
    assert made["steps_per_epoch"] == -(-examples // 8)
    assert made["ticks_per_epoch"] == 2
    tokens = sum(part["tokens"] for part in made["parts"])
    assert made["flops"]["train"] == pytest.approx(6 * made["counted_parameters"] * made["epochs"] * tokens)
    scored = sum(part["validation_tokens"] for part in made["parts"])
    assert made["scoring_share"] == pytest.approx(2 * scored / tokens)
    assert made["snapshot_bytes"] == 12 * made["parameters"]


def test_what_a_teacher_reads_and_gives_is_counted(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each training example once; at each trained token, a label and the `top` tokens, of eight bytes."""
    plain = planned(config, capsys, "method={name: sft, max_epochs: 2}")
    made = planned(config, capsys, "method={name: self_distil, max_epochs: 2, top: 4}")
    parts = made["parts"]
    tokens = sum(part["tokens"] for part in parts)
    assert made["flops"]["probe"] == pytest.approx(2 * made["counted_parameters"] * tokens)
    assert made["flops"]["train"] == pytest.approx(2 * plain["flops"]["train"])
    trained = sum(part["trained_share"] * part["tokens"] for part in parts)
    assert made["host"]["kept"] - plain["host"]["kept"] == pytest.approx(8 * 5 * trained)


def test_an_adapter_alone_is_kept(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, adapter = planned(config, capsys), planned(config, capsys, "peft={r: 2}")
    assert adapter["snapshot_bytes"] == 12 * adapter["trained_parameters"] < whole["snapshot_bytes"]
    assert adapter["parameters"] == whole["parameters"] + adapter["trained_parameters"]


@pytest.mark.parametrize(
    ("overrides", "warning"),
    [
        ([], "Too few validation items to find peaks reliably: 8 in copy, yes no and double. With 8, an accuracy"),
        (
            ["method={name: ies, max_epochs: 5}"],
            "method.max_epochs: IES leaves out no example before the end of epoch 6",
        ),
        (["method.budget=3"], "method.budget: a roll-out may last 3 epochs"),
        (["method.smooth=9"], "method.smooth: a mean over 9 evaluations is longer than a roll-out"),
        (["training.batch_size=40"], "method.eval_every: an epoch has only 2 steps"),
        (["method.eval_every=0.1"], "scoring is expensive: "),
    ],
)
def test_warnings(config: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], warning: str) -> None:
    if "batch_size" in str(overrides):
        overrides = [*overrides, "method.eval_every=0.25"]
    assert any(warning in found for found in planned(config, capsys, *overrides)["warnings"])


def test_generating_is_counted_to_the_last_token(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = planned(config, capsys)
    speaking = planned(config, capsys, "datasets.copy.scorer={name: generate, max_new_tokens: 50}")
    quiet, copy = silent["parts"][0], speaking["parts"][0]
    # 8 prompts of 5 bytes, and what is said of which the last token is read by nobody.
    assert (quiet["generated_tokens"], copy["generated_tokens"]) == (0, 8 * (5 + 49))
    assert copy["validation_tokens"] == quiet["validation_tokens"] + 8 * 54
    assert copy["test_tokens"] == quiet["test_tokens"] + 8 * 54
    ticks = 1 + speaking["epochs"] * speaking["ticks_per_epoch"]
    more = 2 * speaking["counted_parameters"] * (ticks + 2) * 8 * 54
    assert speaking["flops"]["eval"] - silent["flops"]["eval"] == pytest.approx(more)
    assert any(
        "of them for generation in copy: lower scorer.max_new_tokens)" in found for found in speaking["warnings"]
    )
    assert not any("generating" in found for found in silent["warnings"])


def test_no_warning_without_a_reason(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (few,) = planned(config, capsys, "method.eval_every=1", "method.smooth=1")["warnings"]
    assert few.startswith("Too few validation items")


def test_the_table_is_plain_where_it_is_piped(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(config)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    for word in (
        "sub-dataset",
        "yes no",
        "±17.7",
        "parameters",
        "at most",
        "snapshots",
        "warning: Too few validation items",
    ):
        assert word in out


def test_what_the_trainer_refuses_is_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "model" / "config.json").unlink()
    assert main(["check", str(config)]) == 2
    assert "config.json" in capsys.readouterr().err


def test_a_bound_on_snapshots_is_told_with_what_it_saves(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    free, bounded = planned(config, capsys), planned(config, capsys, "snapshots.max=2")
    assert (bounded["snapshots"], bounded["unbounded_snapshots"]) == (3, free["snapshots"])
    saved = (free["snapshots"] - 3) * free["snapshot_bytes"]
    assert free["disk_bytes"] - bounded["disk_bytes"] == saved > 0
    assert main(["check", str(config), "--set", "snapshots.max=2"]) == 0
    assert (
        f"limited by snapshots.max (a dropped snapshot that is needed is trained again): without it {free['snapshots']}"
        in " ".join(capsys.readouterr().out.split())
    )


@pytest.mark.parametrize(("jobs", "average"), [(1, None), (4, None), (4, 1.0)])
def test_the_memory_of_a_gpu_is_planned_for_each_process(
    config: Path, capsys: pytest.CaptureFixture[str], jobs: int, average: float | None
) -> None:
    overrides = [] if average is None else [f"training.average={average}"]
    sets = [part for override in overrides for part in ("--set", override)]
    assert main(["check", str(config), "--json", "--gpu-memory", "80", "--jobs", str(jobs), *sets]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["precision"] == "mixed" and made["card"]["card"] == 80 * 2**30
    # master, moments, copy, gradient, gradient in bf16, and the mean
    each = 4 + 8 + 2 + 4 + 2 + (0 if average is None else 4)
    assert made["training_bytes"] == made["card"]["training"] == each * made["trained_parameters"]
    assert main(["check", str(config), "--gpu-memory", "80", "--jobs", str(jobs), *sets]) == 0
    said = capsys.readouterr().out
    assert "4 master + 8 moments + 2 copy + 4 gradient + 2 gradient in bf16" in said
    assert ("shared by 4 processes: 20.4 GB each" in said) is (jobs == 4)
    assert "are left for activations" in said


def test_a_gpu_that_is_too_small_is_warned_about(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(config), "--json", "--gpu-memory", "0.0001"]) == 0
    assert any(
        "of the GPU for training: use a smaller model" in w for w in json.loads(capsys.readouterr().out)["warnings"]
    )


def test_an_adapter_at_a_rate_for_full_fine_tuning_is_warned_about(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for rate, peft, warned in (("1e-5", "{r: 2}", True), ("1e-4", "{r: 2}", False), ("1e-5", "null", False)):
        made = planned(config, capsys, f"training.learning_rate={rate}", f"peft={peft}")
        said = [
            warning for warning in made["warnings"] if warning.startswith("training.learning_rate: 1e-05 is a rate")
        ]
        assert bool(said) == warned


def test_a_likelihood_has_no_error_of_an_accuracy(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(config)]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("double")]
    assert "loss" in row and "±" not in row


def test_the_disk_that_a_run_needs_to_begin_is_the_least_that_it_may_need(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msft.cli.job_costs._free_disk", lambda path: 3_000_000)
    (said,) = [warning for warning in planned(config, capsys)["warnings"] if "of disk" in warning]
    assert "MB of disk, but 3 MB are free" in said
    assert "two snapshots, the final model and a reserve of 67.1 MB need 67" in said


def test_much_that_truncation_leaves_out_is_warned_about(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = "".join(json.dumps({"text": "abc " * (28 + n % 4)}) + "\n" for n in range(40))
    (config.parent / "texts.jsonl").write_text(texts)
    text = "datasets=[{id: docs, path: texts.jsonl, validation: {max_samples: 10}}]"
    made = planned(config, capsys, text, "data.max_length=60", "data.leaks=warn")
    lost = made["parts"][0]["left_out_tokens"] / (made["parts"][0]["left_out_tokens"] + made["parts"][0]["tokens"])
    assert 0.4 < lost < 0.6
    assert f"docs: data.max_length: 60 leaves out {lost:.0%} of the training tokens, which" in str(made["warnings"])
    assert "raise data.max_length (the model takes 128), or cut the texts" in str(made["warnings"])
    assert "leaves out" not in str(planned(config, capsys, text, "data.max_length=126", "data.leaks=warn")["warnings"])


def test_sub_datasets_without_the_chat_template_are_named_in_one_line(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*overrides: str) -> str:
        assert main(["check", str(config), *(part for override in overrides for part in ("--set", override))]) == 0
        return capsys.readouterr().out

    assert "chat template" not in shown()
    template = "model.chat_template='{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}'"
    said = "copy: prompts and completions are learned as they stand, without the chat template that the model has."
    assert next(line for line in shown(template).splitlines() if said in line).startswith("chat   ")
    assert planned(config, capsys, template)["parts"][0]["without_chat_template"]


def test_what_train_would_stop_at_is_warned_about(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(output: Path, *more: str) -> str:
        return "\n".join(planned(config, capsys, f"output={output}", *more)["warnings"])

    file, other, held, fresh = (config.parent / name for name in ("file", "other", "held", "fresh"))
    file.write_text("x")
    for folder, name in ((other, "kept.txt"), (held, "journal.jsonl")):
        folder.mkdir()
        (folder / name).write_text("")
    assert f"{file} output: this is not an empty folder. Fix: name another output folder" in said(file)
    assert f"{other} output: this is not an empty folder" in said(other)
    assert f"{held} output: this folder already holds a run. Fix: add --resume" in said(held)
    assert "output:" not in said(fresh)
    tracker = next((name for name in ("wandb", "mlflow", "trackio") if find_spec(name) is None), None)
    if tracker is not None:
        assert f"report_to: the package {tracker} is not installed" in said(fresh, f"training.report_to=[{tracker}]")


def test_the_memory_of_a_split_model_is_that_of_one_process(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for shard in ("false", "true"):
        sets = ["--on", "8x24GiB", "--set", f"training.shard={shard}"]
        assert main(["check", str(config), "--json", *sets]) == 0
        found[shard] = json.loads(capsys.readouterr().out)
        parts = ("weights", "masters", "moments", "gradients", "mean")
        assert found[shard]["training_bytes"] == sum(found[shard]["needs"][part] for part in parts)
    assert 4 * found["true"]["training_bytes"] < found["false"]["training_bytes"]
