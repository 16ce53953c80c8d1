"""Configurations that must be refused: one case each, `file:line field: found. Mend: how`."""

from __future__ import annotations

from pathlib import Path

import pytest

from msft.cli.main import main

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
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"
CASES = {
    "tab": ("    path: owner/one", "\tpath: owner/one", ":5", "Mend: indent with spaces, never with tabs"),
    "duplicate key": ("    path: owner/one", "    path: a/b\n    path: c/d", ":6",
                      "the key 'path' is there twice (first on line 5)"),
    "unknown key": ("    path: owner/one", "    path: a/b\n    pth: c", ":6 datasets.0.pth",
                    "unknown key. Mend: did you mean 'path'?"),
    "value for a section": ("    path: owner/one", "    path: a/b\n    scorer: exact_match", ":6 datasets.0.scorer",
                            "found 'exact_match'. Mend: give a mapping, such as {name: value}"),
    "unknown section": ("output:", "outputs: x\noutput:", ":8 outputs", "did you mean 'output'?"),
    "alias bomb": ("output:", f"{BOMB}output:", ":8", "found the anchor &a. Mend: write the value out"),
    "python object": ("output: runs/first", "output: !!python/object/apply:os.system [ls]", ":8", "found the tag"),
    "negative budget": ("budget: 3", "budget: -1", ":2 method.budget", "budget must be more than 0 epochs, found -1.0"),
    "zero budget": ("budget: 3", "budget: 0", ":2 method.budget", "budget must be more than 0 epochs, found 0.0"),
    "NaN budget": ("budget: 3", "budget: .nan", ":2 method.budget", "found nan. Mend: give a finite number"),
    "infinite budget": ("budget: 3", "budget: .inf", ":2 method.budget", "found inf. Mend: give a finite number"),
    "duplicate id": ("id: second", "id: first", ":6 datasets.1.id", "the id 'first' is taken"),
    "id that differs by case": ("id: second", "id: FIRST", ":6 datasets.1.id", "the same name where case"),
    "id that differs by width": ("id: second", "id: \uff46irst", ":6 datasets.1.id", "the same name where case"),
    "id above": ("id: second", "id: ../x", ":6 datasets.1.id", "found '../x', which cannot name files"),
    "absolute id": ("id: second", "id: /etc/x", ":6 datasets.1.id", "found '/etc/x', which cannot name files"),
    "absolute Windows id": ("id: second", "id: 'C:\\x'", ":6 datasets.1.id", "which cannot name files"),
    "device": ("id: second", "id: CON", ":6 datasets.1.id", "found 'CON', which Windows keeps for a device"),
    "device with an ending": ("id: second", "id: nul.txt", ":6 datasets.1.id", "which Windows keeps for a device"),
    "port": ("id: second", "id: Com1", ":6 datasets.1.id", "which Windows keeps for a device"),
    "long id": ("id: second", f"id: {'x' * 300}", ":6 datasets.1.id", "use at most 100 bytes"),
    "long id in bytes": ("id: second", f"id: {'é' * 51}", ":6 datasets.1.id", "use at most 100 bytes"),
    "right-to-left id": ("id: second", 'id: "a\\u202eb"', ":6 datasets.1.id", "found 'a\\u202eb', which cannot name"),
    "script": ("id: second", "id: <script>", ":6 datasets.1.id", "found '<script>', and < > cannot be in the name"),
    "dot at the end": ("id: second", "id: second.", ":6 datasets.1.id", "which ends with a dot"),
    "control character": ("id: second", "id: \x07", "", "not valid YAML"),
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
    assert all(". Mend: " in line or "? Mend: " in line for line in lines)
    assert not any("Traceback" in line for line in lines)
    assert max(map(len, lines)) < 400 + len(str(config)), "a line says too much"


def test_the_good_one_is_good(tmp_path: Path) -> None:
    from msft.config.reader import load

    config = tmp_path / "c.yaml"
    config.write_text(GOOD)
    assert [dataset.id for dataset in load(config).datasets] == ["first", "second"]
