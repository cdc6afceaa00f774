#!/usr/bin/env bash
# Train and compare two small networks on a CPU, in minutes: a plain one and one with non-local
# blocks learn "same or different" from video files. Creates .venv if no environment is active.
# The arguments are passed to scripts/quickstart.py, for instance --seed 1.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh ""
exec python scripts/quickstart.py "$@"
