"""Whether a training may still publish: no longer, once its claim is another process's.

``experiments.stage_process`` names the claim in the environment. A training that was started without it, by
hand or by another launcher, has no claim and may.
"""

import json
import os
import sys

# experiments.claim imports this module too, so what is heavy is imported in the function that needs it

CLAIM_FILE = "STAGE_CLAIM_FILE"  # environment variable: path of the claim
CLAIM_TOKEN = "STAGE_CLAIM_TOKEN"  # environment variable: what is in that file as long as the claim is ours
LOST = 76  # exit code: another process does this stage now
_UNREADABLE = 1


def still_ours() -> bool:
    """Reads the claim again; True also where there is none.

    Raises:
        OSError: the file server gives no clear answer.
    """
    path, token = os.environ.get(CLAIM_FILE), os.environ.get(CLAIM_TOKEN)
    if not path or not token:
        return True
    try:
        with open(path, "rb") as file:
            # Under NFS a name may lead to the file that had it before for a while; that file has lost a link.
            has_its_name = os.fstat(file.fileno()).st_nlink > 1
            return has_its_name and bool(json.loads(file.read())["token"] == token)
    except FileNotFoundError:
        return False
    except (ValueError, TypeError, KeyError):
        return False  # not a claim that this program has written whole, as ours was


def stop_if_lost() -> None:
    """Ends a training whose claim is lost. All its processes call it, and the first one's answer counts.

    Raises:
        SystemExit: with status 76, in every process.
        OSError: the claim cannot be read; in the other processes this is a RuntimeError.
    """
    from accelerate import PartialState

    state, answer, error = PartialState(), 0, None
    if state.is_main_process:
        try:
            answer = 0 if still_ours() else LOST
        except OSError as unreadable:
            answer, error = _UNREADABLE, unreadable
    if state.num_processes > 1:
        answer = _sum_over_processes(answer)
    if error is not None:
        raise error
    if answer == _UNREADABLE:
        raise RuntimeError("the first process cannot read the claim; its message says why")
    if answer == LOST:
        if state.is_main_process:
            sys.stderr.write(f"{os.environ[CLAIM_FILE]}: taken over by another process; stopping\n")
        raise SystemExit(LOST)


def _sum_over_processes(value: int) -> int:
    import torch
    from accelerate import PartialState
    from accelerate.utils import reduce

    return int(reduce(torch.tensor(float(value), device=PartialState().device), reduction="sum").item())
