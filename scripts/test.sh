#!/usr/bin/env bash
# Pass the tests. Makes .venv where no environment is active. Arguments go to pytest:
#   bash scripts/test.sh                 the default suite, minutes
#   bash scripts/test.sh -m slow         the slow checks alone
#   bash scripts/test.sh -m gpu          what needs a CUDA device
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh "[dev]"
if [ $# -eq 0 ]; then set -- -m "not slow and not gpu"; fi
exec python -m pytest "$@"
