#!/usr/bin/env bash
# Run the tests. Creates .venv if no environment is active. The arguments are passed to pytest:
#   bash scripts/test.sh                 the default suite, which takes minutes
#   bash scripts/test.sh -m slow         the slow tests only
#   bash scripts/test.sh -m gpu          the tests that need a CUDA device
#   bash scripts/test.sh -n 0 FILE       one file in this process, for a debugger
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh "[dev]"
# One thread per process and one process per core; more than four processes need much memory.
# With worksteal, tests of one file run in one process and share what they have prepared.
cores="$(env -u OMP_NUM_THREADS nproc)"  # nproc prints OMP_NUM_THREADS where it is set
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec python -m pytest -n "$cores" --maxprocesses 4 --dist worksteal "$@"
