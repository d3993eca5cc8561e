#!/bin/sh
# Build llama-bench and llama-perplexity from the source of the llama-cpp-python that an environment has, for
# `ggufbench verify`.
#
#   tools/build_llama_bench.sh .venv/bin/python [FOLDER]
#
# Where that package holds llama.cpp's libraries, both are linked to those very files: both sides of a comparison
# then run the same machine code, and only the harness around it differs. Elsewhere the whole of llama.cpp is
# compiled with the build options that tools/install_llama_cpp.sh wrote down. Does nothing where the same build is
# there. The path of llama-bench is the last line printed. FOLDER is .llama-bench if not given.
set -eu
python=$1
folder=${2:-.llama-bench}

facts=$("$python" - <<'PY'
import importlib.metadata, importlib.util, pathlib
package = pathlib.Path(importlib.util.find_spec("llama_cpp").origin).parent
print(importlib.metadata.version("llama-cpp-python"))
print(package / "lib")
print(package.parent / "lib")
PY
)
version=$(echo "$facts" | sed -n 1p)
libraries=$(echo "$facts" | sed -n 2p)
common=$(echo "$facts" | sed -n 3p)
built="$(dirname "$python")/../llama-cpp-python.built"
options=$(cut -s -d ' ' -f 2- "$built" 2>/dev/null || true)

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
wanted="$version $options $(cat "$libraries"/libllama.* 2>/dev/null | cksum)"
if [ -x "$folder/llama-bench" ] && [ -x "$folder/llama-perplexity" ] && [ "$(cat "$folder/built" 2>/dev/null)" = "$wanted" ]; then
    echo "$folder/llama-bench"
    exit 0
fi

work="$folder/work"
rm -rf "$work" "$folder/built" "$folder/llama-bench" "$folder/llama-perplexity"
mkdir -p "$work/tmp"
trap 'rm -rf "$work"' EXIT
echo "Fetching the source of llama-cpp-python $version."
TMPDIR="$work/tmp" nice "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python \
    --dest "$work" "llama-cpp-python==$version"
tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work" --strip-components 1
source="$work/vendor/llama.cpp"

if ls "$common"/libllama-common.* >/dev/null 2>&1; then
    echo "Linking to the libraries in $libraries."
    case $(uname -s) in
    # Every library is asked for by the program itself, and found in the package before anywhere else.
    Linux) linking="-Wl,--disable-new-dtags -Wl,--no-as-needed" ;;
    *) linking= ;;
    esac
    for tool in llama-bench perplexity; do
        # Two options or none, hence no quotes.
        # shellcheck disable=SC2086
        nice "${CXX:-c++}" -std=c++17 -O3 -DNDEBUG -o "$folder/llama-${tool#llama-}" \
            -I"$source/common" -I"$source/include" -I"$source/ggml/include" -I"$source/vendor" \
            "$source/tools/$tool/$tool.cpp" "$source/tools/$tool/main.cpp" \
            $linking -Wl,-rpath,"$libraries" -Wl,-rpath,"$common" -L"$libraries" -L"$common" \
            -lllama-common -lllama -lggml -lggml-base -lpthread
    done
else
    echo "Compiling llama.cpp ($options); this takes some minutes."
    # The options hold quoted values; eval reads them as the shell of the installation did.
    eval nice cmake -S '"$source"' -B '"$work/build"' -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF \
        -DBUILD_SHARED_LIBS=OFF "$options"
    nice cmake --build "$work/build" --target llama-bench llama-perplexity -j 2
    cp "$work/build/bin/llama-bench" "$work/build/bin/llama-perplexity" "$folder"
fi
"$folder/llama-bench" --version
printf '%s' "$wanted" >"$folder/built"
echo "$folder/llama-bench"
