"""A model's shrunken twin: its configuration with every kind of layer, a few thousand weights, and windows, chunks and
the like cut to a few tokens, so that what a model does to long rows shows on short ones (design 3.14)."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from msft.model.model_parts import LAYERS, decoder_layers, depth, vocabulary_of

BORDER = 8
"""Tokens: windows, chunks and lengths at which a rotary embedding changes are cut to this."""
VOCABULARY = 64
SPECIAL = 3
"""Tokens from 0 on that no row of a proof contains: the twin's padding, beginning and end."""
LONGEST = 28
"""Tokens of the longest row of a proof, and the twin's size of a window that no row of the run is longer than: it has
no effect on a row, but shows where something counts the tokens of a whole micro-batch."""

_BORDERS = re.compile(
    r".*window|.*window_size|attention_chunk_size|.*_chunk_length|local_attention|local_attention_window_len|"
    r"original_max_position_embeddings|index_topk|index_topk_blocks|index_block_size|keep_window_size|mem_len|"
    r".*max_distance|rel_extent|block_size"
)
_SIZES: tuple[tuple[re.Pattern[str], int], ...] = tuple(
    (re.compile(names), size)
    for names, size in (
        (r"(.*_)?vocab_size(_per_layer_input|_base)?|.*_hash_byte_group_vocab", VOCABULARY),
        (r"max_position_embeddings|n_positions|max_seq_len|n_ctx|context_length|model_max_length", VOCABULARY),
        (r"max_(target|source)_positions|seq_length", VOCABULARY),
        (r"(.*_)?chunk_size", BORDER),
        (r"n_(mamba_)?heads?|(linear_|mamba_)?num_heads|mamba_n_heads|linear_num_value_heads|attention_heads", 4),
        (r"(.*_)?num_attention_heads(_per_layer)?|(en|de)coder_attention_heads|index_n_heads|num_query_groups", 4),
        (r"num_(en|de)coder_attention_heads", 4),
        (r"(.*_)?num_key_value_heads|num_kv_heads|linear_num_key_heads", 2),
        (r"qk_head_dim|mamba_d_head|mamba_headdim|mamba_head_dim", 16),
        (r".*head_dim|.*d_head|attention_head_size|dim_head|kv_channels|rotary_dim", 8),
        (r".*_(low)?rank|hc_lowrank|time_step_rank|d_rel|(.*_)?state_size|.*d_state", 8),
        (r"(.*_)?hidden_size(_per_layer_input)?|n_embd|d_model|emb_dim|embedding_dim|dim|lru_width", 32),
        (r"(.*_)?embedding_size|word_embed_proj_dim|.*_embed_dim|mamba_d_ssm|dim_model_base", 32),
        (r"(.*_)?intermediate_size(_mlp)?|(.*_)?ffn_dim|n_inner|dff|dim_ff|d_inner|(.*_)?ffn_hidden_size", 32),
        (r"feed_forward_size|prompt_mid_dim|classifier_proj_size", 32),
        (r"num_experts|num_local_experts|n_routed_experts|moe_num_experts", 4),
        (
            r"num_experts_per_tok(en)?|moe_k|moe_topk|zero_expert_num|n_group|num_expert_group|(.*_)?n_groups|o_groups",
            2,
        ),
        (r"topk_group", 1),
        (r"block_multiple_of|ffn_round_up_to_multiple_of|.*_divisible_by|split_ngram_parts", 8),
    )
)
_TOKENS = re.compile(r".*_token_id|(mask|unk|pad|bos|eos|sep)_index")


def twin(model: PreTrainedModel, layers: int, longest: int | None, device: torch.device) -> PreTrainedModel:
    """The twin of `model` in fp32, its first `layers` layers with weights of its own.

    `longest`: no row of the run has more tokens; windows at least as long are inert, and stay so. Raises whatever the
    model's class raises where its configuration cannot be shrunk.
    """
    config = shrunken(model.config, layers, longest)
    _cut_unnamed(type(model), config, _cutter(longest))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(0)
        made: Any = type(model)(config)
        made.to(device=device, dtype=torch.float32)
        for weight in made.parameters():
            # Larger than initialised, and nothing at exactly 0, so that every part contributes to the likelihoods.
            weight.mul_(3 if weight.dim() > 1 else 1).add_(torch.randn_like(weight), alpha=0.05)
    made.set_attn_implementation(model.config._attn_implementation)
    made.eval()
    return cast(PreTrainedModel, made)


@torch.no_grad()
def reads_a_row(made: Any, device: torch.device) -> None:
    """Raises whatever the model's class raises where a twin cannot read rows of a proof."""
    known = vocabulary_of(made)
    for length in (2, LONGEST):
        ids = (SPECIAL + torch.arange(length, device=device)[None]) % known
        made(input_ids=ids, use_cache=False)


@contextmanager
def one_thread() -> Iterator[None]:
    """Context in which torch has one thread: a twin is too small for more, which wait for each other where other
    processes run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def shrunken(config: Any, layers: int, longest: int | None = None) -> Any:
    """A copy of a configuration with small sizes and its first `layers` layers."""
    config = copy.deepcopy(config)
    vars(config).pop("quantization_config", None)
    _shrink(config, layers, _cutter(longest))
    return config


def _cutter(longest: int | None) -> Callable[[int], int]:
    """What becomes of a number of tokens, where no row of the run has more than `longest`."""
    return lambda value: BORDER if longest is None or value < longest else LONGEST


def _cut_unnamed(kind: Any, config: Any, cut: Callable[[int], int]) -> None:
    """Cuts the numbers whose names are in no table above, where the model has the same weights with them: such a number
    may be a length under another name, which no row of a proof would reach."""
    shapes = _shapes(kind, config)
    if shapes is None:
        return
    for holder, key in _unnamed(vars(config.get_text_config(decoder=True))):
        was = holder[key]
        holder[key] = cut(was)
        if _shapes(kind, config) != shapes:
            holder[key] = was


def _unnamed(fields: Any) -> Iterator[tuple[Any, Any]]:
    """The places of whole numbers above LONGEST: of a configuration, and of the lists and objects in it."""
    for name, value in list(fields.items()) if isinstance(fields, dict) else list(enumerate(fields)):
        if isinstance(name, str) and (name.startswith("_") or _named(name)):
            continue
        if isinstance(value, dict | list):
            yield from _unnamed(value)
        elif isinstance(value, int) and not isinstance(value, bool) and value > LONGEST:
            yield fields, name


def _named(name: str) -> bool:
    tables = (LAYERS, _TOKENS, _BORDERS, *(names for names, _ in _SIZES))
    return any(names.fullmatch(name) for names in tables)


def _shapes(kind: Any, config: Any) -> dict[str, torch.Size] | None:
    """The shapes of the weights of a model that computes something; None if it does not."""
    try:
        with torch.random.fork_rng(devices=[]):
            made = kind(copy.deepcopy(config)).eval()
        reads_a_row(made, torch.device("cpu"))
    except Exception:  # whatever the model's own code raises where a number does not fit
        return None
    return {name: weight.shape for name, weight in made.named_parameters()}


def kinds(model: nn.Module, layers: int) -> list[Any]:
    """What each of the model's `layers` layers is made of: equal for layers that compute alike. Empty where the layers
    are not found. Adapters are ignored."""
    return [_kind(layer) for layer in decoder_layers(model, layers)]


def _kind(layer: nn.Module) -> Any:
    return tuple(
        (name, type(module).__name__, *_switches(module))
        for name, module in layer.named_modules()
        if "lora_" not in name and "base_layer" not in name
    )


def _switches(module: nn.Module) -> tuple[Any, ...]:
    """The module's own attributes that choose what it computes (texts, truth values, and what is None)."""
    if hasattr(module, "base_layer"):
        return ()
    held = {n: v for n, v in vars(module).items() if not n.startswith("_") and n != "training"}
    return tuple(sorted((n, str(v)) for n, v in held.items() if v is None or isinstance(v, bool | str)))


def _shrink(config: Any, layers: int, cut: Callable[[int], int]) -> None:
    spec = vars(config).pop("_heterogeneity_spec", None)  # values of single layers, which hide the common ones
    count = depth(config)
    fields = vars(config)
    equal = fields.get("num_key_value_heads") == fields.get("num_attention_heads")  # as latent attention demands
    for name, value in list(fields.items()):
        if hasattr(value, "to_dict"):
            _shrink(value, layers, cut)
        elif isinstance(value, list | tuple) and count is not None and len(value) == count:
            fields[name] = type(value)(_sized(name, one, layers, cut) for one in value[:layers])
        elif name == "eos_token_id" and isinstance(value, list):
            fields[name] = SPECIAL - 1
        else:
            fields[name] = _sized(name, value, layers, cut)
    if equal and "num_key_value_heads" in fields:
        fields["num_key_value_heads"] = fields["num_attention_heads"]
    if fields.get("num_kv_shared_layers"):
        fields["num_kv_shared_layers"] = min(fields["num_kv_shared_layers"], layers // 2)
    _fit_state(fields)
    for name in [name for name in fields if name.startswith("rope_") and isinstance(fields[name], dict)]:
        fields[name] = _rope(fields[name], fields, cut)
    if spec is not None:
        overrides = {
            layer: {name: _sized(name, value, layers, cut) for name, value in values.items()}
            for layer, values in spec.per_layer_overrides.items()
            if layer < layers
        }
        if overrides:
            config.per_layer_config = overrides


def _sized(name: str, value: Any, layers: int, cut: Callable[[int], int]) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if LAYERS.fullmatch(name):
        return min(value, layers)
    if _TOKENS.fullmatch(name):
        return min(value, SPECIAL - 1)
    if _BORDERS.fullmatch(name):
        return cut(value)
    return next((min(value, size) for names, size in _SIZES if names.fullmatch(name)), value)


def _fit_state(fields: dict[str, Any]) -> None:
    """Makes the heads of a state-space layer fit its width, which is a multiple of the hidden size."""
    for expand, heads, width in (
        ("mamba_expand", "mamba_n_heads", "mamba_d_head"),
        ("mamba_expand", "n_mamba_heads", "mamba_headdim"),
        ("expand", "num_heads", "head_dim"),
    ):
        if {expand, heads, width} <= fields.keys() and "mamba_d_ssm" not in fields:
            fields[width] = int(fields[expand] * fields["hidden_size"]) // fields[heads]


def _rope(rope: dict[str, Any], fields: dict[str, Any], cut: Callable[[int], int]) -> dict[str, Any]:
    """Rotary parameters whose lists fit the shrunken heads."""
    made = {name: _rope(v, fields, cut) if isinstance(v, dict) else _sized(name, v, 0, cut) for name, v in rope.items()}
    width = fields.get("qk_rope_head_dim") or fields.get("head_dim") or BORDER
    share = rope.get("partial_rotary_factor") or fields.get("partial_rotary_factor") or 1.0
    half = int(width * share) // 2
    for name in ("short_factor", "long_factor"):
        if isinstance(factors := made.get(name), list):
            made[name] = [factors[at * len(factors) // half] for at in range(half)]
    if "mrope_section" in made:
        made["mrope_section"] = [half - 2 * (half // 3), half // 3, half // 3]
    return made
