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

arguments="-DGGML_RPC=ON ${CMAKE_ARGS:-}"

# llama.cpp's AMX code can lose its tile configuration to the compiler, and then crashes in the first prompt
# (ggml-org/llama.cpp#20824, open as of 0.3.36). Where a processor has AMX, a native build would run into it.
if grep -qs amx_tile /proc/cpuinfo && [ -z "${GGUFBENCH_AMX:-}" ]; then
    echo "This processor has AMX, where llama.cpp may crash: building without. GGUFBENCH_AMX=1 keeps it."
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
