"""The script that every job of a submission runs. Short, so that it can be read when something is wrong."""

import os
import shlex
from pathlib import Path

from experiments.schema_resources import Slurm
from slurm.site import ROOT

_SCRIPT = """\
#!/bin/bash
# A job of {submission}: does one element of an array. Called with the array's name.
array=$1 most_requeues={most_requeues} asked= child= code=85 again=
job=${{SLURM_JOB_ID:-}}
[ -n "${{SLURM_ARRAY_JOB_ID:-}}" ] && job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID

ask() {{                                # the time is nearly up (USR1), or the job is to end (TERM)
    [ -n "$child" ] && kill -TERM "$child" 2>/dev/null
    if [ "$1" = TERM ] && scontrol show job "$job" 2>/dev/null | grep -q Reason=TimeLimit; then
        start_again                    # saving takes longer than was thought; what comes next is SIGKILL
    elif [ "$asked" != TERM ]; then
        asked=$1
    fi
}}

start_again() {{
    [ -n "$again" ] && return
    again=asked
    restarts=$(scontrol show job "$job" | grep -o 'Restarts=[0-9]*')
    if [ "${{restarts#Restarts=}}" -gt "${{SLURM_RESTART_COUNT:-0}}" ] 2>/dev/null; then
        echo "SLURM has started this job again already, and lost sight of this copy" >&2
    elif [ "${{SLURM_RESTART_COUNT:-0}}" -ge "$most_requeues" ]; then
        echo "started again $most_requeues times (max_requeues); the next sbatch slurm/grid.sh goes on" >&2
    else
        scontrol requeue "$job" || echo "not requeued; the next sbatch slurm/grid.sh goes on from here" >&2
    fi
}}

trap 'ask USR1' USR1                   # before all else: unheard, either would end this script
trap 'ask TERM' TERM
set --
{setup}
set +eu +o pipefail                    # whatever those lines have set
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
export TOKENIZERS_PARALLELISM=false
export OMP_NUM_THREADS=${{SLURM_CPUS_PER_TASK:-1}} SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-1}}
{offline}
{prefix}
if [ -z "$asked" ]; then
    {command} -m slurm.task {submission} "$array" --index "${{SLURM_ARRAY_TASK_ID:-0}}" &
    child=$!
    [ -n "$asked" ] && kill -TERM "$child" 2>/dev/null
    while :; do                        # a signal ends `wait`, not the child
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    [ -n "$asked" ] && [ "$code" -gt 128 ] && code=85
fi

# 85: saved, to be started again. After TERM (scancel, preemption) that is left to whoever sent it.
[ "$code" = 85 ] && [ "$asked" != TERM ] && start_again
exit "$code"
"""

_OFFLINE = "case $array in prepare-*) ;; *) export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 ;; esac"
_SETUP = "{line} || echo {words} >&2"


def job_script(submission: Path, python: str, settings: Slurm) -> str:
    """The text of ``job.sh``.

    Args:
        submission: its folder.
        python: interpreter of the jobs.
        settings: of site and manifest.
    """
    command = [*settings.prefix, os.path.expanduser(python)]
    setup = (_SETUP.format(line=line, words=_complaint(line)) for line in settings.setup)
    return _SCRIPT.format(
        submission=shlex.quote(str(submission)),
        root=shlex.quote(str(ROOT)),
        setup="\n".join(setup),
        command=" ".join(shlex.quote(word) for word in command),
        offline=_OFFLINE if settings.offline else "",
        prefix=f"export GRID_PREFIX={shlex.quote(shlex.join(settings.prefix))}\n" if settings.prefix else "",
        most_requeues=settings.max_requeues if settings.requeue else 0,
    )


def _complaint(line: str) -> str:
    """What the log says of a line of ``setup`` that fails; the job goes on, for a line may mean no harm."""
    return shlex.quote(f"warning: this line of setup (site file, or slurm: of the manifest) failed: {line}")
