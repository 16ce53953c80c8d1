"""Exports a finished run: as a plain Hugging Face folder, and to the hub (design 4)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from msft.core.errors import RunError, complaint, in_a_line
from msft.core.paths import absent
from msft.core.wire import Json
from msft.model.adapters import write_merged
from msft.model.folder import IDENTITY, ModelSource, fingerprint
from msft.model.open import end_tokens, export_model, load_model, load_tokenizer
from msft.model.saved_adapter import ADAPTER, ADAPTER_CONFIG, with_adapter
from msft.record.run_folder import RunFolder
from msft.report.card import FILE as CARD
from msft.report.card import card, form_of, on_hub
from msft.report.load_snippets import NOT_BY_AUTO, is_dora
from msft.report.story import Story, read_story
from msft.run.job import model_source
from msft.run.moved import BASE, config_of_model
from msft.run.new_folder import check_output, copied, written_whole
from msft.run.resume import check_journal_is_whole, identity
from msft.snapshots.publish import verify

Dtype: TypeAlias = Literal["float32", "bfloat16", "float16"]

STALE = ["*.safetensors", "*.safetensors.index.json", ADAPTER_CONFIG]
"""Files of an earlier push that would be loaded instead of, or together with, those of this one."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run whose model is to be exported."""

    run: RunFolder
    story: Story
    source: ModelSource
    """The base model, and the settings of the adapter if the run trained one."""

    @classmethod
    def read(cls, run: RunFolder, *, base: str | None = None) -> Finished:
        """Reads a run folder. `base`: where the base of its adapter lies now; None: where it was.

        Raises RunError if the run is not finished, or its final model is missing or damaged.
        """
        story = read_story(run)
        if story.answer is None:
            check_journal_is_whole(run.transcript().records, run, {})  # cut off after the end, it cannot be resumed
            fix = f"let it finish: {_again(run)}"
            raise RunError(complaint("the run is not finished", fix, file=run.path))
        if not run.final.is_dir():
            fix = f"make it again: {_again(run)}"
            raise RunError(complaint("the run holds no final model", fix, file=run.final))
        check_final(run, story.header)
        source = model_source(config_of_model(run))
        found = cls(run, story, source if base is None else replace(source, name_or_path=base))
        if base is not None and not found.is_adapter:
            lacks = "the run trained no adapter: its model is all in final/, and has no base to read"
            raise RunError(complaint(lacks, "leave it out", field=f"--set {BASE}"))
        return found

    @property
    def is_adapter(self) -> bool:
        """Whether `final/` holds only an adapter."""
        return (self.run.final / ADAPTER_CONFIG).exists()

    def model(self, *, whole: bool = False) -> PreTrainedModel | PeftModel:
        """The final model on the CPU, in fp32, with the adapter on its base. Raises ModelError, RunError.

        `whole`: on a base without weights in 4 or 8 bits, which the adapter can be merged into.
        """
        if not self.is_adapter:
            return load_model(_at(self.source, self.run.final))
        base = replace(self.source, peft=None)
        elsewhere = f"name the folder where it lies now: --set {BASE}=FOLDER"
        if base.folder is not None and not base.folder.is_dir():
            found = f"the base of the adapter is gone: {absent(base.folder)}"
            raise RunError(complaint(found, f"restore it, or {elsewhere}", file=self.run.path))
        recorded = self.story.header.get("fingerprints", {}).get("model")
        if recorded is not None and fingerprint(base) != recorded:
            found = "the base model is not the one that the adapter was trained on"
            raise RunError(complaint(found, f"restore its files, or {elsewhere}", file=base.name_or_path))
        return with_adapter(load_model(base, whole=whole), self.run.final)

    def tokenizer(self) -> Any:
        """The tokenizer that the run trained with."""
        return load_tokenizer(self.source if self.is_adapter else _at(self.source, self.run.final))


def check_final(run: RunFolder, header: Json) -> None:
    """Raises RunError if a file of the final model is missing or damaged, or if it is the model of another run.

    Every file is read. The card, which is written again, may be changed. So may files be added from which no model is
    loaded, as some converters do.
    """
    fix = f"make it again: {_again(run)}"
    manifest = verify(run.final, fix=fix, free={CARD}, foreign=lambda name: Path(name).suffix in IDENTITY)
    if manifest.get("run", {}).get("fingerprints") != identity(header, {})["fingerprints"]:
        raise RunError(complaint("the final model is not the one of this run", fix, file=run.final))


def _again(run: RunFolder) -> str:
    return shlex.join(["msft", "train", str(run.path), "--resume"])


def export(
    run: RunFolder,
    output: Path,
    *,
    merge: bool = False,
    dtype: Dtype | None = None,
    hub_id: str | None = None,
    base: str | None = None,
) -> str:
    """Writes the final model of a finished run as a plain Hugging Face folder, completely or not at all.

    Returns what people should know of it; empty if nothing.

    `merge`: merges an adapter into its base (a full model needs no merge); `dtype`: of the weights, None: as in
    `final/`; `hub_id`: the model's name on the hub, for the card; `base`: where the base of the adapter to be merged
    lies now, None: where it was. Raises RunError, ModelError.
    """
    check_output(output)
    if base is not None and not merge:
        found = "the base is read to merge an adapter into it, and not otherwise"
        raise RunError(complaint(found, "add --merge, or leave it out", field=f"--set {BASE}"))
    finished = Finished.read(run, base=base)
    if hub_id is not None and finished.is_adapter and not merge and not _others_have(finished.source):
        found = f"the adapter's base, {finished.source.base}, is not on the hub, where others could load it"
        raise RunError(complaint(found, "push a whole model: add --merge", field="--push-to-hub"))

    def fill(draft: Path) -> None:
        ends = end_tokens(run.final)
        if finished.is_adapter and merge:
            model: Any = finished.model(whole=True)
            tokenizer = finished.tokenizer()
            write_merged(
                model,
                draft,
                lambda merged, folder: export_model(merged, tokenizer, folder, ends),
                dtype=_torch(dtype),
            )
        elif dtype is None:
            copied(run.final, draft)
        elif finished.is_adapter:
            copied(run.final, draft)
            tensors = load_file(draft / ADAPTER)
            save_file({n: t.to(_torch(dtype)) for n, t in tensors.items()}, draft / ADAPTER, metadata={"format": "pt"})
        else:
            model = finished.model()
            export_model(model.to(_torch(dtype)), finished.tokenizer(), draft, ends)
        form = form_of(draft, dtype=dtype or "float32", hub_id=hub_id)
        (draft / CARD).write_text(card(finished.story, form), encoding="utf-8")

    written_whole(output, fill, field="--output")
    if finished.is_adapter and not merge and is_dora(finished.story):
        return f"{NOT_BY_AUTO}."
    if not merge or not finished.is_adapter or (kind := finished.source.quantize) is None:
        return ""
    return (
        "It is the adapter merged into the base as it is stored. The run's scores are those of the adapter on the base "
        f"in {kind} (model.quantize). To score this one: msft eval {output} --config {run.config}"
    )


def check_hub_id(hub_id: str) -> None:
    """Raises RunError unless it can be the name of a repository on the hub."""
    if not on_hub(hub_id):
        fix = "write it as user/name: letters, digits, - _ and ."
        raise RunError(complaint(f"{hub_id!a} is not a valid name of a model on the hub", fix, field="--push-to-hub"))


def push(folder: Path, hub_id: str, *, private: bool) -> str:
    """Uploads an exported folder to a repository on the hub, created if missing; returns its address.

    The same commit removes weights of an earlier push; other files there stay. `private`: refuses to upload to a public
    repository. Raises RunError; the exported folder stays where it is.
    """
    api = HfApi()
    try:
        address = api.create_repo(hub_id, private=private or None, exist_ok=True)
        if private and not api.model_info(address.repo_id).private:  # it existed before, and stays public
            fix = "make it private in its settings, or leave out --private"
            raise RunError(complaint(f"{address} is public", fix, field="--private"))
        api.upload_folder(
            repo_id=address.repo_id, folder_path=folder, delete_patterns=STALE, commit_message="Upload by msft export"
        )
    except RunError:
        raise
    except OfflineModeIsEnabled:
        raise RunError(complaint("hub access is disabled", "unset HF_HUB_OFFLINE", field="--push-to-hub")) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        fix = {
            401: "log in: hf auth login, or set HF_TOKEN",
            403: "use a token that may write there",
        }.get(status, f"try again: hf upload {hub_id} {folder}")
        found = f"the hub answered {status} ({in_a_line(error)})"
        raise RunError(complaint(found, fix, field="--push-to-hub")) from None
    except Exception as error:  # of the underlying libraries: no network, a broken connection, a refused file
        found = f"the upload failed ({in_a_line(error)})"
        raise RunError(complaint(found, f"try again: hf upload {hub_id} {folder}", field="--push-to-hub")) from None
    return str(address)


def _others_have(base: ModelSource) -> bool:
    """Whether a base model can be loaded by name on another machine, and by PEFT, which does not read GGUF."""
    return replace(base, name_or_path=base.base).folder is None and base.gguf_file is None


def _at(source: ModelSource, folder: Path) -> ModelSource:
    """The same model in another folder, as plain safetensors."""
    return replace(source, name_or_path=str(folder.resolve()), gguf_file=None, tokenizer=None, peft=None)


def _torch(dtype: Dtype | None) -> torch.dtype:
    found = getattr(torch, dtype or "float32")
    assert isinstance(found, torch.dtype)
    return found
