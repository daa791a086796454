#!/bin/sh
# Makes .venv once: finds a Python 3.12 (PATH, pyenv, uv), installs the pinned packages, then does nothing.
# The Python of mamba-ssm and causal-conv1d goes into .venv/interpreted, where only tests/interpreted looks: without
# their compiled parts nothing else may find them. No compiler is needed.
# trl goes into .venv/templates, where only a test reads its files: veRL imports from a trl that it finds what this one
# no longer has.
# megatron-bridge goes into .venv/bridge, where only a test imports its reader of packed Parquet: as a whole it needs
# Transformer Engine.
# Called by the Makefile from the root of the checkout. Prints what it does; exits 2 with the cure if it cannot.
set -eu

is_312() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' >/dev/null 2>&1
}

find_python() {
    for name in "${PYTHON:-}" python3.12 python3 python; do
        [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 && is_312 "$name" && command -v "$name" && return
    done
    for home in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv" "$(command -v pyenv >/dev/null 2>&1 && pyenv root || true)"; do
        [ -n "$home" ] || continue
        for path in "$home"/versions/3.12*/bin/python; do
            [ -x "$path" ] && is_312 "$path" && echo "$path" && return
        done
    done
    if command -v uv >/dev/null 2>&1; then
        path=$(uv python find 3.12 2>/dev/null || true)
        [ -n "$path" ] && is_312 "$path" && echo "$path" && return
    fi
    return 1
}

digest=$(cat constraints.txt constraints_alone.txt pyproject.toml setup.py launch/environment.sh | cksum | cut -d' ' -f1)
stamp=".venv/.frontload-$digest"
[ -f "$stamp" ] && exit 0

python=$(find_python) || {
    echo "set-up asked for Python 3.12: none on PATH, in pyenv or in uv; frontload needs exactly 3.12;" \
        "install it ('pyenv install 3.12' or 'uv python install 3.12') or run 'make PYTHON=/path/to/python3.12'" >&2
    exit 2
}
echo "set-up: $("$python" --version) at $python; packages from constraints.txt into .venv (once, some minutes)"
[ -x .venv/bin/python ] && is_312 .venv/bin/python || "$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[data,train,eval,rl,dev]' || {
    echo "set-up asked pip to install the packages of constraints.txt: it failed (see above);" \
        "the package index must be reachable once; run the same command again" >&2
    exit 2
}
rm -rf .venv/interpreted
MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE \
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
    --no-build-isolation --no-binary=mamba-ssm,causal-conv1d --target .venv/interpreted mamba-ssm causal-conv1d || {
    echo "set-up asked pip for the Python of mamba-ssm and causal-conv1d, whose kernels the tests interpret: it failed" \
        "(see above); the package index must be reachable once; run the same command again" >&2
    exit 2
}
rm -rf .venv/templates
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
    --target .venv/templates trl || {
    echo "set-up asked pip for trl, whose chat templates the tests read: it failed (see above);" \
        "the package index must be reachable once; run the same command again" >&2
    exit 2
}
rm -rf .venv/bridge
.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps \
    --target .venv/bridge megatron-bridge || {
    echo "set-up asked pip for megatron-bridge, whose reader of packs the tests read with: it failed (see above);" \
        "the package index must be reachable once; run the same command again" >&2
    exit 2
}
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r constraints_alone.txt || {
    echo "set-up asked pip to install the packages of constraints_alone.txt: it failed (see above);" \
        "the package index must be reachable once; run the same command again" >&2
    exit 2
}
rm -f .venv/.frontload-*
touch "$stamp"
echo "set-up: done"
