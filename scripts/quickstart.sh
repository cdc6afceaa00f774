#!/usr/bin/env bash
# The main job in minutes on a CPU: two small networks learn "same or different" from real video
# files, one plain, one with non-local blocks. Makes .venv where no environment is active.
# Arguments go to scripts/quickstart.py, for instance --seed 1.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh ""
exec python scripts/quickstart.py "$@"
