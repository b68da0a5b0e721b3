#!/bin/sh
# Breaks a copy of the code in each way that a patch here describes, and looks whether the tests notice.
#
#     sh tests/mutants/run.sh                   every mutant
#     sh tests/mutants/run.sh 'q-*' lenience    those named
#
# Prints one line per mutant, then `N passed, M failed`. Passed means caught: the test that the patch
# names fails. Failed means that it does not, or that the patch does not apply or build.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "${CARGO_TARGET_DIR:-$root/target}/mutants"
work=$(cd "${CARGO_TARGET_DIR:-$root/target}/mutants" && pwd)
copy=$work/copy
log=$work/log
# Most of the time goes into building, so: not optimised much, and only what changed.
export CARGO_TARGET_DIR="$work/build" CARGO_INCREMENTAL=1 CARGO_PROFILE_RELEASE_OPT_LEVEL=1
export GIT_CEILING_DIRECTORIES="$work" # for git the copy is not a part of this repository

main() {
    trap 'rm -rf "$copy"' EXIT
    trap 'exit 130' INT TERM
    rm -rf "$copy"
    mkdir -p "$copy"
    # Files of today (-m): cargo would take what the last mutant left behind for newer.
    (cd "$root" && git ls-files -z -- . ':!*.gguf' | tar -cf - --null -T -) | tar -xmf - -C "$copy"
    cd "$copy"

    if ! run --test exactness --test conformance; then
        cat "$log"
        echo "the code fails its tests as it is; mend that first" >&2
        exit 1
    fi
    passed=0 failed=0
    [ $# -gt 0 ] || set -- '*'
    for patch in "$here"/*.patch; do
        named "$patch" "$@" || continue
        if verdict=$(mutant "$patch"); then passed=$((passed + 1)); else failed=$((failed + 1)); fi
        printf '%-32s %s\n' "$(basename "$patch" .patch)" "$verdict"
    done
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}

# Whether a patch has one of the names.
named() {
    name=$(basename "$1" .patch)
    shift
    for wanted in "$@"; do
        # shellcheck disable=SC2254 # the name is a pattern
        case $name in $wanted) return 0 ;; esac
    done
    return 1
}

# Apply a patch, run the test that it names, take it back.
mutant() {
    by=$(sed -n 's/^# caught-by: //p' "$1")
    if ! git apply --recount -C1 "$1" 2>"$log"; then
        echo "DOES NOT APPLY: $(head -n 1 "$log")"
        return 1
    fi
    caught=1
    if ! run --test "${by% *}" --no-run; then
        echo "DOES NOT BUILD: $(grep -m 1 '^error' "$log")"
    elif run --test "${by% *}" -- --exact "${by#* }"; then
        echo "SURVIVED ${by% *}: ${by#* }"
    else
        echo "caught by ${by% *}: ${by#* }"
        caught=0
    fi
    git apply --recount -C1 -R "$1"
    return $caught
}

run() {
    cargo test --release --no-default-features --locked "$@" >"$log" 2>&1
}

main "$@"
