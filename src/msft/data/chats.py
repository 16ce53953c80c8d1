"""Conversations -> rendered text, in pieces that are learned or not (design 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from msft.data.borders import Pieces
from msft.data.chat_template import (
    TRIVIAL,
    ChatTemplate,
    ChatTemplateError,
    ChatTemplateRefusal,
    Span,
    beginning,
)
from msft.data.conversations import REASONING, Turn, function_name, is_learned
from msft.data.formats import Sample

ANSWERS: tuple[Turn, ...] = (
    {"role": "assistant", "content": "0"},
    {"role": "assistant", "content": "1"},
    {"role": "assistant", "content": "0", REASONING[0]: "2"},
)
"""Turns that differ in whatever a model writes: what their renderings share is written by the template alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """One training example of a conversation."""

    pieces: Pieces
    turns: tuple[int, ...]
    """Positions of the turns that are learned."""
    unlike: str = ""
    """The end of the generation prompt, where the rendered turn lacks it."""

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)

    @property
    def learned(self) -> str:
        return "".join(text for text, learned in self.pieces if learned)


def renderings(template: ChatTemplate, sample: Sample) -> list[Rendering]:
    """A conversation as training examples, in the order of their last turns; every assistant turn after the first
    `given` turns whose `weight` is not 0 is learned in one of them.

    A turn with which the template cannot end (some want a question first), or of whose calls it writes nothing, is not
    learned.

    - Where the template has `{% generation %}` marks, what they mark is learned.
    - Otherwise a turn is learned as it is rendered when it is the last, which is how the model writes it in use: from
      the end of the generation prompt to the end of the turn. Turns whose renderings are all beginnings of one text
      share an example, if special tokens end them: only the last turn of an example can be followed by an end that the
      template does not write. So most templates that never rewrite earlier turns give one example.

    Raises ChatTemplateError if the template fails, or where a turn begins cannot be told.
    """
    view = _Conversation(template, sample)
    made = _marked(view) if template.marks else _split(view)
    if not any(rendering.learned for rendering in made):
        what = "marks nothing as generated in" if template.marks else "writes nothing of"
        found = f"the chat template of {template.name} {what} the assistant turns"
        raise ChatTemplateError(found, "give a model.chat_template that does")
    return made


def as_item(template: ChatTemplate, sample: Sample) -> Sample:
    """The conversation of which a single example is scored: itself, or only the last turn that is learned where the
    template makes several examples of it."""
    made = renderings(template, sample)
    return sample if len(made) == 1 else _up_to(sample, max(made[-1].turns))


def up_to_last_turn(sample: Sample) -> Sample:
    """A conversation up to its last learned turn, the only one to be scored."""
    return _up_to(sample, max(at for at, turn in enumerate(sample.messages) if is_learned(turn)))


def _up_to(sample: Sample, last: int) -> Sample:
    return replace(sample, messages=sample.messages[: last + 1], given=last)


class _Conversation:
    """The renderings of a conversation and of its beginnings, each made once."""

    def __init__(self, template: ChatTemplate, sample: Sample) -> None:
        self.template, self.sample, self.turns = template, sample, sample.messages
        self.learned = [at for at, turn in enumerate(self.turns) if is_learned(turn) and at >= sample.given]
        self.skips = any(turn["role"] == "assistant" and not is_learned(turn) for turn in self.turns[sample.given :])
        self._done: dict[int, str] = {}
        self._openings: dict[int, tuple[int, str]] = {}

    def rendered(self, turns: Sequence[Turn], *, ask: bool = False) -> str:
        return self.template.render(turns, self.sample.tools, self.sample.variables, ask=ask)

    def marked(self, count: int) -> tuple[str, list[Span]]:
        """The first `count` turns, and what is marked in them."""
        return self.template.marked(self.turns[:count], self.sample.tools, self.sample.variables)

    def done(self, position: int) -> str:
        """The rendering up to and including the turn at `position`."""
        if position not in self._done:
            self._done[position] = self.rendered(self.turns[: position + 1])
        return self._done[position]

    def ends(self, position: int) -> bool:
        """Whether the template ends the turn at `position` with a special token."""
        return self.template.ends(self.done(position))

    def can_end_with(self, position: int) -> bool:
        """Whether the template renders the turn at `position` as the last, with something of what it says."""
        try:
            written = self.done(position)[self.opening(position)[0] :]
        except ChatTemplateRefusal:
            if position == self.learned[-1]:
                raise
            return False
        turn = self.turns[position]
        names = [function_name(call) for call in turn.get("tool_calls", ())]
        return bool(turn["content"].strip()) or not names or any(name in written for name in names)

    def opening(self, position: int) -> tuple[int, str]:
        """Where the learned part of `done(position)` begins, in characters; and the end of the generation prompt that
        is not there. Raises ChatTemplateError if this cannot be told."""
        if position not in self._openings:
            self._openings[position] = self._opening(position)
        return self._openings[position]

    def _opening(self, position: int) -> tuple[int, str]:
        done = self.done(position)
        asked = self._asked(position)
        if asked is not None and done.startswith(asked):
            return len(asked), ""
        header = self._header(position)
        if asked is None:
            # Nothing can be asked before the first turn: the prompt is taken from another conversation.
            at = header.rfind(self._prompt)
            return (at + len(self._prompt) if at >= 0 else len(header)), ""
        shared = beginning([asked, done])
        if len(shared) >= len(header):
            return len(header), asked[len(header) :]
        found = (
            f"the chat template of {self.template.name} does not begin turn {position + 1} as its generation prompt "
            "does, and they differ before the turn's own text"
        )
        raise ChatTemplateError(found, "give a model.chat_template whose generation prompt begins an assistant turn")

    def _asked(self, position: int) -> str | None:
        """The generation prompt of a turn; None if the template has none for the turns before it."""
        if not position:
            return None
        try:
            return self.rendered(self.turns[:position], ask=True)
        except ChatTemplateRefusal:
            return None

    def _header(self, position: int) -> str:
        """The beginning of `done(position)` that does not depend on what the turn says."""
        texts = [self.done(position)]
        for answer in ANSWERS:
            try:
                texts.append(self.rendered([*self.turns[:position], answer]))
            except ChatTemplateRefusal:
                if REASONING[0] not in answer:
                    raise
        return beginning(texts)

    @cached_property
    def _prompt(self) -> str:
        """What the template writes to ask for an answer."""
        asks = TRIVIAL[:1]
        return self.rendered(asks, ask=True).removeprefix(self.rendered(asks))


def _split(view: _Conversation) -> list[Rendering]:
    """Each turn as it is rendered when it is the last; turns that share a text share an example."""
    made: list[Rendering] = []
    whole = view.rendered(view.turns)
    left = [position for position in view.learned if view.can_end_with(position)]
    while left:
        text = view.done(left[-1])
        if not made and whole.startswith(text) and view.ends(left[-1]):
            text = whole
        group: list[int] = []
        end = len(text)
        for position in reversed(left):
            if group and not view.ends(position):
                continue
            if text.startswith(view.done(position)) and len(view.done(position)) <= end:
                group.insert(0, position)
                end = view.opening(position)[0]
        spans = [(view.opening(position)[0], len(view.done(position))) for position in group]
        unlike = next((view.opening(position)[1] for position in group if view.opening(position)[1]), "")
        made.insert(0, Rendering(pieces=_pieces(text, spans), turns=tuple(group), unlike=unlike))
        left = [position for position in left if position not in group]
    return [rendering for rendering in made if rendering.learned]


def _marked(view: _Conversation) -> list[Rendering]:
    """What the template marks. Marks in turns that are not learned do not count."""
    text, spans = view.marked(len(view.turns))
    turns = tuple(view.learned)
    if not view.sample.given and not view.skips:
        return [Rendering(pieces=_pieces(text, spans), turns=turns)]
    start, unlike = view.opening(turns[0])
    if not view.skips and text.startswith(view.done(turns[0])[:start]):
        return [Rendering(pieces=_pieces(text, spans, start), turns=turns, unlike=unlike)]
    if all(text.startswith(view.done(position)) for position in turns):
        within = [(view.opening(position)[0], len(view.done(position))) for position in turns]
        spans = [(max(one[0], two[0]), min(one[1], two[1])) for one in spans for two in within]
        return [Rendering(pieces=_pieces(text, spans), turns=turns, unlike=unlike)]
    made = []
    for position in turns:  # the template writes earlier turns differently when others follow
        text, spans = view.marked(position + 1)
        start, unlike = view.opening(position)
        made.append(Rendering(pieces=_pieces(text, spans, start), turns=(position,), unlike=unlike))
    return [rendering for rendering in made if rendering.learned]


def _pieces(text: str, spans: Sequence[Span], start: int = 0) -> Pieces:
    """The text, of which the spans after `start` are learned."""
    pieces: list[tuple[str, bool]] = []
    at = 0
    for begin, end in sorted(spans):
        begin = max(begin, start, at)
        if begin < end:
            pieces += [(text[at:begin], False), (text[begin:end], True)]
            at = end
    return [(part, learned) for part, learned in [*pieces, (text[at:], False)] if part]
