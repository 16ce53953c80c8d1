from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from device import DEVICE
from job import make_job
from tiny_engine import TASKS, export_merged, same, segment, tiny_data, tiny_engine, tiny_folder, tiny_model
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from msft.config import reader
from msft.core.errors import ModelError, RunError
from msft.core.vocabulary import ROOT
from msft.data.examples import Example, Measure, TaskData
from msft.model import open as opening
from msft.model.adapters import fresh_adapter
from msft.model.attention import NAME
from msft.model.folder import ModelSource, check_model_folder, complaining, fingerprint
from msft.model.limits import check_data_fits
from msft.model.open import load_model, load_tokenizer, non_embedding_parameters
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss
from msft.run.session import train
from msft.study.positions import Silent

LORA = {"r": 2, "lora_alpha": 4, "target_modules": "all-linear", "lora_dropout": 0.1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_folder(tmp_path / "model")


def source(folder: Path, **fields: object) -> ModelSource:
    return ModelSource(name_or_path=str(folder), **fields)  # type: ignore[arg-type]


def test_a_whole_folder_passes_and_loads_in_fp32(folder: Path) -> None:
    check_model_folder(source(folder))
    model = load_model(source(folder))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert load_tokenizer(source(folder)).eos_token == "w0"


def test_what_is_wrong_with_a_folder_is_told_before_loading(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere model\.name_or_path: there is no such folder"):
        check_model_folder(source(tmp_path / "nowhere"))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for broken, found in ((whole[:-1], "but its header says"), (whole[:40], "cut off"), (b"x" * 99, "header claims")):
        weights.write_bytes(broken)
        with pytest.raises(ModelError, match=rf"model\.safetensors: .*{found}.*Fix"):
            check_model_folder(source(folder))
    weights.write_bytes(whole[:8] + b"#" + whole[9:])
    with pytest.raises(ModelError, match="not a safetensors header"):
        check_model_folder(source(folder))
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: the weights are pickled"):
        check_model_folder(source(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: the file is not valid JSON"):
        check_model_folder(source(folder))
    with pytest.raises(ModelError, match=r"other\.gguf"):
        check_model_folder(source(folder, gguf_file="other.gguf"))


def test_weights_that_lack_a_tensor_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match="would be initialised at random"):
        load_model(source(folder))


def test_tensors_of_the_files_that_the_configuration_has_no_place_for_are_named(folder: Path, tmp_path: Path) -> None:
    engine, _ = tiny_engine(folder, tmp_path / "one")
    assert not any("files hold" in note for note in engine.notes)
    edited = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(edited | {"num_hidden_layers": 1}))
    engine, _ = tiny_engine(folder, tmp_path / "two")
    (said,) = (note for note in engine.notes if "files hold" in note)
    assert said == (
        "the model's files hold 9 tensors without a place in its config.json: model.layers.1.input_layernorm.weight, "
        "model.layers.1.mlp.down_proj.weight, model.layers.1.mlp.gate_proj.weight, ..."
    )


def test_a_name_that_the_hub_does_not_know_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="no-such-owner/no-such-model: the model cannot be loaded"):
        load_model(ModelSource(name_or_path="no-such-owner/no-such-model"))


def test_a_model_that_was_removed_has_no_fingerprint(folder: Path) -> None:
    """A run asks for it at each return to the base model."""
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match=r"the model cannot be read \(No such file.*Fix: restore .* --resume"):
        fingerprint(source(folder))


def test_the_fingerprint_follows_the_files(folder: Path) -> None:
    before = fingerprint(source(folder))
    (folder / "README.md").write_text("notes")
    assert fingerprint(source(folder)) == before
    (folder / "generation_config.json").write_text("{}")
    assert fingerprint(source(folder)) != before


def test_a_base_model_that_changed_during_the_run_is_not_used(folder: Path, tmp_path: Path) -> None:
    engine, _ = tiny_engine(folder, tmp_path / "snapshots")
    engine.run(segment(0, 1, score=()), 1)
    (folder / "generation_config.json").write_text("{}")
    with pytest.raises(RunError, match="has changed"):
        engine.run(segment(0, 1, score=()), 2)


@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("llama", False), ("gpt2", True)])
def test_parameters_of_the_cost_law_leave_out_embeddings_and_head(kind: str, tied: bool) -> None:
    model = tiny_model(kind, tied=tied)
    layers = model.get_decoder()
    expected = sum(p.numel() for name, p in layers.named_parameters() if "embed" not in name and "wte" not in name)
    expected -= layers.wpe.weight.numel() if kind == "gpt2" else 0
    assert non_embedding_parameters(model) == expected


@pytest.mark.parametrize(
    ("gguf", "fix"), [(None, "install the package that it names"), ("a.gguf", "pip install 'gguf")]
)
def test_a_package_that_a_model_needs_is_named(tmp_path: Path, gguf: str | None, fix: str) -> None:
    named = source(tmp_path, gguf_file=gguf)
    with pytest.raises(ModelError, match=rf"the model cannot be loaded \(.*einops.*\)\. Fix: {fix}"):  # noqa: SIM117
        with complaining(named, "the model cannot be loaded"):
            raise ImportError("this code needs einops")


def test_data_that_the_model_has_no_weights_for_is_refused() -> None:
    data = tiny_data()
    foreign = Example(ids=np.array([1, 48], np.int32), trained=np.array([False, True]))
    check_data_fits(tiny_model(), data)
    with pytest.raises(ModelError, match="one: token 48 is beyond the model's 48 embeddings"):
        check_data_fits(tiny_model(), {"one": _with(data["one"], foreign)})
    for wrapped in ({"target_modules": ["embed_tokens"]}, {"modules_to_save": ["embed_tokens"]}):
        adapted = fresh_adapter(tiny_model(tied=False), {"r": 2, "target_modules": ["q_proj"], **wrapped}, 0)
        with pytest.raises(ModelError, match="token 48 is beyond the model's 48 embeddings"):
            check_data_fits(adapted, {"one": _with(data["one"], foreign)})
    long = Example(ids=np.ones(65, np.int32), trained=np.arange(65) > 0)
    with pytest.raises(ModelError, match=r"65 tokens, the model has 64 positions.*data\.max_length"):
        check_data_fits(tiny_model(), {"one": _with(data["one"], long)})


def test_the_key_of_too_long_answers_is_named() -> None:
    one = replace(tiny_data()["one"], measure=Measure(name="generate", max_new_tokens=64))
    most = max(len(item.prompt) for item in (*one.validation, *one.test))
    place = r"datasets\.one\.scorer\.max_new_tokens: a prompt of"
    for part, said in (
        (one, place),
        (replace(one, dataset="one"), place),
        (replace(one, aggregate=True), "^aggregate."),
    ):
        with pytest.raises(ModelError, match=rf"{said}.*Fix: give at most {64 - most}"):
            check_data_fits(tiny_model(), {"one": part})


def test_positions_of_a_nested_configuration_count() -> None:
    """A model for images and text keeps those of its texts in `text_config`."""
    import architectures

    model = architectures.small("gemma3")
    assert not isinstance(model, str) and not hasattr(model.config, "max_position_embeddings")
    data, most = tiny_data(), model.config.text_config.max_position_embeddings
    for length in (most, most + 1):
        part = _with(data["one"], Example(ids=np.ones(length, np.int32), trained=np.arange(length) > 0))
        if length == most:
            check_data_fits(model, {"one": part})
            continue
        with pytest.raises(ModelError, match=rf"{length} tokens, the model has {most} positions"):
            check_data_fits(model, {"one": part})


def _with(part: TaskData, example: Example) -> TaskData:
    return replace(part, train=[*part.train, example])


def test_lora_trains_snapshots_and_saves_the_adapter_only(folder: Path, tmp_path: Path) -> None:
    engine, store = tiny_engine(folder, tmp_path / "snapshots", peft=LORA)
    engine.run(segment(0, 3), 1)
    assert all("lora_" in name for name in store.get(1).tensors)
    assert any(tensor.any() for name, tensor in store.get(1).tensors.items() if "lora_B" in name)
    engine.export(1, tmp_path / "adapter")
    saved = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= saved and "model.safetensors" not in saved
    scores = engine.test(1)
    export_merged(engine, 1, tmp_path / "merged")
    merged, _ = tiny_engine(tmp_path / "merged", tmp_path / "other")
    assert merged.test(ROOT).scores == pytest.approx(scores.scores, rel=1e-4)
    base = engine.run(segment(0, 3), 2)
    assert same(dict(store.get(1).tensors), dict(store.get(2).tensors)) and base.snapshot == 2


def test_an_adapter_starts_from_its_seed_alone(folder: Path) -> None:
    torch.manual_seed(0)
    first = load_model(source(folder, peft=LORA, seed=1)).state_dict()
    state = torch.get_rng_state()
    again = load_model(source(folder, peft=LORA, seed=1)).state_dict()
    other = load_model(source(folder, peft=LORA, seed=2)).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first, again) and not same(first, other)


def test_a_wrong_argument_of_an_adapter_is_the_users_error(folder: Path) -> None:
    for wrong in ({"rank": 4}, {"target_modules": "no_such_layer"}, {"target_modules": ["self_attn"]}):
        with pytest.raises(ModelError, match="peft: the adapter cannot be made"):
            load_model(source(folder, peft=wrong))


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("llama", {"target_modules": ["q_proj", "v_prj"]},
         r"^peft\.target_modules: found 'v_prj', but no module of LlamaForCausalLM has .*Fix: did you mean v_proj or"),
        ("llama", {"exclude_modules": ["proj"]}, r"exclude_modules: found 'proj'.*Fix: did you mean .*_proj"),
        ("llama", {"exclude_modules": ["layers.2.mlp"]}, r"exclude_modules: found 'layers\.2\.mlp'"),
        ("gpt2", {"modules_to_save": ["embed_tokens"]},
         r"modules_to_save: found 'embed_tokens'.*GPT2LMHeadModel.*Fix: name some of: wte, wpe, .*, ln_f, lm_head$"),
        ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [0, 9]},
         r"layers_to_transform: found 9, but no module of target_modules is in .*Fix: give numbers from 0 to 1"),
        ("llama", {"target_modules": ["q_prj"], "modules_to_save": ["lm_heads"]}, r"'q_prj'.*\n.*'lm_heads'.*lm_head"),
    ],
)  # fmt: skip
def test_names_of_an_adapter_that_match_nothing_are_refused(kind: str, given: dict[str, object], said: str) -> None:
    """PEFT passes over them where another name matches, and trains another adapter."""
    with pytest.raises(ModelError, match=said):
        fresh_adapter(tiny_model(kind, tied=False), {"r": 2, "target_modules": "all-linear", **given}, 0)


def test_names_of_an_adapter_match_as_in_peft() -> None:
    named = {"target_modules": ["layers.1.self_attn.q_proj", "model.layers.0.mlp.up_proj"], "modules_to_save": ["norm"]}
    made = fresh_adapter(tiny_model(), {"r": 2, **named, "exclude_modules": ["lm_head"]}, 0)
    trained = {name.split(".lora_")[0] for name, weight in made.named_parameters() if weight.requires_grad}
    assert sum("q_proj" in name or "up_proj" in name for name in trained) == 2 and any("norm" in n for n in trained)


def test_an_export_loads_with_transformers_and_scores_the_same(folder: Path, tmp_path: Path) -> None:
    engine, store = tiny_engine(folder, tmp_path / "snapshots")
    engine.run(segment(0, 3), 1)
    engine.export(1, tmp_path / "final")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    weights = {f"weight/{name}": parameter.detach() for name, parameter in loaded.named_parameters()}
    assert all(torch.equal(weights[name], store.get(1).tensors[name]) for name in weights)
    again, _ = tiny_engine(tmp_path / "final", tmp_path / "other")
    assert again.test(ROOT).scores == engine.test(1).scores and set(engine.test(1).scores) == set(TASKS)


def test_gradient_checkpointing_changes_only_the_rounding(folder: Path, tmp_path: Path) -> None:
    outcomes = []
    for checkpointing in (False, True):
        engine, _ = tiny_engine(folder, tmp_path / str(checkpointing), gradient_checkpointing=checkpointing)
        assert engine._model.is_gradient_checkpointing == checkpointing
        outcomes.append(engine.run(segment(0, 3), 1))
    assert outcomes[0].train_loss == pytest.approx(outcomes[1].train_loss, rel=1e-5)


@pytest.mark.parametrize(("kind", "layout"), [("llama", "flat"), ("gpt2", "flat"), ("gemma2", "flat")])
def test_rows_lie_end_to_end_where_the_model_allows_it(kind: str, layout: str) -> None:
    loss = TokenLoss(tiny_model(kind, dropout=0.3).to(DEVICE))
    before = torch.get_rng_state()
    assert fitting_layout(loss, DEVICE).rows == layout
    assert loss.training and torch.equal(torch.get_rng_state(), before)
    assert (loss.model.config._attn_implementation == NAME) is (layout == "flat")


def test_an_attention_that_is_not_ours_to_replace_keeps_padded_rows() -> None:
    model = tiny_model().to(DEVICE)
    AttentionInterface.register("someone's own", sdpa_attention_forward)
    AttentionMaskInterface.register("someone's own", sdpa_mask)
    model.set_attn_implementation("someone's own")
    assert fitting_layout(TokenLoss(model), DEVICE).rows == "branches"
    assert model.config._attn_implementation == "someone's own"


def test_branches_are_run_where_the_model_knows_masks_but_no_spans() -> None:
    model = tiny_model().to(DEVICE)
    forward = model.forward

    def old(msft_spans: object = (), **inputs: object) -> object:
        return forward(**inputs)

    model.forward = old
    assert fitting_layout(TokenLoss(model), DEVICE).rows == "branches"
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_ignores_the_mask_of_branches_is_found_out() -> None:
    model = tiny_model().to(DEVICE)
    forward = model.forward

    def deaf(attention_mask: object = None, msft_spans: object = (), **inputs: object) -> object:
        return forward(**inputs)

    model.forward = deaf
    assert fitting_layout(TokenLoss(model), DEVICE).rows == "padded"
    assert model.config._attn_implementation == "sdpa"


def test_a_job_opens_its_model_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is checked once and the tokenizer loaded once, whatever is made of the job afterwards."""
    counts: Counter[str] = Counter()
    for name in ("check_model_folder", "_tokenizer", "_skeleton"):
        real = getattr(opening, name)
        counted = lambda *given, real=real, name=name: (counts.update([name]), real(*given))[1]  # noqa: E731
        monkeypatch.setattr(opening, name, counted)
    config = reader.load(make_job(tmp_path, more=", max_epochs: 1"))
    train(config, Silent())
    assert counts == {"check_model_folder": 1, "_tokenizer": 1, "_skeleton": 1}
