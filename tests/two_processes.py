"""Two processes that find one another through gloo, forked so that no interpreter has to start."""

import os

from processes import fork, wait

TIMEOUT_S = 90.0


def in_two_processes(folder, work):
    """Runs ``work(rank)`` in two processes of one group; fails unless both end well.

    Args:
        folder: an empty folder, for the file by which they meet.
        work: sees RANK and WORLD_SIZE as a launcher sets them, and an initialized torch.distributed.
    """
    children = [fork(lambda rank=rank: _one(folder, rank, work)) for rank in range(2)]
    codes = [wait(child, TIMEOUT_S) for child in children]
    assert codes == [0, 0], codes


def _one(folder, rank, work):
    import torch.distributed as dist
    from accelerate.state import AcceleratorState, GradientState, PartialState

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "ACCELERATE_USE_CPU": "true"}
    for state in (AcceleratorState, GradientState, PartialState):  # of the process that forked
        state._reset_state()
    dist.init_process_group("gloo", init_method=f"file://{folder / 'group'}", rank=rank, world_size=2)
    try:
        work(rank)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    return 0
