#!/bin/sh
# Makes .gpu/python for `make gpu` on a bare image: its own Python 3.12 with torch and CUDA, and before its packages those
# that the folder WHEELS carries. Nothing is downloaded. No venv: made from an image's own venv it would not see its torch.
# What is carried as source is compiled for this GPU alone. Triton keeps what it compiles and tunes in .gpu/triton.
# Called by the Makefile from the root of the checkout. Says what it could not install; exits 2 with the cure if it cannot begin.
set -eu

wheels=${WHEELS:-.wheels}
home=${GPU_HOME:-.gpu}
limit=${BUILD_SECONDS:-400}  # of each package

has_cuda() {
    "$1" -c 'import sys, torch; sys.exit(sys.version_info[:2] != (3, 12) or not torch.cuda.is_available())' >/dev/null 2>&1
}

find_python() {
    for name in "${PYTHON:-}" python3 python3.12 python; do
        [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 && has_cuda "$name" && command -v "$name" && return
        [ -z "${PYTHON:-}" ] || return 1
    done
    return 1
}

python=$(find_python) || {
    echo "gpu set-up asked for a Python 3.12 whose torch sees a GPU: ${PYTHON:-python3} has no CUDA device, no torch or" \
        "another version; the proof needs one; run 'make gpu PYTHON=/path/to/python3.12' in an image with PyTorch and CUDA" >&2
    exit 2
}
[ -d "$wheels" ] || {
    echo "gpu set-up asked for the folder WHEELS=$wheels: it is not there; the proof installs from it and downloads nothing;" \
        "run 'make gpu-wheels' on a machine with a package index and carry that folder along" >&2
    exit 2
}
wheels=$(cd "$wheels" && pwd)
# shellcheck source=launch/cuda_home.sh
. launch/cuda_home.sh

mkdir -p "$home/site"
home=$(cd "$home" && pwd)
site=$home/site
log=$home/install.log
cat >"$home/python" <<EOF
#!/bin/sh
export TRITON_CACHE_DIR="$home/triton" TRITON_CACHE_AUTOTUNING=1
PYTHONPATH="$site:$(pwd)/.imports\${PYTHONPATH:+:\$PYTHONPATH}" exec "$python" "\$@"
EOF
chmod +x "$home/python"
# Its package imports Mamba-1, whose only compiled part is not carried: nothing here calls it.
echo 'selective_scan_fwd = selective_scan_bwd = None' >"$site/selective_scan_cuda.py"

install() {  # name to show, then pip's words; one by one, so that one that fails costs no other
    name=$1
    shift
    stamp=$home/done-$(basename "$name")
    [ -f "$stamp" ] && return 0
    began=$(date +%s)
    rm -rf "$home/part"  # a folder of its own: pip --target replaces folders that several packages share
    if timeout "$limit" "$home/python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps \
        --target "$home/part" "$@" >"$log" 2>&1 && cp -R "$home/part/." "$site/"; then
        touch "$stamp"
        echo "gpu set-up: $name, $(($(date +%s) - began)) s"
    else
        echo "gpu set-up: could not install $name: $(tail -n 1 "$log")"
    fi
}

is_there() {
    "$python" -c 'import importlib.metadata as m, sys; m.version(sys.argv[1])' "$1" >/dev/null 2>&1
}

for file in "$wheels"/*.whl; do
    [ -f "$file" ] || continue
    name=$(basename "$file")
    case ${name%%-*} in
    einops | psutil | [Pp][Yy][Yy][Aa][Mm][Ll] | tokenizers)  # any version does, and the image's fits its other packages
        is_there "${name%%-*}" && continue ;;
    esac
    install "$name" --no-compile "$file"
done

if cuda=$(find_cuda); then
    export CUDA_HOME="$cuda"
fi
TORCH_CUDA_ARCH_LIST=$("$home/python" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())')
MAX_JOBS=${MAX_JOBS:-$(nproc)}
MAMBA_FORCE_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE NVTE_FRAMEWORK=pytorch
export TORCH_CUDA_ARCH_LIST MAX_JOBS MAMBA_FORCE_BUILD CAUSAL_CONV1D_FORCE_BUILD NVTE_FRAMEWORK
for file in "$wheels"/causal_conv1d-*.tar.gz "$wheels"/mamba_ssm-*.tar.gz "$wheels"/transformer_engine_torch-*.tar.gz; do
    [ -f "$file" ] || continue
    name=$(basename "$file" .tar.gz)
    rm -rf "$home/source/$name"
    mkdir -p "$home/source"
    if ! tar -xzf "$file" -C "$home/source" 2>/dev/null; then
        echo "gpu set-up: could not unpack $name.tar.gz"
        continue
    fi
    [ -n "${CUDA_HOME:-}" ] || {
        echo "gpu set-up: could not compile $name: no CUDA toolkit here (a folder with bin/nvcc and include/cuda_runtime.h)"
        continue
    }
    case $name in
    causal_conv1d-* | mamba_ssm-*) sh launch/gpu_flags.sh "$home/source/$name/setup.py" ;;
    esac
    install "$name" --no-build-isolation "$home/source/$name"
done
echo "gpu set-up: done"
