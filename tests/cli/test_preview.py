"""`msft preview`: learned tokens marked, special tokens visible, nothing that moves the cursor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from job import make_job
from rich.console import Console

from msft.cli.main import main
from msft.cli.preview import printable


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_job(tmp_path)


def preview(config: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["preview", str(config), *arguments]) == 0
    return capsys.readouterr().out


def test_examples_and_items(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = preview(config, capsys)
    assert "copy  training example 3 of 24, 7 tokens, 2 learned" in out
    assert "training example 4" not in out
    rows = {row["prompt"]: row["completion"] for row in map(json.loads, Path("copy.jsonl").read_text().splitlines())}
    assert any(f"\n{prompt}[[{completion}</s>]]\n" in out for prompt, completion in rows.items())
    assert "yes no  validation item 1 of 8, scored by choice" in out
    options = [line for line in out.splitlines() if line.startswith("  ")]
    assert sorted(options) in (["  right: [[ no]]", "  wrong: [[ yes]]"], ["  right: [[ yes]]", "  wrong: [[ no]]"])
    assert "\x1b" not in out


def test_rows_and_task(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = preview(config, capsys, "--rows", "1", "--task", "double")
    assert out.count("training example") == 1
    assert "copy" not in out
    assert main(["preview", str(config), "--task", "dubble"]) == 2
    assert "--task: there is no sub-dataset 'dubble'. Fix: did you mean 'double'?" in capsys.readouterr().err
    assert main(["preview", str(config), "--task", "nope"]) == 2
    assert capsys.readouterr().err.endswith("Fix: use one of: copy, yes no, double\n")
    with pytest.raises(SystemExit):
        main(["preview", str(config), "--rows", "-1"])


def test_on_a_terminal_learned_tokens_are_coloured(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = lambda **options: Console(force_terminal=True, color_system="standard", **options)  # noqa: E731
    monkeypatch.setattr("msft.cli.preview.new_console", terminal)
    out = preview(config, capsys, "--rows", "1", "--task", "copy")
    assert "[[" not in out
    assert "</s>\x1b[0m" in out
    assert "\x1b[1;32m" in out


def test_conversations_show_their_turns(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"  # noqa: E501
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    Path("copy.jsonl").write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(20)))
    Path("chat.jinja").write_text(chat)
    arguments = ["--set", "model.chat_template=chat.jinja", "--set", "datasets.copy.scorer.name=loss", "--set"]
    out = preview(config, capsys, *arguments, "data.max_length=100", "--task", "copy", "--rows", "1")
    assert "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[[yo<|im_end|>\n]]" in out


def test_control_characters_are_not_printed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are learned, so they are shown, as escapes; what joins letters stays."""
    assert printable("a\x1b[31m\u202eb\tc\r\n") == r"a\x1b[31m\u202eb\tc\r" + "\n"
    assert printable("d\x00\u200b\u200d") == r"d\x00\u200b" + "\u200d"
    rows = [{"prompt": f"\x1b[2J\u202e{i}>", "completion": "a\x07"} for i in range(20)]
    Path("copy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = preview(config, capsys, "--task", "copy")
    assert not {"\x1b", "\u202e", "\x07"} & set(out)
    assert "[2J" in out
