"""Reported: a trained chat never stopped outside of msft, and scoring stopped at a special token within an answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_models import CHATML, PLAIN, make_model, tokenizer_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from msft.cli.main import main
from msft.data.ends import EndRule, TaskEnds
from msft.data.examples import Example
from msft.record.run_folder import RunFolder
from msft.report.story import read_story

COLOURS = ("red", "blue", "pink", "grey")
CONFIG = """\
model: {{name_or_path: {model}, precision: fp32}}
method: {{name: sft, max_epochs: 24, eval_every: 24, select: last}}
datasets:
  - {{id: d, path: {data}/d.jsonl, validation: {{path: {data}/v.jsonl, max_samples: 8}}, scorer: {scorer}}}{more}
data: {{leaks: warn, max_length: 400}}
training: {{batch_size: 4, learning_rate: 1e-2}}
output: {output}
"""
GENERATE = "{name: generate, max_new_tokens: 30}"


def trained(
    folder: Path, rows: Sequence[dict[str, Any]], words: Any, scorer: str = GENERATE, arguments: Sequence[str] = ()
) -> RunFolder:
    """A run in which a tiny model learns `rows` by heart."""
    make_model(folder / "model", words=words)
    write(folder, rows)
    run = folder / "run"
    text = CONFIG.format(model=folder / "model", data=folder, scorer=scorer, output=run, more="")
    (folder / "config.yaml").write_text(text)
    assert main(["train", str(folder / "config.yaml"), *arguments]) == 0
    return RunFolder(run)


def write(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The rows, to be learned and, the same ones, to be asked."""
    for name in ("d", "v"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def chats() -> list[dict[str, Any]]:
    asked = [(f"Say {colour} {n}", colour) for n in range(3) for colour in COLOURS]
    return [
        {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": said}]}
        for user, said in asked
    ]


def answers(folder: Path, asked: Sequence[Sequence[dict[str, str]]]) -> list[str]:
    """What plain transformers says with the folder's own generation settings, special tokens included."""
    model, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    said = []
    for turns in asked:
        keys = words.apply_chat_template(list(turns), add_generation_prompt=True, return_tensors="pt", return_dict=True)
        tokens = model.generate(**keys, max_new_tokens=30, do_sample=False)[0]
        said.append(str(words.decode(tokens[keys["input_ids"].shape[1] :])))
    return said


def check_that_it_stops(run: RunFolder, template: str, words: Any, rows: Sequence[dict[str, Any]]) -> None:
    """The final model says what it has learned, and stops where the training text of a conversation stopped."""
    rows = rows[:4]
    right = 0
    for row, said in zip(rows, answers(run.final, [row["messages"][:-1] for row in rows]), strict=True):
        *asked, reply = row["messages"]
        begin = words.apply_chat_template(asked, chat_template=template, add_generation_prompt=True, tokenize=False)
        whole = words.apply_chat_template(row["messages"], chat_template=template, tokenize=False)
        learned = whole.removeprefix(begin)
        after = learned[learned.index(reply["content"]) + len(reply["content"]) :].strip()
        assert said.rstrip().endswith(after or words.eos_token), f"{said!r} goes on"
        right += said.startswith(learned.rstrip())
    assert right >= 3, "the model has not learned its answers"


def score(run: RunFolder) -> float:
    """The share of the validation items that the run itself found right at its end."""
    return float((read_story(run).best_known.reports or {})["d"])


@pytest.mark.parametrize(
    ("eos", "template", "listed", "ends"),
    [
        ("<|endoftext|>", CHATML, ("<|im_start|>", "<|im_end|>"), ["<|endoftext|>", "<|im_end|>"]),
        ("<|endoftext|>", CHATML, (), ["<|endoftext|>", "<|im_end|>"]),
        ("</s>", PLAIN, (), ["</s>"]),
        ("<|im_end|>", CHATML, (), ["<|im_end|>"]),
    ],
    ids=["chatml", "special in added_tokens_decoder alone", "no end in the template", "the turn's end is eos"],
)
def test_the_final_model_stops_where_training_taught_it_to(
    tmp_path: Path, eos: str, template: str, listed: tuple[str, ...], ends: list[str]
) -> None:
    words = tokenizer_of(eos=eos, template=template, listed=listed)
    run = trained(tmp_path, chats(), words)
    known = json.loads((run.final / "generation_config.json").read_text())["eos_token_id"]
    assert words.convert_ids_to_tokens(known if isinstance(known, list) else [known]) == ends
    check_that_it_stops(run, template, words, chats())
    assert score(run) == 1


def pairs(end: str = "") -> list[dict[str, Any]]:
    middle = " hm <|im_start|> "
    return [{"prompt": f"Say {c} {n}:", "completion": f"{middle}{c}{end}"} for n in range(3) for c in COLOURS]


@pytest.mark.parametrize("end", ["", "<|endoftext|>", "<|im_end|>\n"])
def test_a_special_token_within_an_answer_ends_nothing(tmp_path: Path, end: str) -> None:
    """However a completion ends: the answers are `hm <|im_start|> red`, and all of it is heard."""
    words = tokenizer_of(eos="<|endoftext|>")
    run = trained(tmp_path, pairs(end), words)
    assert score(run) == 1
    known = json.loads((run.final / "generation_config.json").read_text())["eos_token_id"]
    known = words.convert_ids_to_tokens(known if isinstance(known, list) else [known])
    assert known == ["<|endoftext|>", *(["<|im_end|>"] if "im_end" in end else [])]


@pytest.mark.parametrize("merge", [True, False])
def test_an_adapter_and_its_merged_model_know_the_ends(tmp_path: Path, merge: bool) -> None:
    words = tokenizer_of(eos="<|endoftext|>", template=CHATML)
    arguments = ["--set", "peft={r: 16, lora_alpha: 64, target_modules: all-linear}", "--set", "method.max_epochs=1"]
    run = trained(tmp_path, chats(), words, "{name: loss}", [*arguments, "--set", "method.eval_every=1"])
    out = tmp_path / "out"
    assert main(["export", str(run.path), "--output", str(out), *(["--merge"] if merge else [])]) == 0
    ends = words.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    for folder in (run.final, out):
        assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == ends
    if merge:
        assert AutoModelForCausalLM.from_pretrained(out).generation_config.eos_token_id == ends
    else:  # its base has settings of its own: the card names those beside the adapter
        assert "GenerationConfig.from_pretrained(place)" in (out / "README.md").read_text()


def test_answers_that_go_on_after_another_sub_dataset_s_end_are_told(tmp_path: Path, capsys: Any) -> None:
    words = tokenizer_of(eos="<|endoftext|>", template=CHATML)
    make_model(tmp_path / "model", words=words)
    rows = [{"prompt": row["prompt"], "completion": " hm <|im_end|> so"} for row in pairs()]
    write(tmp_path, rows)
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats()))
    more = f"\n  - {{id: e, path: {tmp_path}/e.jsonl, validation: {{max_samples: 8}}, scorer: {{name: loss}}}}"
    text = CONFIG.format(model=tmp_path / "model", data=tmp_path, scorer=GENERATE, output=tmp_path / "run", more=more)
    (tmp_path / "config.yaml").write_text(text)
    assert main(["check", str(tmp_path / "config.yaml")]) == 0
    said = capsys.readouterr().out
    assert "d: some answers go on after <|im_end|>, where the final model stops" in said
    assert "e: some answers" not in said
    assert "ends at <|endoftext|> (d); <|endoftext|> or <|im_end|> (e)" in said


A, B, END, CALL, EOS, BLANK = (
    tokenizer_of().convert_tokens_to_ids(t) for t in ("a", "b", "<|im_end|>", "<|im_start|>", "</s>", "\u010a")
)


@pytest.mark.parametrize(
    ("spans", "ends"),
    [
        ([[A, END, BLANK]], [END]),
        ([[A, END], [B, EOS]], [END]),  # turns end with one token, conversations with another
        ([[A, END, EOS]], [END]),  # the first of several
        ([[A, CALL, B, END], [B, CALL]], [END, CALL]),  # a last turn ends somewhere, whatever stands within another
        ([[A, CALL, B, EOS]], []),
        ([[A, END], [A, END, B, EOS]], []),  # a channel of an answer ends as earlier turns do
        ([[A, CALL, EOS], [A, CALL, B, EOS]], []),
        ([[A], [B, EOS]], []),
        ([[A]], []),
    ],
)
def test_the_tokens_that_end_what_is_learned(spans: list[list[int]], ends: list[int]) -> None:
    found = TaskEnds(EndRule(tokenizer_of()))
    ids = [token for span in spans for token in (B, CALL, *span)]
    trained = [learned for span in spans for learned in (False, False, *(True for _ in span))]
    found.add(Example(ids=np.array(ids, np.int32), trained=np.array(trained)))
    assert found.found == (EOS, *sorted(ends))
