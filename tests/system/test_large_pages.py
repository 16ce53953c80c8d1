"""Large pages are asked for where Linux gives them on request, and once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from msft.system import large_pages
from msft.system.large_pages import NAME, environment_for


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "enabled"
    monkeypatch.setattr(large_pages, "SETTING", file)
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36")
    return file


@pytest.mark.parametrize(("chosen", "asks"), [("always [madvise] never", True), ("[always] madvise never", False)])
def test_they_are_asked_for_where_linux_gives_them_on_request(setting: Path, chosen: str, asks: bool) -> None:
    setting.write_text(chosen + "\n")
    found = environment_for({"A": "b", NAME: "glibc.malloc.check=3"})
    assert found == ({"A": "b", NAME: "glibc.malloc.check=3:glibc.malloc.hugetlb=1"} if asks else None)


@pytest.mark.parametrize("chosen", ["glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=1"])
def test_a_choice_in_the_environment_stays(setting: Path, chosen: str) -> None:
    """So a process is not started again and again."""
    setting.write_text("always [madvise] never\n")
    assert environment_for({}) == {NAME: "glibc.malloc.hugetlb=1"}
    assert environment_for({NAME: chosen}) is None


def test_another_system_and_another_c_library_are_left_alone(setting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment_for({}) is None, "no such file"
    setting.write_text("always [madvise] never\n")
    for name in ("musl", ""):
        monkeypatch.setattr(os, "confstr", lambda _, name=name: name)
        assert environment_for({}) is None
    monkeypatch.delattr(os, "confstr")
    assert environment_for({}) is None


def test_the_same_process_goes_on_with_the_same_arguments(tmp_path: Path) -> None:
    setting, script = tmp_path / "enabled", tmp_path / "script.py"
    setting.write_text("[madvise]\n")
    script.write_text(
        f"""
import os, sys
from pathlib import Path
from msft.system import large_pages
large_pages.SETTING = Path({str(setting)!r})
os.confstr = lambda name: "glibc 2.36"
large_pages.use_large_pages()
print(os.getpid(), os.environ[{NAME!r}], sys.argv[1:], sys.flags.utf8_mode, sys.prefix)
"""
    )
    environment = {name: value for name, value in os.environ.items() if name != NAME}
    command = [sys.executable, "-X", "utf8", str(script), "train", "a b"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=60)
    assert output.split(maxsplit=2) == [
        str(process.pid), "glibc.malloc.hugetlb=1", f"['train', 'a b'] 1 {sys.prefix}\n",
    ]  # fmt: skip
