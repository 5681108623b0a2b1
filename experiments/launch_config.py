"""Configurations of accelerate, turned into the environment of the processes by accelerate itself."""

import argparse
import os
import sys
from importlib.resources import files
from pathlib import Path

import torch

from experiments.problems import nearest

_KINDS = {"MULTI_GPU": "multi_gpu", "FSDP": "use_fsdp", "DEEPSPEED": "use_deepspeed"}


def configured(config: str | None, n_processes: int) -> dict[str, str]:
    """What accelerate's launcher would add to the environment of the processes.

    Number and place of the processes, and the precision, are never the file's to say.

    Args:
        config: a name of ``po/configs``, or the path of a configuration of accelerate; None for DDP.
        n_processes: on all nodes.

    Raises:
        ValueError: an unknown name, a missing file, or a configuration that cannot be used here.
    """
    if config is None:
        return {}
    path = _config_path(config)
    try:
        args, environment = _accelerated(path, n_processes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"--config {path}: accelerate cannot use it: {error}") from error
    if args.use_fsdp and not torch.cuda.is_available():
        sys.stderr.write(
            f"{path}: no GPU here, and FSDP2 shares a model between GPUs only: each process has it whole\n"
        )
    return environment


def _config_path(config: str) -> Path:
    folder = Path(str(files("po") / "configs"))
    names = {path.stem: path for path in folder.glob("*.yaml")}
    if config in names:
        return names[config]
    path = Path(config)
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise ValueError(f"--config {config}: there is no such file below {Path.cwd()}")
    raise ValueError(f"--config {config}: no such configuration; {nearest(config, names)}")


def _accelerated(path: Path, n_processes: int) -> tuple[argparse.Namespace, dict[str, str]]:
    """Accelerate's reading of its configuration, and the variables that it would set."""
    import yaml
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import is_deepspeed_available
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    command = ["--config_file", str(path), "--num_processes", str(n_processes), "--num_machines", "1"]
    command += ["--machine_rank", "0", "--gpu_ids", "all", "--main_process_port", "0"]
    command += ["--mixed_precision", "no", "-m", "po.train"]
    parsed = launch_command_parser().parse_args(command)
    known = set(vars(parsed))
    try:
        args, read, _ = _validate_launch_command(parsed)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    if not any(getattr(args, name) for name in _KINDS.values()):
        raise ValueError(
            f"distributed_type {read.distributed_type} trains on one device; {', '.join(_KINDS)} do not"
        )
    if unknown := {*read.fsdp_config, *read.deepspeed_config} - known:
        name = min(unknown)
        alike = [key for key in known if key.split("_")[0] == name.split("_")[0]]
        raise ValueError(f"no launcher reads '{name}'; {nearest(name, alike)}")
    if args.use_deepspeed:
        if not is_deepspeed_available():
            raise ValueError("DeepSpeed is not installed (pip install deepspeed); fsdp2 needs nothing more")
        args.deepspeed_fields_from_accelerate_config = ",".join(read.deepspeed_config)
    told = prepare_deepspeed_cmd_env(args)[1] if args.use_deepspeed else prepare_multi_gpu_env(args)
    kept = {"OMP_NUM_THREADS", "PYTHONPATH"}  # threads are the stage's to say; our modules are found already
    return args, {k: v for k, v in told.items() if k not in kept and os.environ.get(k) != v}
