#!/usr/bin/env bash
# Makes the virtual environment named by the first argument with the first Python of version 3.11 to 3.13 that is found.
set -euo pipefail
for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        "$candidate" -m venv "$1" || {
            echo "$candidate cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2
            exit 1
        }
        "$1/bin/python" -m pip install --quiet --upgrade pip
        exit 0
    fi
done
echo "no Python 3.11, 3.12 or 3.13 found; install one or call: make PYTHON=/path/to/python3.11 ..." >&2
exit 1
