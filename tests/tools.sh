#!/bin/sh
# Installs what building llama.cpp needs and this machine lacks: cmake, a C++ compiler, libclang with its headers.
# Rust it only asks for. Its test gives a folder to look for libclang in, instead of /.
set -eu
root="${1:-}"

# Whether one of the files is there: a pattern that matches none stands for itself.
any() {
    for file in "$@"; do
        case "$file" in *libclang-cpp*) continue ;; esac
        [ -e "$file" ] && return 0
    done
    return 1
}

missing=""
command -v cmake >/dev/null 2>&1 || missing="$missing cmake"
command -v c++ >/dev/null 2>&1 || missing="$missing g++"
# bindgen loads libclang, any version; without clang's own headers, which libclang1 leaves out, it finds no stddef.h.
any "$root"/usr/lib/llvm-*/lib/libclang*.so* "$root"/usr/lib/*/libclang*.so* "$root"/usr/lib64/libclang*.so* \
    "$root"/Library/Developer/CommandLineTools/usr/lib/libclang.dylib "$root"/opt/homebrew/opt/llvm/lib/libclang.dylib &&
    any "$root"/usr/lib/llvm-*/lib/clang/*/include/stddef.h "$root"/usr/lib*/clang/*/include/stddef.h \
        "$root"/Library/Developer/CommandLineTools/usr/lib/clang/*/include/stddef.h \
        "$root"/opt/homebrew/opt/llvm/lib/clang/*/include/stddef.h ||
    missing="$missing clang libclang-dev"
if ! command -v cargo >/dev/null 2>&1; then
    echo "error: cargo is missing; install Rust from rustup.rs and run this again" >&2
    exit 1
fi
[ -z "$missing" ] && exit 0

if command -v apt-get >/dev/null 2>&1; then
    sudo=""
    [ "$(id -u)" = 0 ] || sudo="sudo"
    echo "installing:$missing" >&2
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    # Behind sudo, which clears the environment.
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null
elif [ "$(uname)" = Darwin ]; then
    echo "error: missing:$missing; run 'xcode-select --install' and 'brew install cmake', then try again" >&2
    exit 1
else
    echo "error: missing:$missing; install them with this system's package manager, then try again" >&2
    exit 1
fi
