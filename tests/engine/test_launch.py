"""What `accelerate launch` asks for: the variables are those that accelerate itself sets for its options."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env

from msft.cli.main import main
from msft.core.errors import ConfigError
from msft.engine.launch import Sharding, check_precision_and_compiler, check_ways_of_training, sharding_asked_for

TWO = ("--multi_gpu", "--num_processes", "2")


def launched(*options: str) -> dict[str, str]:
    """The environment variables that `accelerate launch OPTIONS` adds."""
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args([*options, "script.py"]))
    if arguments.multi_gpu or arguments.use_fsdp or arguments.use_megatron_lm:
        environment = prepare_multi_gpu_env(arguments)
    else:
        _, environment = prepare_simple_launcher_cmd_env(arguments)
    return {key: value for key, value in environment.items() if os.environ.get(key) != value}


@pytest.fixture(autouse=True)
def no_configuration_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("accelerate.commands.launch.default_config_file", str(tmp_path / "none.yaml"))


SPLIT = "--use_fsdp --fsdp_version 2 --num_processes 2"
REFUSED = {
    "--use_megatron_lm --num_processes 2": "Megatron-LM",
    f"{SPLIT} --use_parallelism_config --parallelism_config_tp_size 2": "tensor parallelism (2)",
}


@pytest.mark.parametrize("options", REFUSED)
def test_ways_of_training_that_would_be_ignored(options: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_ways_of_training(launched(*options.split()))
    said = str(caught.value)
    assert f"asks for {REFUSED[options]}, which msft does not support. Fix: " in said and "--multi_gpu" in said


@pytest.mark.parametrize("environment", [
    {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
    {"XLA_USE_BF16": "1"},
    {"ACCELERATE_USE_FSDP": "1", "FSDP_VERSION": "1"},
    {"ACCELERATE_USE_DEEPSPEED": "true"},
    {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_TP_SIZE": "2"},
    {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_CP_SIZE": "4"},
    {"ACCELERATE_USE_PARALLELISM_CONFIG": "true", "PARALLELISM_CONFIG_DP_SHARD_SIZE": "8"},
])  # fmt: skip
def test_variables_set_by_hand_or_by_other_launchers(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(reversed(environment))):
        check_ways_of_training(environment)


@pytest.mark.parametrize(("options", "asked"), [
    ("", Sharding()),
    ("--fsdp_reshard_after_forward false", Sharding(again=False)),
    ("--fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP --fsdp_transformer_layer_cls_to_wrap LlamaDecoderLayer",
     Sharding(layer="LlamaDecoderLayer")),
    ("--fsdp_state_dict_type SHARDED_STATE_DICT --fsdp_cpu_ram_efficient_loading true", Sharding()),
])  # fmt: skip
def test_what_fsdp2_is_asked_for(options: str, asked: Sharding) -> None:
    environment = launched(*SPLIT.split(), *options.split())
    check_ways_of_training(environment)
    assert sharding_asked_for(environment) == asked
    assert sharding_asked_for(launched(*TWO)) is None


@pytest.mark.parametrize(("options", "variable", "fix"), [
    ("--use_fsdp --num_processes 2", "FSDP_VERSION", "add --fsdp_version 2"),
    (f"{SPLIT} --fsdp_offload_params true", "FSDP_OFFLOAD_PARAMS", "omit"),
    (f"{SPLIT} --fsdp_activation_checkpointing true", "FSDP_ACTIVATION_CHECKPOINTING", "gradient_checkpointing: true"),
    (f"{SPLIT} --fsdp_auto_wrap_policy SIZE_BASED_WRAP", "FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP"),
])  # fmt: skip
def test_what_fsdp2_does_not_do_here(options: str, variable: str, fix: str) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        check_ways_of_training(launched(*options.split()))
    assert fix in str(caught.value)


def test_deepspeed_is_refused_with_what_replaces_it() -> None:
    with pytest.raises(ConfigError, match=r"DeepSpeed.*--use_fsdp --fsdp_version 2"):
        check_ways_of_training({"ACCELERATE_USE_DEEPSPEED": "true"})


@pytest.mark.parametrize("options", [
    (), TWO, ("--cpu",), (*TWO, "--main_process_port", "0"), (*TWO, "--gpu_ids", "0,1"),
])  # fmt: skip
def test_plain_data_parallelism_is_accepted(options: tuple[str, ...]) -> None:
    environment = launched(*options)
    check_ways_of_training(environment)
    for bf16 in (False, True):
        check_precision_and_compiler(bf16=bf16, torch_compile=False, environment=environment)


@pytest.mark.parametrize(
    ("options", "bf16", "compiled", "found"),
    [
        ("--mixed_precision bf16", True, False, None),
        ("--mixed_precision bf16", False, False, "bf16, and this run trains in float32"),
        ("--mixed_precision fp16", True, False, "fp16, and this run trains in bf16"),
        ("--mixed_precision fp16", False, False, "fp16, and this run trains in float32"),
        ("--mixed_precision no", True, False, None),
        ("--dynamo_backend inductor", False, True, None),
        ("--dynamo_backend inductor", False, False, "the compiler inductor, which this run does not use"),
        ("--dynamo_backend aot_eager", False, True, "the compiler aot_eager, which this run does not use"),
    ],
)
def test_precision_and_compiler(options: str, bf16: bool, compiled: bool, found: str | None) -> None:
    environment = launched(*TWO, *options.split())
    if found is None:
        check_precision_and_compiler(bf16=bf16, torch_compile=compiled, environment=environment)
    else:
        with pytest.raises(ConfigError) as caught:
            check_precision_and_compiler(bf16=bf16, torch_compile=compiled, environment=environment)
        assert found in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "command"),
    [
        ("FSDP_VERSION", "1", "train"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "train"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "train"),
        ("ACCELERATE_USE_FSDP", "true", "eval model --config"),
    ],
)
def test_a_command_refuses_before_anything_is_loaded_or_written(
    variable: str, value: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """There is no model: loading one would end with another message."""
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model: {{name_or_path: nothing}}\ndatasets: [{{id: a, path: a.jsonl}}]\noutput: {tmp_path / 'run'}\n",
        encoding="utf-8",
    )
    if variable == "FSDP_VERSION":
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv(variable, value)
    if command.startswith("eval"):
        monkeypatch.setenv("FSDP_VERSION", "2")
    assert main([*command.split(), str(config)]) == 2
    assert f"\nmsft: {variable}: accelerate launch asks for" in f"\n{capsys.readouterr().err}"
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
