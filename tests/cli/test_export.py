"""`msft export` and `msft eval`: what is handed over loads anywhere, computes the same, scores what was reported."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_stand_in import PUBLIC, TOKEN, hub_stand_in
from job import make_job
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from msft.cli.main import main
from msft.record.run_folder import RunFolder
from msft.run.hand_over import Finished

WITHOUT = "import sys\nfor name in {names}: sys.modules[name] = None  # importing it fails\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two finished runs of the same job: `full`, and `lora`, whose adapter changes the logits visibly."""
    folder = tmp_path_factory.mktemp("handed over")
    before = Path.cwd()
    os.chdir(folder)
    for name, more in (("full", []), ("lora", ["--set", "peft={r: 4}", "--set", "training.learning_rate=0.3"])):
        config = make_job(folder, "sft", ", max_epochs: 1, select: last", output=name)
        assert main(["train", str(config), *more]) == 0
    yield folder
    os.chdir(before)


def logits(model: Any, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**tokenizer("abc3>b", return_tensors="pt")).logits
    return found.float()


def snippet(folder: Path) -> str:
    """The Python of the card: how its reader loads the model."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def check_snippets(folders: list[Path], without: list[str]) -> None:
    """Runs the snippet of each folder's card in it, in one fresh process in which some libraries cannot be imported."""
    code = WITHOUT.format(names=without) + "import os\n"
    for folder in folders:
        code += f"os.chdir({str(folder)!r})\n{snippet(folder)}\nprint('answered')\n"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("answered") == len(folders)


def test_whole_models_load_and_generate_with_transformers_alone(place: Path) -> None:
    merged = place / "merged too"
    assert main(["export", "lora", "--merge", "--output", str(merged)]) == 0
    check_snippets([place / "full" / "final", merged], without=["msft", "peft", "accelerate"])


def test_adapters_load_and_generate_with_peft_beside_it(place: Path) -> None:
    check_snippets([place / "lora" / "final"], without=["msft"])


def test_a_merged_adapter_has_the_adapters_logits(place: Path) -> None:
    out = place / "merged"
    assert main(["export", "lora", "--merge", "--output", str(out)]) == 0
    tokenizer = AutoTokenizer.from_pretrained(out)
    adapter = AutoPeftModelForCausalLM.from_pretrained(place / "lora" / "final")
    base = AutoModelForCausalLM.from_pretrained(place / "model")
    merged, own = logits(AutoModelForCausalLM.from_pretrained(out), tokenizer), logits(adapter, tokenizer)
    assert (own - logits(base, tokenizer)).abs().max() > 0.1, "the adapter changes nothing that could be compared"
    assert (merged - own).abs().max() < 1e-3


def test_a_dora_adapter_is_read_by_peft_and_its_reader_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where AutoModelForCausalLM of transformers reads it, its magnitudes are those of the base."""
    config = make_job(place, "sft", ", max_epochs: 1, select: last", output="dora")
    dora = ["--set", "peft={r: 4, use_dora: true}", "--set", "training.learning_rate=0.3"]
    assert main(["train", str(config), *dora]) == 0
    told = "# not with AutoModelForCausalLM, which drops the magnitudes of a DoRA adapter\n"
    assert told in capsys.readouterr().out
    for merge in ([], ["--merge"]):
        out = place / f"dora{''.join(merge)}"
        assert main(["export", "dora", *merge, "--output", str(out / "out")]) == 0
        for said in (capsys.readouterr().out, (out / "out" / "README.md").read_text()):
            assert ("drops the magnitudes of a DoRA adapter" in said) == (not merge)
    tokenizer = AutoTokenizer.from_pretrained(place / "dora" / "final")
    own = logits(Finished.read(RunFolder(place / "dora")).model(), tokenizer)
    for folder in ("dora/final", "dora/out"):
        assert torch.equal(logits(AutoPeftModelForCausalLM.from_pretrained(place / folder), tokenizer), own)
    merged = logits(AutoModelForCausalLM.from_pretrained(place / "dora--merge" / "out"), tokenizer)
    assert (merged - own).abs().max() < 1e-3
    assert (logits(AutoModelForCausalLM.from_pretrained(place / "model"), tokenizer) - own).abs().max() > 0.1
    check_snippets([place / "dora" / "final"], without=["msft"])
    auto = logits(AutoModelForCausalLM.from_pretrained(place / "dora" / "final"), tokenizer)
    assert (auto - own).abs().max() > 0.01, "transformers reads it now: the warnings can go"


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("run", ["full", "lora"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_written_in_the_type_that_was_asked_for(place: Path, run: str, dtype: str, merge: bool) -> None:
    out = place / f"{run}-{dtype}-{merge}"
    assert main(["export", run, "--dtype", dtype, "--output", str(out), *(["--merge"] if merge else [])]) == 0
    adapter = run == "lora" and not merge
    weights = load_file(out / ("adapter_model.safetensors" if adapter else "model.safetensors"))
    assert {tensor.dtype for tensor in weights.values()} == {getattr(torch, dtype)}
    if not adapter:
        assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    assert f"The weights are in {dtype}." in (out / "README.md").read_text()


def test_a_whole_export_has_what_vllm_and_llama_cpp_read(place: Path) -> None:
    """config.json with the architecture, safetensors whose header is the format's, the tokenizer as files."""
    out = place / "for others"
    assert main(["export", "full", "--output", str(out)]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["model_type"] == "llama"
    names = set(load_file(out / "model.safetensors"))
    assert {"model.embed_tokens.weight", "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"} <= names
    assert json.loads((out / "tokenizer.json").read_text())["model"]
    assert json.loads((out / "tokenizer_config.json").read_text())["tokenizer_class"]
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"]


def test_the_template_and_the_end_that_were_trained_are_handed_over(place: Path) -> None:
    """A chat template from the configuration goes with the tokenizer; generation ends at the tokenizer's end."""
    settings = place / "model" / "generation_config.json"
    before = settings.read_text()
    settings.write_text(json.dumps({"eos_token_id": 5, "temperature": 0.6}))  # flawed, as published ones are
    try:
        template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        config = make_job(place, "sft", ", max_epochs: 0.5", output="chat")
        assert main(["train", str(config), "--set", f"model.chat_template={json.dumps(template)}"]) == 0
    finally:
        settings.write_text(before)
    tokenizer = AutoTokenizer.from_pretrained(place / "chat" / "final")
    assert tokenizer.chat_template == template
    assert "apply_chat_template" not in snippet(place / "chat" / "final"), "its rows were plain prompts"
    written = json.loads((place / "chat" / "final" / "generation_config.json").read_text())
    assert written["eos_token_id"] == [tokenizer.eos_token_id, 5]
    assert written["temperature"] == 0.6


def test_nothing_is_overwritten_and_nothing_is_left_half_written(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = place / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    assert main(["export", "full", "--output", str(taken)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in taken.iterdir()] == ["notes.txt"]
    generation = place / "model" / "generation_config.json"
    before = generation.read_text()
    generation.write_text(before + " ")
    try:
        assert main(["export", "lora", "--merge", "--output", str(place / "other base")]) == 2
    finally:
        generation.write_text(before)
    assert "not the one that the adapter was trained on" in capsys.readouterr().err
    assert main(["export", "nowhere"]) == 2
    assert not list(place.glob("*other base*"))


@pytest.mark.parametrize("options", [[], ["--dtype", "bfloat16"], ["--merge"]])
def test_a_model_that_the_disk_does_not_take_is_answered_with_why(place: Path, options: list[str]) -> None:
    run = "lora" if "--merge" in options else "full"
    before = sorted(place.iterdir())
    command = shlex.join([sys.executable, "-m", "msft", "export", run, "--output", "big", *options])
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 4; {command}"], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert re.search(r"the model cannot be written \(.*File too large.*\)\. Fix: check", done.stderr)
    assert sorted(place.iterdir()) == before


def test_a_run_that_is_not_finished_is_not_exported(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = place / "cut"
    cut.mkdir()
    for name in ("journal.jsonl", "config.yaml"):
        content = (place / "full" / name).read_bytes()
        (cut / name).write_bytes(content if name != "journal.jsonl" else b"".join(content.splitlines(True)[:-1]))
    assert main(["export", "cut"]) == 2
    assert "the run is not finished" in capsys.readouterr().err
    shutil.copytree(place / "full" / "final", cut / "final")
    assert main(["export", "cut"]) == 2
    said = capsys.readouterr().err
    assert re.search(
        r"journal.jsonl: it holds \d+ records, and cut/final/MANIFEST.json was .* Fix: restore the j", said
    )


PUSHES = """
import os, sys
from msft.cli.main import main

refused, public = ("refused", "another", "someone/tiny"), ("public", {token!r}, {public!r})
for out, token, name in (refused, public, ("pushed", {token!r}, "someone/tiny")):
    os.environ["HF_TOKEN"] = token
    code = main(["export", "full", "--output", out, "--push-to-hub", name, "--private"])
    print(out, "ended with", code)
    print(out, "ended with", code, file=sys.stderr)
"""


def test_a_push_fills_the_hub_and_a_refused_one_keeps_the_export(place: Path) -> None:
    """In a process of its own: the hub's address is read when huggingface_hub is imported."""
    with hub_stand_in() as hub:
        hub.files = {"old.safetensors": b"of an earlier push", "figure.png": b"the user's own"}
        environment = {
            **os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", PUSHES.format(token=TOKEN, public=PUBLIC)],
            cwd=place, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert "refused ended with 2" in done.stdout
    assert "public ended with 2" in done.stdout
    assert f"{PUBLIC} is public" in done.stderr
    assert not any(f"{PUBLIC}/commit" in asked for asked in hub.asked)
    assert "pushed ended with 0" in done.stdout, done.stderr
    refusal = done.stderr.partition("refused ended")[0]
    assert "Traceback" not in refusal
    assert "401" in refusal
    assert "hf auth login" in refusal
    assert (place / "refused" / "model.safetensors").exists()
    assert hub.created["name"] == "tiny"
    assert hub.created["visibility"] == "private"
    local = {path.name: path.read_bytes() for path in (place / "pushed").iterdir()}
    assert hub.files == {**local, "figure.png": b"the user's own"}
    assert hub.stored_large == {"model.safetensors"}
    assert 'place = "someone/tiny"' in local["README.md"].decode()
    assert f"{hub.url}/someone/tiny" in done.stdout


def test_a_name_that_the_hub_refuses_and_a_hub_that_is_off_are_answered(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "full", "--output", str(place / "unnamed"), "--push-to-hub", "a/b/c"]) == 2
    assert "--push-to-hub" in capsys.readouterr().err
    assert not (place / "unnamed").exists()
    assert main(["export", "full", "--output", str(place / "offline"), "--push-to-hub", "someone/tiny"]) == 2
    assert "unset HF_HUB_OFFLINE" in capsys.readouterr().err


def test_an_adapter_that_nobody_else_could_load_is_not_pushed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "lora", "--output", str(place / "alone"), "--push-to-hub", "someone/tiny"]) == 2
    assert "add --merge" in capsys.readouterr().err
    assert not (place / "alone").exists()


def scored(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    assert main(["eval", *arguments, "--json"]) == 0
    shown = capsys.readouterr()
    found: dict[str, Any] = json.loads(shown.out)
    return found, shown.err


@pytest.mark.parametrize("run", ["full", "lora"])
def test_eval_of_a_run_gives_the_runs_own_scores(place: Path, run: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same model, items and arithmetic as in the run; a checkpoint written and read again changes no bit."""
    summary = json.loads((place / run / "summary.json").read_text())
    validation, said = scored(capsys, run)
    assert {task: entry["report"] for task, entry in validation["scores"].items()} == summary["validation"]
    assert validation["macro"] == pytest.approx(summary["macro"]["validation"]["answer"])
    assert "warning" not in said
    test, said = scored(capsys, run, "--split", "test")
    assert {task: entry["report"] for task, entry in test["scores"].items()} == summary["test"]["answer"]
    assert test["left_out"] == ["double"]
    assert "too optimistic: choose on validation" in said


def test_eval_of_a_folder_takes_the_configuration_that_it_is_given(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_run, _ = scored(capsys, "lora")
    of_adapter, _ = scored(capsys, "lora/final", "--config", "lora/config.yaml")
    assert of_adapter["scores"] == of_run["scores"]
    of_base, _ = scored(capsys, "model", "--config", "full/config.yaml", "--set", "datasets.copy.scorer={name: loss}")
    base = RunFolder(place / "full").transcript().brief.base.reports
    assert of_base["scores"]["yes no"]["report"] == base["yes no"]
    assert of_base["scores"]["copy"]["measure"] == "loss"
    capsys.readouterr()
    assert main(["eval", "full"]) == 0
    table = capsys.readouterr().out
    assert "accuracy" in table
    assert "30.6 to 86.3" in table or " to " in table
    assert main(["eval", "model"]) == 2
    assert "--config" in capsys.readouterr().err
    assert main(["eval", "./nowhere", "--config", "full/config.yaml"]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_data_that_changed_after_the_run_are_not_scored_as_its_own(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The splits are drawn of what is there, so that validation items would be rows that were trained on."""
    assert main(["eval", "full", "--split", "validation"]) == 0
    file = place / "copy.jsonl"
    before = file.read_text()
    try:
        file.write_text('{"prompt": "new>", "completion": "n"}\n' + before)
        capsys.readouterr()
        assert main(["eval", "full", "--split", "validation"]) == 2
        said = capsys.readouterr()
        assert "the data of copy are not those of the run" in said.err and not said.out
        # Whoever names data scores them, and is told.
        config = str(place / "full" / "config.yaml")
        assert main(["eval", "full", "--split", "validation", "--config", config]) == 0
        assert "warning: the data of copy are not those of the run" in capsys.readouterr().err
    finally:
        file.write_text(before)
