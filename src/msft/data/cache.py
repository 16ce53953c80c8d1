"""A cache on disk for tokenised sub-datasets, keyed by everything that determines them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msft.config.schema import Config
from msft.core.errors import DataError, complaint
from msft.core.paths import cache_home
from msft.core.vocabulary import Task
from msft.data.drafts import Draft
from msft.data.encode import Encoder
from msft.data.examples import Example, Measure, Member, TaskData
from msft.data.mapped import PackedExamples, pack, pack_items, read_items, tupled
from msft.data.sources import Source
from msft.system.files import sha256

CACHE_FROM = 32 * 2**20
"""Minimum total size of all sources, in bytes, to use the cache; smaller data are tokenised in a moment."""
INDEX = "index.json"
PLAIN = ("task", "fingerprint", "ends", "notes", "dataset", "aggregate", "left_out", "without_chat_template")
"""The fields of a sub-dataset that JSON gives back as they are."""


class Cache:
    """One entry: all sub-datasets of a configuration together, as each may lose examples that another validates on.

    The key is the SHA-256 of the sources' content, the settings, the tokenizer, and the code of this package.
    """

    def __init__(self, key: str) -> None:
        self.folder = cache_folder() / key
        self._draft: Draft | None = None

    @classmethod
    def of(cls, config: Config, sources: Sequence[Source], encoder: Encoder) -> Cache | None:
        """The entry of a configuration; None if the data are small, or cannot be read (loading them reports why).

        None also with a user's own scorer, which is not part of the key and whose items contain whole rows.
        """
        if any(source.dataset.scorer is not None and ":" in source.dataset.scorer.name for source in sources):
            return None
        try:
            if sum(source.size for source in sources) < CACHE_FROM:
                return None
            content = [source.identity for source in sources]
        except DataError:
            return None
        # How often an epoch takes an example does not change its tokens.
        settings = [config.data.model_dump_json(exclude={"mixing"})]
        settings += [dataset.model_dump_json(exclude={"repeat"}) for dataset in config.datasets]
        day = str(encoder.chats.day) if encoder.chats.has_clock else ""
        settings += [] if config.aggregate is None else [config.aggregate.model_dump_json()]
        settings += ["refit"] if config.method.refit else []
        parts = [*settings, *content, encoder.chat_template or "", day, _tokenizer(encoder), _code()]
        return cls(hashlib.sha256(json.dumps(parts).encode()).hexdigest())

    def read(self) -> dict[Task, TaskData] | None:
        """The sub-datasets, or None if there is no entry. A damaged entry is removed."""
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
        """Writes examples to the draft of this entry and opens them. Raises DataError if this is not possible."""
        try:
            if self._draft is None:
                self._draft = Draft(self.folder.parent)
            return pack(self._draft.folder, name, examples)
        except OSError as error:
            raise self._no_room(error) from error

    def publish(self, tasks: Mapping[Task, TaskData]) -> dict[Task, TaskData]:
        """Makes the draft the entry, atomically; returns the sub-datasets as read from the entry."""
        assert self._draft is not None
        draft = self._draft.folder
        try:
            entries = []
            for number, data in enumerate(tasks.values()):
                for kind, items in (("validation", data.validation), ("test", data.test)):
                    pack_items(draft, f"{number}.{kind}", items)
                plain = {name: getattr(data, name) for name in PLAIN}
                members = [dataclasses.asdict(member) for member in data.members]
                more = {"members": members, "held": bool(len(data.held_out))}
                entries.append({**plain, "measure": dataclasses.asdict(data.measure), **more})
            index = {"tasks": entries, "files": _digests(draft)}
            (draft / INDEX).write_text(json.dumps(index), encoding="utf-8")
            try:
                draft.rename(self.folder)
            except OSError:  # another process published the same entry first
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
        """Removes the draft unless it was published."""
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
            ends=tuple(entry["ends"]),  # type: ignore[arg-type]
            notes=tuple(entry["notes"]),  # type: ignore[arg-type]
            dataset=str(entry["dataset"]),
            aggregate=bool(entry["aggregate"]),
            left_out=int(str(entry["left_out"])),
            without_chat_template=bool(entry["without_chat_template"]),
            held_out=PackedExamples(self.folder, f"{number}.held") if entry["held"] else (),
            members=tuple(
                Member(**{key: tupled(value) for key, value in member.items()})
                for member in entry["members"]  # type: ignore[attr-defined]
            ),
        )

    def _no_room(self, error: OSError) -> DataError:
        found = f"the cache folder cannot be written ({error.strerror})"
        return DataError(complaint(found, "make room, or set XDG_CACHE_HOME", file=self.folder.parent))


def cache_folder() -> Path:
    """The folder of the entries: `$XDG_CACHE_HOME/msft/data`."""
    return cache_home() / "data"


def _digests(folder: Path) -> dict[str, str]:
    """File name -> SHA-256, of every file except the index."""
    return {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.name != INDEX}


def _tokenizer(encoder: Encoder) -> str:
    """Everything that determines the output of a tokenizer, as text."""
    made = encoder.tokenizer
    fast = getattr(made, "backend_tokenizer", None)
    content = fast.to_str() if fast is not None else json.dumps(made.get_vocab(), sort_keys=True)
    return json.dumps([type(made).__name__, content, made.special_tokens_map, made.eos_token_id], default=str)


def _code() -> str:
    """SHA-256 of the code of this package, so that changed code does not use old entries."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
