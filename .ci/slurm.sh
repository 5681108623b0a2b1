#!/usr/bin/env bash
# Debian's SLURM, whose programs the tests start as processes of their own. Where it cannot be installed they are skipped.
set -u
PATH=$PATH:/usr/sbin
if command -v slurmctld >/dev/null && command -v munged >/dev/null; then
    exit 0
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
    as_root=(sudo -n)
fi
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq &&
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends slurm-wlm munge >/dev/null ||
    echo "SLURM could not be installed; its tests will be skipped" >&2
exit 0
