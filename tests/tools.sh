#!/bin/sh
# Installs what building llama.cpp needs and this machine lacks: cmake, a C++ compiler, libclang; and Rust's own tool.
set -eu

missing=""
command -v cmake >/dev/null 2>&1 || missing="$missing cmake"
command -v c++ >/dev/null 2>&1 || missing="$missing g++"
# bindgen loads libclang; any version will do.
if ! ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* \
        /Library/Developer/CommandLineTools/usr/lib/libclang.dylib /opt/homebrew/opt/llvm/lib/libclang.dylib \
        2>/dev/null | grep -qv 'libclang-cpp'; then
    missing="$missing clang libclang-dev"
fi
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
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq $missing >/dev/null
elif [ "$(uname)" = Darwin ]; then
    echo "error: missing:$missing; run 'xcode-select --install' and 'brew install cmake', then try again" >&2
    exit 1
else
    echo "error: missing:$missing; install them with this system's package manager, then try again" >&2
    exit 1
fi
