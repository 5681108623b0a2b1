"""The script that every job of a submission runs. Short, so that it can be read when something is wrong."""

import shlex
from pathlib import Path

from experiments.schema_resources import Slurm
from slurm.site import ROOT

_SCRIPT = """\
#!/bin/bash
# A job of {submission}: does one element of an array. Called with the array's name.
requeue={requeue} asked= child= code=85
ask() {{                                # the time is nearly up (USR1), or the job is to end (TERM)
    [ "$asked" = TERM ] || asked=$1
    [ -n "$child" ] && kill -TERM "$child" 2>/dev/null
}}
trap 'ask USR1' USR1                   # before all else: unheard, either would end this script
trap 'ask TERM' TERM

{setup}
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
export OMP_NUM_THREADS=${{SLURM_CPUS_PER_TASK:-1}} SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-1}}
{offline}
{prefix}
if [ -z "$asked" ]; then
    {command} -m slurm.task {submission} "$1" &
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
if [ "$code" = 85 ] && [ "$asked" != TERM ] && [ $requeue = yes ]; then
    job=$SLURM_JOB_ID
    [ -n "$SLURM_ARRAY_JOB_ID" ] && job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
    restarts=$(scontrol show job "$job" | grep -o 'Restarts=[0-9]*')
    if [ "${{restarts#Restarts=}}" -gt "${{SLURM_RESTART_COUNT:-0}}" ] 2>/dev/null; then
        echo "SLURM has started this job again already, and lost sight of this copy" >&2
    else
        scontrol requeue "$job" || echo "not requeued; the next sbatch slurm/grid.sh goes on from here" >&2
    fi
fi
exit "$code"
"""

_OFFLINE = "case $1 in prepare-*) ;; *) export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 ;; esac"


def job_script(submission: Path, python: str, settings: Slurm) -> str:
    """The text of ``job.sh``.

    Args:
        submission: its folder.
        python: interpreter of the jobs.
        settings: of site and manifest.
    """
    return _SCRIPT.format(
        submission=shlex.quote(str(submission)),
        root=shlex.quote(str(ROOT)),
        setup="\n".join(settings.setup),
        command=" ".join(shlex.quote(word) for word in [*settings.prefix, python]),
        offline=_OFFLINE if settings.offline else "",
        prefix=f"export GRID_PREFIX={shlex.quote(shlex.join(settings.prefix))}\n" if settings.prefix else "",
        requeue="yes" if settings.requeue else "no",
    )
