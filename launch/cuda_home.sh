# find_cuda: the folder of a CUDA toolkit with its compiler and headers; fails without one. Read by gpu_*.sh.
# shellcheck shell=sh

# torch takes the folder above `which nvcc`, which has no headers where nvcc is a wrapper of the toolkit's.
find_cuda() {
    nvcc=$(command -v nvcc || true)
    [ -z "$nvcc" ] || nvcc=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
    for folder in "${CUDA_HOME:-}" "$nvcc" /usr/local/cuda /usr/local/cuda-*; do
        [ -n "$folder" ] && [ -x "$folder/bin/nvcc" ] && [ -f "$folder/include/cuda_runtime.h" ] || continue
        echo "$folder"
        return
    done
    return 1
}
