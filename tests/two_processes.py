"""Two processes that find one another through gloo, forked so that no interpreter has to start."""

import os
import pathlib

from processes import fork, wait

TIMEOUT_S = 90.0
CONFIGS = pathlib.Path(__file__).parent.parent / "po" / "configs"


def in_two_processes(folder, work, sharded=False, config="fsdp2"):
    """Runs ``work(rank)`` in two processes of one group; fails unless both end well.

    Args:
        folder: where the file lies by which they meet.
        work: sees RANK and WORLD_SIZE as a launcher sets them, and an initialized torch.distributed.
        sharded: as under ``po/configs/{config}.yaml``.
        config: ``fsdp2`` or ``zero3``.
    """
    children = start_two_processes(folder, work, sharded, config)
    codes = [wait(child, TIMEOUT_S) for child in children]
    assert codes == [0, 0], codes


def start_two_processes(folder, work, sharded=False, config="fsdp2"):
    """The ids of the two processes, which are not waited for."""
    (folder / "group").unlink(missing_ok=True)
    environment = launched(CONFIGS / f"{config}.yaml")[1] if sharded else {}
    return [fork(lambda rank=rank: _one(folder, rank, work, environment)) for rank in range(2)]


def launched(config):
    """Arguments and environment with which accelerate would start po.train under a configuration."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    command = ["--config_file", str(config), "--num_processes", "4", "-m", "po.train", "CELL"]
    parsed = launch_command_parser().parse_args(command)
    known = set(vars(parsed))
    args, read, _ = _validate_launch_command(parsed)
    unknown = {*read.fsdp_config, *read.deepspeed_config} - known
    assert not unknown, f"keys that accelerate's launcher does not read: {unknown}"
    if not args.use_deepspeed:
        return args, prepare_multi_gpu_env(args)
    args.deepspeed_fields_from_accelerate_config = ",".join(read.deepspeed_config)
    return args, prepare_deepspeed_cmd_env(args)[1]


def _one(folder, rank, work, environment):
    import torch.distributed as dist
    from accelerate.state import AcceleratorState, GradientState, PartialState

    os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for state in (AcceleratorState, GradientState, PartialState):  # of the process that forked
        state._reset_state()
    if "ACCELERATE_USE_FSDP" in environment:
        _count_cpus_as_gpus()
    dist.init_process_group("gloo", init_method=f"file://{folder / 'group'}", rank=rank, world_size=2)
    try:
        code = work(rank)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    return code or 0


def _count_cpus_as_gpus():
    """Accelerate shards only where it finds GPUs; all else of it works on CPUs too."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    initialize = PartialState.__init__

    def disguised(self, *args, **kwargs):
        initialize(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_GPU

    PartialState.__init__ = disguised
