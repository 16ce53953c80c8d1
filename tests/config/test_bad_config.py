"""Configurations that must be refused: one case each, `file:line field: found. Fix: how`."""

from __future__ import annotations

from pathlib import Path

import pytest

from msft.cli.main import main
from msft.config.reader import load

GOOD = """\
model: {name_or_path: some/model}
method: {name: msft, budget: 3}
datasets:
  - id: first
    path: owner/one
  - id: second
    path: owner/two
output: runs/first
"""
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]\n" for n in range(1, 9))
CASES = {
    "tab": ("    path: owner/one", "\tpath: owner/one", ":5", "Fix: indent with spaces, never with tabs"),
    "duplicate key": ("    path: owner/one", "    path: a/b\n    path: c/d", ":6",
                      "the key 'path' appears twice (first on line 5)"),
    "unknown key": ("    path: owner/one", "    path: a/b\n    pth: c", ":6 datasets.0.pth",
                    "unknown key. Fix: did you mean 'path'?"),
    "value for a section": ("    path: owner/one", "    path: a/b\n    validation: half", ":6 datasets.0.validation",
                            "found 'half'. Fix: give a mapping, such as {name: value}"),
    "variable in output": ("output: runs/first", "output: $HOME/none/x", ":8 output", "such as $HOME are not replaced"),
    "variable in a path": ("path: owner/one", "path: '${HOME}/a.jsonl'", ":5 datasets.0.path", "${HOME} are not"),
    "variable of a model": ("some/model", "$HOME/none", ":1 model.name_or_path", "Fix: write the path out (~ is"),
    "unknown section": ("output:", "outputs: x\noutput:", ":8 outputs", "did you mean 'output'?"),
    "alias bomb": ("output:", f"{BOMB}output:", ":8", "more than 100,000 values, with aliases written out"),
    "python object": ("output: runs/first", "output: !!python/object/apply:os.system [ls]", ":8", "found the tag"),
    "negative budget": ("budget: 3", "budget: -1", ":2 method.budget", "budget must be more than 0 epochs, found -1.0"),
    "zero budget": ("budget: 3", "budget: 0", ":2 method.budget", "budget must be more than 0 epochs, found 0.0"),
    "NaN budget": ("budget: 3", "budget: .nan", ":2 method.budget", "found nan. Fix: give a finite number"),
    "infinite budget": ("budget: 3", "budget: .inf", ":2 method.budget", "found inf. Fix: give a finite number"),
    "duplicate id": ("id: second", "id: first", ":6 datasets.1.id", "the id 'first' is taken"),
    "id that differs by case": ("id: second", "id: FIRST", ":6 datasets.1.id", "the same name if case"),
    "id that differs by width": ("id: second", "id: \uff46irst", ":6 datasets.1.id", "the same name if case"),
    "id above": ("id: second", "id: ../x", ":6 datasets.1.id", "found '../x', which cannot name files"),
    "absolute id": ("id: second", "id: /etc/x", ":6 datasets.1.id", "found '/etc/x', which cannot name files"),
    "absolute Windows id": ("id: second", "id: 'C:\\x'", ":6 datasets.1.id", "which cannot name files"),
    "device": ("id: second", "id: CON", ":6 datasets.1.id", "found 'CON', which Windows reserves for a device"),
    "device with an ending": ("id: second", "id: nul.txt", ":6 datasets.1.id", "which Windows reserves for a device"),
    "port": ("id: second", "id: Com1", ":6 datasets.1.id", "which Windows reserves for a device"),
    "long id": ("id: second", f"id: {'x' * 300}", ":6 datasets.1.id", "use at most 100 bytes"),
    "long id in bytes": ("id: second", f"id: {'é' * 51}", ":6 datasets.1.id", "use at most 100 bytes"),
    "right-to-left id": ("id: second", 'id: "a\\u202eb"', ":6 datasets.1.id", "found 'a\\u202eb', which cannot name"),
    "script": ("id: second", "id: <script>", ":6 datasets.1.id", "but Windows does not allow < > in file"),
    "dot at the end": ("id: second", "id: second.", ":6 datasets.1.id", "which ends with a dot"),
    "control character": ("id: second", "id: \x07", "", "not valid YAML"),
    # What scripts and configurations of the Hugging Face libraries hold.
    "epochs of Trainer": ("output:", "training: {num_train_epochs: 3}\noutput:", ":8 training.num_train_epochs",
                          "unknown key. Fix: write method.max_epochs, in epochs"),
    "batch of a device": ("output:", "training: {per_device_train_batch_size: 4}\noutput:",
                          ":8 training.per_device_train_batch_size", "Fix: write training.batch_size, the whole"),
    "accumulation": ("output:", "training: {gradient_accumulation_steps: 4}\noutput:",
                     ":8 training.gradient_accumulation_steps", "Fix: remove it: training.batch_size, the whole"),
    "bf16": ("output:", "training: {bf16: true}\noutput:", ":8 training.bf16", "write model.precision: mixed"),
    "torch_dtype": ("some/model}", "some/model, torch_dtype: bfloat16}", ":1 model.torch_dtype",
                    "write model.precision: mixed"),
    "not deterministic": ("output:", "training: {deterministic: false}\nsnapshots: {max: 3}\noutput:",
                          ":9 snapshots.max", "Fix: leave out training.deterministic, or set snapshots.max: null"),
    "autocast": ("some/model}", "some/model, autocast: bf16}", ":1 model.autocast", "autocast (was bf16)"),
    "4 bits": ("some/model}", "some/model, load_in_4bit: true}", ":1 model.load_in_4bit",
               "Fix: write model.quantize: nf4"),
    "compiled in 4 bits": (
        "some/model}", "some/model, quantize: nf4}\npeft: {r: 2}\ntraining: {torch_compile: true}",
        ":3 training.torch_compile", "Fix: leave out training.torch_compile"),
    "paged": ("output:", "training: {optimizer: paged_adamw_8bit}\noutput:", ":8 training.optimizer",
              "Fix: write adamw_8bit"),
    "schedule-free": ("output:", "training: {optimizer: schedule_free_adamw}\noutput:", ":8 training.optimizer",
                      "with training.average: 1"),
    "4 bits without an adapter": ("some/model}", "some/model, quantize: nf4}", ":1 model.quantize",
                                  "Fix: add an adapter, such as peft: {r: 16}"),
    "attention": ("some/model}", "some/model, attn_implementation: sdpa}", ":1 model.attn_implementation",
                  "Fix: remove it; the model's default is used"),
    "device map": ("some/model}", "some/model, device_map: auto}", ":1 model.device_map", "accelerate launch -m msft"),
    "scheduler": ("output:", "training: {lr_scheduler_type: cosine}\noutput:", ":8 training.lr_scheduler_type",
                  "did you mean 'schedule'?"),
    "steps between evaluations": ("budget: 3", "eval_steps: 50", ":2 method.eval_steps",
                                  "Fix: write method.eval_every, in epochs"),
    "rank": ("output:", "peft: {lora_r: 8}\noutput:", ":8 peft.lora_r", "unknown key. Fix: write r"),
    "data files": ("path: owner/one", "data_files: one.jsonl", ":5 datasets.0.data_files", "Fix: write path: a file"),
    "longest sequence": ("output:", "data: {max_seq_length: 512}\noutput:", ":8 data.max_seq_length",
                         "Fix: write data.max_length, in tokens"),
    "one tracker": ("output:", "training: {report_to: wandb}\noutput:", ":8 training.report_to",
                    "found 'wandb'. Fix: give a list, such as [first, second]"),
    "paths for data sets": ("datasets:", "datasets: one.jsonl\nother:", ":3 datasets",
                            "found 'one.jsonl'. Fix: give a list, such as"),
    "the paper's spelling": ("name: msft", "name: mSFT", ":2 method.name", "did you mean 'msft'?"),
    "metric": ("path: owner/one", "path: owner/one\n    scorer: {name: accuracy}", ":6 datasets.0.scorer.name",
               "choice, exact_match, generate, loss; your own scorer is named module:function"),
    "Jinja": ("path: owner/one", 'path: owner/one\n    template: {prompt: "Q: {{ question }}"}',
              ":6 datasets.0.template.prompt",
              "found '{{ question }}', but no column in single braces. Fix: write {question}: column names go in"),
    "mixing of no kind": ("output:", "data: {mixing: sise}\noutput:", ":8 data.mixing",
                          "found 'sise'. Fix: use one of: size, equal, or {temperature: T} with a T from 1"),
    "mixing by a number": ("output:", "data: {mixing: 2}\noutput:", ":8 data.mixing",
                           "found 2. Fix: use one of: size,"),
    "temperature below 1": ("output:", "data: {mixing: {temperature: 0.5}}\noutput:", ":8 data.mixing",
                            "found {'temperature': 0.5}. Fix: use one of: size, equal, or"),
    "no temperature": ("output:", "data: {mixing: {temperature: .inf}}\noutput:", ":8 data.mixing",
                       "found {'temperature': inf}"),
    "temperature that is true": ("output:", "data: {mixing: {temperature: true}}\noutput:", ":8 data.mixing",
                                 "found {'temperature': True}"),
    "mixing by another key": ("output:", "data: {mixing: {T: 2}}\noutput:", ":8 data.mixing", "found {'T': 2}"),
    "mixing of all": ("output:", "mixing: equal\noutput:", ":8 mixing", "unknown key. Fix: write data.mixing"),
    "weights of data sets": ("path: owner/one", "path: owner/one\n    weight: 2", ":6 datasets.0.weight",
                             "Fix: write repeat: how often an epoch takes each example"),
    "never repeated": ("path: owner/one", "path: owner/one\n    repeat: 0", ":6 datasets.0.repeat",
                       "found 0. Fix: give a number greater than 0"),
    "always repeated": ("path: owner/one", "path: owner/one\n    repeat: 1e9", ":6 datasets.0.repeat",
                        "Fix: give a number less than or equal to 1000"),
    "repeated in vain": ("output:", "    repeat: 2\ndata: {mixing: equal}\noutput:", ":8 datasets.1.repeat",
                         "it has no effect: with data.mixing: equal, an epoch takes as many"),
    "no data sets": ("datasets:", "datasets: []\nother:", ":3 datasets", "found an empty list"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_bad_configuration_is_refused(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, place, message = CASES[case]
    assert old in GOOD
    config = tmp_path / "c.yaml"
    config.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    assert main(["train", str(config)]) == 2
    lines = capsys.readouterr().err.splitlines()
    found = [line for line in lines if f"{config}{place}" in line and message in line]
    assert found, lines
    assert all(". Fix: " in line or "? Fix: " in line for line in lines)
    assert not any("Traceback" in line for line in lines)
    assert max(map(len, lines)) < 400 + len(str(config)), "a line says too much"


@pytest.mark.parametrize("prompt", ["{question}", "f({{x}}) of {question}", "{{{question}}}", "Speak: "])
def test_braces_that_are_meant(prompt: str, tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(GOOD.replace("path: owner/one", f'path: owner/one\n    template: {{prompt: "{prompt}"}}'))
    assert load(config).datasets[0].template.prompt == prompt


def test_the_home_folder_in_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder named ~ is made in the working directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / "c.yaml"
    config.write_text(GOOD)
    assert load(config, ["output=~/runs/x"]).output == str(tmp_path / "runs" / "x")


def test_the_good_one_is_good(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(GOOD)
    assert [dataset.id for dataset in load(config).datasets] == ["first", "second"]
