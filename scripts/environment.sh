# The other scripts source this file. It activates an environment and installs nlnet in it: the
# active environment if there is one, else .venv, which is created if it is missing. $1 are the
# extras of nlnet, for instance "[dev]".

if [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ]; then
    python=""
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "error: no Python >= 3.10 with the venv module on the path; install one" >&2
        exit 1
    fi
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    # shellcheck disable=SC1091
    . .venv/bin/activate
fi

# Install only when something is missing or the list of dependencies has changed.
stamp="$(python -c 'import sys; print(sys.prefix)')/.nlnet-installed${1//[^a-z]/-}"
if ! cmp -s pyproject.toml "$stamp" || ! python -c 'import nlnet' 2>/dev/null; then
    echo "Installing nlnet${1:-} and what it needs (PyTorch is large: a few minutes) ..."
    python -m pip install --quiet --disable-pip-version-check -e ".${1:-}"
    cp pyproject.toml "$stamp"
fi
