"""The configurations of accelerate: read by its own launcher, they set what they say and nothing else."""

import pathlib
import re

import pytest
import torch
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from two_processes import CONFIGS, launched

ROOT = pathlib.Path(__file__).parent.parent
KINDS = {"ddp": "multi_gpu", "fsdp2": "use_fsdp", "zero3": "use_deepspeed"}


def test_there_is_a_configuration_of_each_kind():
    assert sorted(path.stem for path in CONFIGS.glob("*.yaml")) == sorted(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_configuration_starts_the_kind_that_it_is_named_for(name):
    args, environment = launched(CONFIGS / f"{name}.yaml")
    kinds = [kind for kind in (*KINDS.values(), "cpu", "tpu", "use_megatron_lm") if getattr(args, kind)]
    assert kinds == [KINDS[name]]
    assert (args.num_processes, args.num_machines, args.module) == (4, 1, True)
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"


def test_fsdp2_shards_layers_and_gathers_whole_weights_for_saving(monkeypatch):
    for name, value in launched(CONFIGS / "fsdp2.yaml")[1].items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    assert plugin.state_dict_type == torch.distributed.fsdp.StateDictType.FULL_STATE_DICT
    assert plugin.auto_wrap_policy is torch.distributed.fsdp.wrap.transformer_auto_wrap_policy
    assert not plugin.cpu_ram_efficient_loading and not plugin.activation_checkpointing


def test_zero3_leaves_to_the_cell_what_the_cell_decides(monkeypatch):
    for name, value in launched(CONFIGS / "zero3.yaml")[1].items():
        monkeypatch.setenv(name, value)
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == 3 and not plugin.zero3_init_flag
    config = plugin.deepspeed_config
    left = ("gradient_accumulation_steps", "gradient_clipping", "train_micro_batch_size_per_gpu")
    assert {config[key] for key in left} == {"auto"}
    assert config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True


def test_a_key_that_accelerate_does_not_know_would_be_seen(tmp_path):
    text = (CONFIGS / "fsdp2.yaml").read_text()
    changed = tmp_path / "fsdp2.yaml"
    changed.write_text(text.replace("fsdp_version", "fsdp_versoin"))
    with pytest.raises(AssertionError, match="fsdp_versoin"):
        launched(changed)
    changed.write_text(text + "precision: bf16\n")
    with pytest.raises(ValueError, match=re.escape("unknown keys (['precision'])")):
        launched(changed)


def test_the_document_has_the_command_of_every_configuration():
    text = (ROOT / "docs" / "distributed.md").read_text()
    for path in CONFIGS.glob("*.yaml"):
        command = path.read_text().splitlines()[0].removeprefix("# ")
        assert command.startswith(f"accelerate launch --config_file po/configs/{path.name} ")
        assert command in text
