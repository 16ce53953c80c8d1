"""The wrapped model: maps a micro-batch to the loss at each trained position (design 2.3), or a continuation to the
next token of each row."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint
from msft.forward.batches import Continuation, MicroBatch, NextTokens, Predicted, TokenScores
from msft.model.cross_entropy import likeliest, lost_to_rounding, most_likely, own_nll, token_nll
from msft.model.head import LOGITS, FusedHead
from msft.model.model_parts import base_of, vocabulary_of


@dataclass(slots=True)
class _Pass:
    """One forward pass, for the hooks."""

    batch: MicroBatch | Continuation
    states: Tensor | None = None
    """The hidden states at the head that predict a target."""
    held_back: bool = False
    """Whether the head got no rows, because its logits are computed from the states elsewhere."""


class TokenLoss(nn.Module):
    """Per-token negative log-likelihood at the trained positions only.

    The logits of a whole micro-batch would take more memory than all else. A hook passes only the positions that
    predict a target to the output head, so that whatever the model does to its logits afterwards (scaling,
    soft-capping) still happens. Where `probe` finds that it does nothing, a plain head can be fused with the loss
    (`model/head.py`); without fusion, the logits of many positions are computed in parts, and recomputed in the
    backward pass. Raises ModelError where the model has no such head.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        self.model = model
        self._pass: _Pass | None = None
        """The forward pass in progress; the hooks do nothing outside of one."""
        base: Any = base_of(model)
        head = base.get_output_embeddings()
        if not isinstance(head, nn.Module):
            raise _no_head(base, "it has no output embeddings")
        head.register_forward_pre_hook(self._keep_predicting)
        self._base = base
        self._vocabulary: int = vocabulary_of(base)
        self.ends_with_head = False
        """Whether the model returns its head's output unchanged. Set by `probe`."""
        self.fused: FusedHead | None = None
        """The head and its loss as one operation. Set by `msft.model.lighten`, which probes it."""
        self.narrow = False
        """Whether the last layer's MLP skips tokens that predict nothing, as their outputs are not used. Set by
        `msft.model.lighten`, which probes it."""
        self.narrows = (last := _last_mlp(base)) is not None
        if last is not None:
            last.register_forward_pre_hook(self._only_read)
            last.register_forward_hook(self._spread)
        self.records_steps = True
        """Whether steps of generation are recorded on a GPU: until one could not be."""
        self._takes_positions = "position_ids" in inspect.signature(base.forward).parameters

    @property
    def head(self) -> nn.Module:
        """The output head."""
        head: nn.Module = self._base.get_output_embeddings()
        return head

    @property
    def embedding(self) -> nn.Module:
        """The embedding of the input tokens."""
        found: nn.Module = self._base.get_input_embeddings()
        return found

    @property
    def checkpoints(self) -> bool:
        """Whether layers are recomputed in the backward pass (gradient checkpointing)."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.model.modules())

    def forward(self, batch: MicroBatch | Continuation) -> TokenScores | NextTokens | Predicted:
        """Returns nats per target in fp32, row by row, and, if `batch.hits`, whether each target was the arg-max.

        With `batch.top`, returns the most likely tokens instead; for a continuation, that of each row.
        """
        if isinstance(batch, Continuation):
            return self._next(batch)
        logits, states = self._read(batch)
        if batch.top:
            return self._predicted(logits, states, batch)
        if logits is None:
            return self._in_parts(states, batch) if self.fused is None else self.fused(states, batch)
        hits = self.most_likely(logits, states)[batch.rows] == batch.targets if batch.hits else None
        nll = own_nll(logits, batch.targets) if batch.width else token_nll(logits, batch.rows, batch.targets)
        return TokenScores(nll, hits, self._lost(logits, states, batch.rows, batch.targets) if batch.exact else None)

    def probe(self, batch: MicroBatch) -> None:
        """Sets `ends_with_head`, whether the model returns its head's output unchanged, from one forward pass."""
        self.ends_with_head = False
        outputs: list[tuple[Tensor, Tensor]] = []
        logits: list[Tensor] = []
        hooks = [
            self.head.register_forward_hook(lambda head, inputs, output: outputs.append((output, output.clone()))),
            self.model.register_forward_hook(lambda model, inputs, output: logits.append(output.logits)),
        ]
        try:
            self(batch)  # and not the model alone, whose weights may have to be gathered first
        finally:
            for hook in hooks:
                hook.remove()
        # The same tensor with the same numbers: a model may change its logits in place.
        self.ends_with_head = any(logits[0] is output and torch.equal(output, was) for output, was in outputs)

    def _read(self, batch: MicroBatch) -> tuple[Tensor | None, Tensor]:
        """[rows, vocabulary] logits and the [rows, width] hidden states that they come from.

        The logits are None where they are to be computed from the states.
        """
        going = _Pass(batch)
        logits = self._call(going)
        if going.held_back and going.states is not None:
            return None, going.states
        if going.states is None or logits.shape[:2] != (1, len(batch.read)):
            raise _no_head(self.model, "its head does not get the hidden states of every position")
        return logits[0], going.states

    def _call(self, going: _Pass) -> Tensor:
        """The model's logits for a micro-batch."""
        batch = going.batch
        assert isinstance(batch, MicroBatch)
        keywords: dict[str, Any] = {} if batch.positions is None else {"position_ids": batch.positions}
        if batch.spans:
            keywords["msft_spans"] = batch.spans
        if batch.lengths is not None:
            keywords["msft_lengths"] = batch.lengths
        self._pass = going
        try:
            output = self.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, **keywords)
        finally:
            self._pass = None
        logits: Tensor = output.logits
        return logits

    def _in_parts(self, hidden: Tensor, batch: MicroBatch) -> TokenScores:
        """The scores from [rows, width] hidden states, without holding the logits of all rows at once."""
        size = max(1, LOGITS // self._vocabulary)
        if batch.width:
            return self._own_in_parts(hidden, batch, size)
        order, nll, best, lost = [], [], [], []
        for first, states in zip(range(0, len(hidden), size), torch.split(hidden, size), strict=True):
            here = ((batch.rows >= first) & (batch.rows < first + size)).nonzero()[:, 0]

            def part(states: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
                logits = self.head(states)
                best = self.most_likely(logits, states) if batch.hits else None
                lost = self._lost(logits, states, rows, targets) if batch.exact else None
                return token_nll(logits, rows, targets), best, lost

            given = states, batch.rows[here] - first, batch.targets[here]
            found = checkpoint(part, *given, use_reentrant=False, preserve_rng_state=False)
            order.append(here)
            nll.append(found[0])
            best.append(found[1])
            lost.append(found[2])
        back = torch.cat(order).argsort()
        hits = torch.cat(best)[batch.rows] == batch.targets if batch.hits else None
        return TokenScores(torch.cat(nll)[back], hits, torch.cat(lost)[back] if batch.exact else None)

    def _own_in_parts(self, hidden: Tensor, batch: MicroBatch, size: int) -> TokenScores:
        """As `_in_parts` where each row predicts as many targets: no shape depends on them."""

        def part(states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
            logits = self.head(states)
            best = self.most_likely(logits, states) if batch.hits else None
            rows = torch.arange(len(targets), device=targets.device) // batch.width
            lost = self._lost(logits, states, rows, targets) if batch.exact else None
            return own_nll(logits, targets), best, lost

        pieces = zip(torch.split(hidden, size), torch.split(batch.targets, size * batch.width), strict=True)
        found = [checkpoint(part, *each, use_reentrant=False, preserve_rng_state=False) for each in pieces]
        hits = torch.cat([best for _, best, _ in found])[batch.rows] == batch.targets if batch.hits else None
        lost = torch.cat([lost for _, _, lost in found]) if batch.exact else None
        return TokenScores(torch.cat([nll for nll, _, _ in found]), hits, lost)

    @torch.no_grad()
    def _predicted(self, logits: Tensor | None, states: Tensor, batch: MicroBatch) -> Predicted:
        """The most likely tokens, from the logits or, where there are none yet, from the states."""
        count = min(batch.top, self._vocabulary)
        size = max(1, LOGITS // self._vocabulary)
        parts = (self.head(part) for part in torch.split(states, size)) if logits is None else [logits]
        tokens, odds = map(torch.cat, zip(*(likeliest(part, count) for part in parts), strict=True))
        return Predicted(tokens[batch.rows], odds[batch.rows])

    @torch.no_grad()
    def most_likely(self, logits: Tensor, states: Tensor) -> Tensor:
        """[rows] tokens, from [rows, vocabulary] logits and the [rows, width] hidden states that they come from."""
        with torch.autocast(states.device.type, enabled=False):
            return most_likely(logits, states, self._product)

    @torch.no_grad()
    def _lost(self, logits: Tensor, states: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        """[targets] what rounding took from their logits; 0 for fp32, and where logits are no plain product."""
        rounded, weight = logits[rows, targets], self._product
        if weight is None or logits.dtype == torch.float32 or not self.ends_with_head:
            return torch.zeros_like(rounded, dtype=torch.float32)
        with torch.autocast(states.device.type, enabled=False):
            return lost_to_rounding(rounded, states, weight, rows, targets)

    @property
    def _product(self) -> Tensor | None:
        """The head's weight, if the head is a plain product with it."""
        head = self.head
        return head.weight if isinstance(head, nn.Linear) and FusedHead.fits(head) else None

    def _next(self, reading: Continuation) -> NextTokens:
        logits, states, cache = self.last(reading)
        return NextTokens(self.most_likely(logits, states), cache)

    def last(self, reading: Continuation) -> tuple[Tensor, Tensor, Any]:
        """[rows, vocabulary] logits of the next token, the [rows, width] hidden states that they come from, and the
        model's cache."""
        self._pass = going = _Pass(reading)
        try:
            positions = {"position_ids": reading.positions} if self._takes_positions else {}
            # With a growing cache, every layer would be recompiled for every length.
            with torch.compiler.set_stance("force_eager"):
                output = self.model(
                    input_ids=reading.ids,
                    attention_mask=reading.mask,
                    past_key_values=reading.cache,
                    use_cache=True,
                    **positions,
                )
        finally:
            self._pass = None
        states = going.states
        if states is None:
            raise _no_head(self.model, "its head is not called for the next token")
        if getattr(output, "past_key_values", None) is None:
            found = f"{type(self._base).__name__} cannot generate here: it returns no key-value cache"
            raise ModelError(complaint(found, "score by loss, choice or exact_match", field="datasets.scorer"))
        return output.logits[:, -1], states[:, 0], output.past_key_values

    def _keep_predicting(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        going = self._pass
        if going is None:
            return None
        hidden, batch = inputs[0], going.batch
        if isinstance(batch, Continuation):
            going.states = hidden[:, -1:]
            return going.states, *inputs[1:]
        if hidden.shape[:2] != batch.ids.shape:
            raise _no_head(self.model, "its head does not get the hidden states of every position")
        kept = going.states = hidden.flatten(0, 1).index_select(0, batch.read)
        if self.ends_with_head and (self.fused is not None or len(kept) * self._vocabulary > LOGITS):
            going.held_back = True
            kept = kept[:0]
        return kept.unsqueeze(0), *inputs[1:]

    def _narrowed(self) -> MicroBatch | None:
        """The micro-batch in progress, if the last MLP is to skip some of its tokens."""
        batch = None if self._pass is None else self._pass.batch
        return batch if self.narrow and isinstance(batch, MicroBatch) else None

    def _only_read(self, mlp: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if (batch := self._narrowed()) is None:
            return None
        return inputs[0].flatten(0, 1).index_select(0, batch.read).unsqueeze(0), *inputs[1:]

    def _spread(self, mlp: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Puts the outputs back at their positions, with zeros elsewhere."""
        if (batch := self._narrowed()) is None:
            return None
        whole = output.new_zeros(batch.ids.numel(), output.shape[-1]).index_copy(0, batch.read, output[0])
        return whole.view(*batch.ids.shape, -1)


def _last_mlp(model: Any) -> nn.Module | None:
    layers = getattr(model.get_decoder(), "layers", None)
    mlp = getattr(layers[-1], "mlp", None) if isinstance(layers, nn.ModuleList) and len(layers) else None
    return mlp if isinstance(mlp, nn.Module) else None


def _no_head(model: nn.Module, found: str) -> ModelError:
    fix = "use a causal language model whose get_output_embeddings() gives its head"
    return ModelError(complaint(f"{type(model).__name__} cannot be trained here: {found}", fix))
