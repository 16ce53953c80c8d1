"""The wrapped model: a micro-batch in, the loss at each trained position out (DESIGN 2.3); or the next token of each
row."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint
from msft.forward.batches import Continuation, MicroBatch, NextTokens, TokenScores
from msft.model.cross_entropy import most_likely, token_nll
from msft.model.head import LOGITS, FusedHead


class TokenLoss(nn.Module):
    """Per-token negative log-likelihood at the trained positions only.

    Logits of a whole micro-batch would take more memory than all else. A hook on the output head lets only the
    positions through that predict a target, so that whatever the model does to its logits afterwards (scaling,
    soft-capping) still happens. Where it does nothing, and the head is a plain product, it is fused with the loss
    (`model/head.py`); where the head is another, and positions are many, logits are made and read a part at a
    time, and made again for the backward pass. Raises ModelError where the model has no such head.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        self.model = model
        self._batch: MicroBatch | Continuation | None = None
        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        head = base.get_output_embeddings()
        if not isinstance(head, nn.Module):
            raise _no_head(base, "it has no output embeddings")
        head.register_forward_pre_hook(self._keep_predicting)
        head.register_forward_hook(self._notice)
        self._base = base
        self._vocabulary: int = base.config.get_text_config().vocab_size
        self._headed: Tensor | None = None
        self._plain = False
        self._states: Tensor | None = None
        self._held_back = False
        self.fused: FusedHead | None = None
        """The head and its loss as one operation. Set by `msft.model.row_layout`, which tries it."""
        self.narrow = False
        """Whether the MLP of the last layer sees only tokens that something is predicted from; the outputs of all
        others go nowhere. Set by `msft.model.row_layout`, which tries it."""
        self.narrows = (last := _last_mlp(base)) is not None
        if last is not None:
            last.register_forward_pre_hook(self._only_read)
            last.register_forward_hook(self._spread)
        self._takes_positions = "position_ids" in inspect.signature(base.forward).parameters

    @property
    def head(self) -> nn.Module:
        """The output head."""
        head: nn.Module = self._base.get_output_embeddings()
        return head

    @property
    def embedding(self) -> nn.Module:
        """That of the input tokens."""
        found: nn.Module = self._base.get_input_embeddings()
        return found

    @property
    def ends_with_head(self) -> bool:
        """Whether the last micro-batch's logits were the head's output, unchanged."""
        return self._plain

    @property
    def checkpoints(self) -> bool:
        """Whether layers are run again in the backward pass."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.model.modules())

    def forward(self, batch: MicroBatch | Continuation) -> TokenScores | NextTokens:
        """Nats per target, in fp32, row by row; and, where asked, whether each target was the arg-max.

        Of a continuation, the most likely next token of each row.
        """
        if isinstance(batch, Continuation):
            return self._next(batch)
        keywords: dict[str, Any] = {} if batch.positions is None else {"position_ids": batch.positions}
        if batch.spans:
            keywords["msft_spans"] = batch.spans
        self._batch, self._headed, self._held_back = batch, None, False
        try:
            logits = self.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, **keywords).logits
        finally:
            self._batch = None
            states, self._states = self._states, None
        if self._held_back and states is not None:
            return self._in_parts(states, batch) if self.fused is None else self.fused(states, batch)
        if states is None or logits.shape[:2] != (1, len(batch.read)):
            raise _no_head(self.model, "its head does not take the hidden states of every position")
        self._plain, self._headed = logits is self._headed, None
        hits = self._most_likely(logits[0], states)[batch.rows] == batch.targets if batch.hits else None
        return TokenScores(token_nll(logits[0], batch.rows, batch.targets), hits)

    def _in_parts(self, hidden: Tensor, batch: MicroBatch) -> TokenScores:
        """From [rows, width] hidden states, without ever holding the logits of all."""
        size = max(1, LOGITS // self._vocabulary)
        order, nll, best = [], [], []
        for first, states in zip(range(0, len(hidden), size), torch.split(hidden, size), strict=True):
            here = ((batch.rows >= first) & (batch.rows < first + size)).nonzero()[:, 0]

            def part(states: Tensor, rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
                logits = self.head(states)
                return token_nll(logits, rows, targets), self._most_likely(logits, states) if batch.hits else None

            given = states, batch.rows[here] - first, batch.targets[here]
            found = checkpoint(part, *given, use_reentrant=False, preserve_rng_state=False)
            order.append(here)
            nll.append(found[0])
            best.append(found[1])
        back = torch.cat(order).argsort()
        return TokenScores(torch.cat(nll)[back], torch.cat(best)[batch.rows] == batch.targets if batch.hits else None)

    @torch.no_grad()
    def _most_likely(self, logits: Tensor, states: Tensor) -> Tensor:
        """[rows] tokens, from [rows, vocabulary] logits and the [rows, width] hidden states that they come from."""
        head = self.head
        weight = head.weight if isinstance(head, nn.Linear) and FusedHead.fits(head) else None
        with torch.autocast(states.device.type, enabled=False):
            return most_likely(logits, states, weight)

    def _next(self, reading: Continuation) -> NextTokens:
        self._batch = reading
        try:
            positions = {"position_ids": reading.positions} if self._takes_positions else {}
            # A cache that grows would be compiled anew for every layer and length.
            with torch.compiler.set_stance("force_eager"):
                output = self.model(
                    input_ids=reading.ids,
                    attention_mask=reading.mask,
                    past_key_values=reading.cache,
                    use_cache=True,
                    **positions,
                )
        finally:
            self._batch = None
            states, self._states = self._states, None
        if states is None:
            raise _no_head(self.model, "its head is not asked for the next token")
        if getattr(output, "past_key_values", None) is None:
            raise _no_head(self.model, "it keeps no cache to generate with")
        return NextTokens(self._most_likely(output.logits[:, -1], states[:, 0]), output.past_key_values)

    def _keep_predicting(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        batch = self._batch
        if batch is None:
            return None
        hidden = inputs[0]
        if isinstance(batch, Continuation):
            self._states = hidden[:, -1:]
            return self._states, *inputs[1:]
        if hidden.shape[:2] != batch.ids.shape:
            raise _no_head(self.model, "its head does not take the hidden states of every position")
        kept = self._states = hidden.flatten(0, 1).index_select(0, batch.read)
        if self._plain and (self.fused is not None or len(kept) * self._vocabulary > LOGITS):
            self._held_back = True
            kept = kept[:0]
        return kept.unsqueeze(0), *inputs[1:]

    def _notice(self, head: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self._batch is not None:
            self._headed = output

    def _narrowed(self) -> MicroBatch | None:
        """The micro-batch of whose tokens the last MLP sees only some."""
        return self._batch if self.narrow and isinstance(self._batch, MicroBatch) else None

    def _only_read(self, mlp: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if (batch := self._narrowed()) is None:
            return None
        return inputs[0].flatten(0, 1).index_select(0, batch.read).unsqueeze(0), *inputs[1:]

    def _spread(self, mlp: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        """Back to their places, zeros between them."""
        if (batch := self._narrowed()) is None:
            return None
        whole = output.new_zeros(batch.ids.numel(), output.shape[-1]).index_copy(0, batch.read, output[0])
        return whole.view(*batch.ids.shape, -1)


def _last_mlp(model: Any) -> nn.Module | None:
    layers = getattr(model.get_decoder(), "layers", None)
    mlp = getattr(layers[-1], "mlp", None) if isinstance(layers, nn.ModuleList) and len(layers) else None
    return mlp if isinstance(mlp, nn.Module) else None


def _no_head(model: nn.Module, found: str) -> ModelError:
    mend = "use a causal language model whose get_output_embeddings() gives its head"
    return ModelError(complaint(f"{type(model).__name__} cannot be trained here: {found}", mend))
