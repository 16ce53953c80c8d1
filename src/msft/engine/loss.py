"""The wrapped model: a micro-batch in, the loss at each trained position out (DESIGN 2.3); or the next token of each
row."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint
from msft.data.examples import Example
from msft.scoring.batches import MicroBatch, TokenScores, collate, row
from msft.scoring.forward import undisturbed
from msft.scoring.generation import Continuation, NextTokens


class TokenLoss(nn.Module):
    """Per-token negative log-likelihood at the trained positions only.

    Logits of a whole micro-batch would take more memory than all else. A hook on the output head lets only the
    positions through that predict a target, so that whatever the model does to its logits afterwards (scaling,
    soft-capping) still happens. Raises ModelError where the model has no such head.
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
        self._takes_positions = "position_ids" in inspect.signature(base.forward).parameters

    def forward(self, batch: MicroBatch | Continuation) -> TokenScores | NextTokens:
        """Nats per target, in fp32, row by row; and, where asked, whether each target was the arg-max.

        Of a continuation, the most likely next token of each row.
        """
        if isinstance(batch, Continuation):
            return self._next(batch)
        self._batch = batch
        try:
            positions = {} if batch.positions is None else {"position_ids": batch.positions}
            output = self.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False, **positions)
        finally:
            self._batch = None
        logits = output.logits
        if logits.shape[:2] != (1, len(batch.targets)):
            raise _no_head(self.model, "its head does not take the hidden states of every position")
        logits = logits[0].float()
        nll = functional.cross_entropy(logits, batch.targets, reduction="none")
        return TokenScores(nll, logits.argmax(-1) == batch.targets if batch.hits else None)

    def _next(self, reading: Continuation) -> NextTokens:
        self._batch = reading
        try:
            positions = {"position_ids": reading.positions} if self._takes_positions else {}
            output = self.model(
                input_ids=reading.ids,
                attention_mask=reading.mask,
                past_key_values=reading.cache,
                use_cache=True,
                **positions,
            )
        finally:
            self._batch = None
        if getattr(output, "past_key_values", None) is None:
            raise _no_head(self.model, "it keeps no cache to generate with")
        return NextTokens(output.logits[:, -1].float().argmax(-1), output.past_key_values)

    def _keep_predicting(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        batch = self._batch
        if batch is None:
            return None
        hidden = inputs[0]
        if isinstance(batch, Continuation):
            return hidden[:, -1:], *inputs[1:]
        if hidden.shape[:2] != batch.ids.shape:
            raise _no_head(self.model, "its head does not take the hidden states of every position")
        return hidden.flatten(0, 1).index_select(0, batch.before).unsqueeze(0), *inputs[1:]


def _no_head(model: nn.Module, found: str) -> ModelError:
    mend = "use a causal language model whose get_output_embeddings() gives its head"
    return ModelError(complaint(f"{type(model).__name__} cannot be trained here: {found}", mend))


def runs_branches(loss: TokenLoss, device: torch.device) -> bool:
    """Whether the model gives sequences that share a row their own likelihoods: tried on a few tokens.

    No list of architectures could say: it takes an attention that obeys a mask of its own, position ids that reach it,
    and no state that runs along the row. A sliding window passes such a trial and fails on longer rows.
    """
    config: Any = loss.model.config
    if getattr(config, "sliding_window", None) is not None:
        return False
    ids = [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 3, 5, 4, 6]]
    group = [Example(ids=np.array(i, np.int32), trained=np.arange(len(i)) >= 3) for i in ids]
    with undisturbed(loss, device), torch.no_grad():
        apart = torch.cat([loss(collate([row([example])], device)).nll for example in group])
        try:
            together = loss(collate([row(group)], device)).nll
        except (TypeError, ValueError, RuntimeError, IndexError):
            return False
    return bool(torch.allclose(together, apart, rtol=1e-3, atol=1e-4))


def hardware_has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware, rather than being emulated more slowly than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # The only place where torch tells; the CPU dispatcher itself asks there.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
