"""Tokenised sub-datasets that outlive the process, named by all that decides them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msft.config.schema import Config
from msft.core.errors import DataError, complaint
from msft.core.vocabulary import Task
from msft.data.drafts import Draft
from msft.data.encode import Encoder
from msft.data.examples import Example, Measure, TaskData
from msft.data.mapped import PackedExamples, pack, pack_items, read_items, tupled
from msft.data.sources import Source

CACHE_FROM = 32 * 2**20
"""Bytes of all sources from which on they are tokenised into files; what is smaller takes a moment."""
INDEX = "index.json"


class Cache:
    """One entry: all sub-datasets of a configuration, since each may lose examples to another's validation split.

    The key is the SHA-256 of the sources' content, the settings, the tokenizer, and the code of this room.
    """

    def __init__(self, key: str) -> None:
        self.folder = cache_folder() / key
        self._draft: Draft | None = None

    @classmethod
    def of(cls, config: Config, sources: Sequence[Source], encoder: Encoder) -> Cache | None:
        """The entry of a configuration; None where the data are small, or cannot be read, which reading will tell.

        A user's own scorer is no part of the key, and its items hold whole rows: nothing is kept of such a job.
        """
        if any(dataset.scorer is not None and ":" in dataset.scorer.name for dataset in config.datasets):
            return None
        try:
            if sum(source.size for source in sources) < CACHE_FROM:
                return None
            content = [source.identity for source in sources]
        except DataError:
            return None
        settings = [config.data.model_dump_json(), *(dataset.model_dump_json() for dataset in config.datasets)]
        parts = [*settings, *content, encoder.chat_template or "", _tokenizer(encoder), _code()]
        return cls(hashlib.sha256(json.dumps(parts).encode()).hexdigest())

    def read(self) -> dict[Task, TaskData] | None:
        """The sub-datasets, or None where there is no entry. One that is damaged is removed."""
        if not (self.folder / INDEX).is_file():
            return None
        try:
            index = json.loads((self.folder / INDEX).read_text(encoding="utf-8"))
            if index["files"] == _digests(self.folder):
                return {entry["task"]: self._task(number, entry) for number, entry in enumerate(index["tasks"])}
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(self.folder, ignore_errors=True)
        return None

    def pack(self, name: str, examples: Iterable[Example]) -> PackedExamples:
        """The examples, written to the draft of this entry. Raises DataError where there is no room for it."""
        try:
            if self._draft is None:
                self._draft = Draft(self.folder.parent)
            return pack(self._draft.folder, name, examples)
        except OSError as error:
            raise self._no_room(error) from error

    def publish(self, tasks: Mapping[Task, TaskData]) -> dict[Task, TaskData]:
        """Makes the draft the entry, whole or not at all; the sub-datasets as the entry has them."""
        assert self._draft is not None
        draft = self._draft.folder
        try:
            entries = []
            for number, data in enumerate(tasks.values()):
                for kind, items in (("validation", data.validation), ("test", data.test)):
                    pack_items(draft, f"{number}.{kind}", items)
                entry = {"task": data.task, "fingerprint": data.fingerprint, "notes": data.notes}
                entries.append({**entry, "measure": dataclasses.asdict(data.measure)})
            index = {"tasks": entries, "files": _digests(draft)}
            (draft / INDEX).write_text(json.dumps(index), encoding="utf-8")
            try:
                draft.rename(self.folder)
            except OSError:  # another process was first, with the same
                if not (self.folder / INDEX).is_file():
                    raise
                shutil.rmtree(draft)
        except OSError as error:
            raise self._no_room(error) from error
        return {
            data.task: self._task(number, entry)
            for number, (data, entry) in enumerate(zip(tasks.values(), entries, strict=True))
        }

    def discard(self) -> None:
        """Removes the draft, if there is one that was not published."""
        if self._draft is not None:
            shutil.rmtree(self._draft.folder, ignore_errors=True)
            self._draft.close()
            self._draft = None

    def _task(self, number: int, entry: Mapping[str, object]) -> TaskData:
        measure = {key: tupled(value) for key, value in dict(entry["measure"]).items()}  # type: ignore[call-overload]
        return TaskData(
            task=str(entry["task"]),
            train=PackedExamples(self.folder, f"{number}.train"),
            validation=read_items(self.folder, f"{number}.validation"),
            test=read_items(self.folder, f"{number}.test"),
            measure=Measure(**measure),
            fingerprint=str(entry["fingerprint"]),
            notes=tuple(entry["notes"]),  # type: ignore[arg-type]
        )

    def _no_room(self, error: OSError) -> DataError:
        found = f"the cache folder cannot be written ({error.strerror})"
        return DataError(complaint(found, "make room, or set XDG_CACHE_HOME", file=self.folder.parent))


def cache_folder() -> Path:
    """Where the entries lie: `$XDG_CACHE_HOME/msft/data`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "msft" / "data"


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but the index."""
    made = {}
    for file in sorted(folder.iterdir()):
        if file.name != INDEX:
            with file.open("rb") as handle:
                made[file.name] = hashlib.file_digest(handle, "sha256").hexdigest()
    return made


def _tokenizer(encoder: Encoder) -> str:
    """All that decides what a tokenizer does with a text, as text."""
    made = encoder.tokenizer
    fast = getattr(made, "backend_tokenizer", None)
    content = fast.to_str() if fast is not None else json.dumps(made.get_vocab(), sort_keys=True)
    return json.dumps([type(made).__name__, content, made.special_tokens_map, made.eos_token_id], default=str)


def _code() -> str:
    """The code of this room, so that no entry outlives the rules that made it."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
