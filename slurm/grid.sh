#!/bin/bash
# Queues a study on a SLURM cluster, from a small job of its own:
#
#     sbatch slurm/grid.sh experiments/manifests/mt.yaml [--only method=dpo] [--site FILE] [--retry-failed]
#
# The same command again goes on with what is missing. `python -m slurm.submit --help` tells the options. What was queued,
# or why nothing was, is in grid-<job id>.log where sbatch was called. Where the cluster insists on a partition or an
# account, give them here too: sbatch -p cpu -A my-project slurm/grid.sh ...; slurm/site.yaml is for the jobs that follow.
#
# GRID_ROOT    the project, where it is not found beside this script or in the folder that sbatch is called in
# GRID_PYTHON  the interpreter; default: the project's .venv
#
#SBATCH --job-name=grid
#SBATCH --time=00:15:00
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --output=grid-%j.log
#SBATCH --open-mode=append

if [ -z "$SLURM_JOB_ID" ]; then
    case ${1-} in '' | -*) set -- experiments/manifests/demo.yaml "$@" ;; esac
    echo "This script is for SLURM:     sbatch $0 $*" >&2
    echo "What it would do:             python -m slurm.submit $* --dry-run" >&2
    echo "The same without a cluster:   python -m experiments.run $*" >&2
    exit 2
fi

if [ -n "$GRID_ROOT" ] && [ ! -f "$GRID_ROOT/slurm/submit.py" ]; then
    echo "error: GRID_ROOT is $GRID_ROOT, where the project is not: there is no slurm/submit.py" >&2
    exit 2
fi
# SLURM runs a copy of this script, so that its own path says nothing; SLURM remembers where it was.
script=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/^ *Command=\(.*slurm\/grid\.sh\).*/\1/p' | head -n 1)
for root in "$GRID_ROOT" "${script%/slurm/grid.sh}" "$SLURM_SUBMIT_DIR"; do
    [ -n "$root" ] && [ -f "$root/slurm/submit.py" ] && break
    root=
done
if [ -z "$root" ]; then
    echo "error: the project is not in $SLURM_SUBMIT_DIR; call sbatch there, or set GRID_ROOT to it" >&2
    exit 2
fi
python=${GRID_PYTHON:-$root/.venv/bin/python}
if ! command -v "$python" >/dev/null; then
    echo "error: there is no $python; run 'make setup' in $root, or set GRID_PYTHON" >&2
    exit 2
fi

cd "$SLURM_SUBMIT_DIR" || exit 2
# PYTHONSAFEPATH: a folder of the same name where sbatch was called, as of another checkout, is not ours.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
exec "$python" -m slurm.submit "$@"
