#!/bin/sh
# Compile and install llama-cpp-python into an environment, as this machine needs it.
#
#   tools/install_llama_cpp.sh .venv/bin/python llama-cpp-python==0.3.36
#
# CMAKE_ARGS of the caller are added: CMAKE_ARGS=-DGGML_CUDA=on. Does nothing where the same build is installed.
# RPC is always built in: it makes a GPU-type device out of any machine. pip's cache is not used, because it
# keeps one wheel for all build options.
set -eu
python=$1
requirement=$2

# Some virtual machines list AMX among the processor's features and fault at its first instruction; a native
# build would crash there in the first prompt. The only way to know is to run one, in a process of its own.
amx_works() {
    grep -qs amx_tile /proc/cpuinfo || return 0
    folder=$(mktemp -d)
    cat >"$folder/tile.c" <<'PROGRAM'
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    /* arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA); where the kernel refuses, llama.cpp uses no AMX */
    if (syscall(SYS_arch_prctl, 0x1023, 18)) return 0;
    struct __attribute__((aligned(64))) {
        unsigned char palette, start_row, reserved[14];
        unsigned short bytes[16];
        unsigned char rows[16];
    } config = {.palette = 1, .bytes = {64, 64, 64}, .rows = {16, 16, 16}};
    _tile_loadconfig(&config);
    _tile_zero(0);
    _tile_dpbssd(0, 1, 2);
    _tile_release();
    return 0;
}
PROGRAM
    if ! ${CC:-cc} -O1 -mamx-tile -mamx-int8 -o "$folder/tile" "$folder/tile.c" 2>/dev/null; then
        rm -rf "$folder"
        return 0
    fi
    status=0
    ("$folder/tile"; exit $?) 2>/dev/null || status=$?
    rm -rf "$folder"
    return "$status"
}

arguments="-DGGML_RPC=ON ${CMAKE_ARGS:-}"
if ! amx_works 2>/dev/null; then
    echo "This machine lists AMX but cannot run it: llama.cpp is built without."
    without='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'
    arguments="$arguments -DCMAKE_C_FLAGS='$without' -DCMAKE_CXX_FLAGS='$without'"
fi

built="$(dirname "$python")/../llama-cpp-python.built"
wanted="$requirement $arguments"
supports_rpc='from llama_cpp import llama_supports_rpc; raise SystemExit(not llama_supports_rpc())'
if [ -f "$built" ] && [ "$(cat "$built")" = "$wanted" ] && "$python" -c "$supports_rpc" 2>/dev/null; then
    exit 0
fi
echo "Compiling $requirement ($arguments); this takes some minutes."
rm -f "$built"
"$python" -m pip uninstall --quiet --yes llama-cpp-python
CMAKE_ARGS="$arguments" "$python" -m pip install --quiet --no-cache-dir --no-binary llama-cpp-python "$requirement"
"$python" -c "$supports_rpc"
printf '%s' "$wanted" >"$built"
