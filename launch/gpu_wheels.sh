#!/bin/sh
# Fills the folder WHEELS with what `make gpu` installs on a machine that can fetch nothing. Here there is a package index.
# mamba-ssm comes as pure Python: its only compiled part is Mamba-1's. causal-conv1d is compiled here for one kind of GPU
# (GPU_ARCH) against the torch of the image (GPU_TORCH), where there is a CUDA toolkit; else its source is carried.
# Called by the Makefile from the root of the checkout, after `make environment`. Prints what it does.
set -eu

wheels=${WHEELS:-.wheels}
torch=${GPU_TORCH:-2.11.0}
arch=${GPU_ARCH:-9.0}
python=$(pwd)/.venv/bin/python
# shellcheck source=launch/cuda_home.sh
. launch/cuda_home.sh

rm -rf "$wheels"
mkdir -p "$wheels"
pip() {
    verb=$1
    shift
    "$python" -m pip "$verb" --quiet --disable-pip-version-check --no-deps -c constraints.txt "$@"
}

pip download --only-binary=:all: -d "$wheels" megatron-core einops PyYAML psutil tokenizers
MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE \
    pip wheel --no-build-isolation --no-binary=mamba-ssm -w "$wheels" mamba-ssm
CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE \
    pip download --no-build-isolation --no-binary=:all: -d "$wheels" causal-conv1d

build_convolution() {
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$work/torch" "torch==$torch"
    # the libraries that it loads come from .venv: of the same major version of CUDA, and only to be imported
    ln -s "$("$python" -c 'import nvidia; print(list(nvidia.__path__)[0])')" "$work/torch/nvidia"
    tar -xzf "$wheels"/causal_conv1d-*.tar.gz -C "$work"
    sh launch/gpu_flags.sh "$work"/causal_conv1d-*/setup.py
    CUDA_HOME=$cuda TORCH_CUDA_ARCH_LIST=$arch MAX_JOBS=${MAX_JOBS:-2} CAUSAL_CONV1D_FORCE_BUILD=TRUE \
        LDFLAGS=-Wl,-s PYTHONPATH="$work/torch" \
        "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
        -w "$wheels" "$work"/causal_conv1d-*/ && rm "$wheels"/causal_conv1d-*.tar.gz
}

if cuda=$(find_cuda); then
    began=$(date +%s)
    build_convolution
    echo "causal-conv1d for compute capability $arch and torch $torch: $(($(date +%s) - began)) s with the compiler of $cuda"
else
    echo "no CUDA toolkit here (nvcc and cuda_runtime.h): causal-conv1d is carried as source and compiled on the GPU machine"
fi
PYTHONPATH=.imports:. "$python" -m tests.gpu.luggage "$wheels"
