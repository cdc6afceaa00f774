#!/usr/bin/env bash
# Pass the tests. Makes .venv where no environment is active. Arguments go to pytest:
#   bash scripts/test.sh                 the default suite, minutes
#   bash scripts/test.sh -m slow         the slow checks alone
#   bash scripts/test.sh -m gpu          what needs a CUDA device
#   bash scripts/test.sh -n 0 FILE       one file in this process, for a debugger
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh "[dev]"
# most of the suite waits for one thread: a process per core, as far as memory reaches
exec python -m pytest -n "$(nproc)" --maxprocesses 4 "$@"
