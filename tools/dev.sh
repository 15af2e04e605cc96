#!/bin/sh
# What `make TARGET` runs, for machines without make: sh tools/dev.sh TARGET.
# Needs Python 3.11 or newer and the network, once; everything is installed into .venv from the hash-locked requirements.lock.
set -eu
cd "$(dirname "$0")/.."

VENV=.venv
BIN=$VENV/bin
STAMP=$VENV/.installed
PROJECT_PYTHON=${PYTHON:-}
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONUNBUFFERED=1
# Python keeps its bytecode (empty is the same as unset): tests start hundreds of processes, and without bytecode
# each of them compiles every module that it imports, 3 s of CPU time for a daemon.
export PYTHONDONTWRITEBYTECODE=

find_python() {
    for candidate in $PROJECT_PYTHON python3 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo "forewatch needs Python 3.11 or newer with venv (Debian: apt-get install python3-venv); set PYTHON=/path/to/python if it has another name" >&2
    exit 2
}

# The cache of a compiled function does not depend on the functions that it calls in other files, so that a changed
# callee would not be noticed.
remove_compiled() {
    find detectors pipeline storage \( -name '*.nbi' -o -name '*.nbc' \) -exec rm -f {} +
}

# Installs once: the stamp holds what it was made from, so a changed lock or pyproject installs again. Python's own
# bytecode is not written ahead: that takes 40 s, for modules of which most are never imported.
install() {
    wanted=$(cksum requirements.lock pyproject.toml)
    if [ -x "$BIN/python" ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    [ -x "$BIN/python" ] || "$(find_python)" -m venv "$VENV"
    echo "installing into $VENV (about 6.8 GB, most of it PyTorch; once; some minutes without a further line)" >&2
    "$BIN/python" -m pip install --quiet --no-compile --require-hashes --requirement requirements.lock
    "$BIN/python" -m pip install --quiet --no-compile --no-deps --no-build-isolation --editable .
    remove_compiled
    {
        "$BIN/python" -m pipeline.services.precompile || echo "not compiled ahead; the first run will take longer" >&2
        echo "$wanted" >"$STAMP"
    } &
}

# Runs a function while the installation compiles on another core, and waits for both, also if the function fails.
beside_compilation() {
    trap wait EXIT
    install
    "$@"
    wait
}

setup() {
    beside_compilation dashboard
}

# Builds the pages of the dashboard, if their sources have changed (about 10 s the first time).
dashboard() {
    "$BIN/python" tools/dashboard.py || echo "the dashboard is not built; everything else works. Try again with: make dashboard" >&2
}

lint() {
    dashboard
    "$BIN/ruff" check .
    "$BIN/ruff" format --check .
    "$BIN/mypy"
    "$BIN/lint-imports" --no-cache >/dev/null || "$BIN/lint-imports" --no-cache
    "$BIN/python" tools/ratchets.py
    "$BIN/python" tools/dashboard.py --check
}

# Runs the tests. One or two that fail run once more, alone: the machines of CI are loaded, and tests with real
# servers and browsers can run out of time. Both runs are printed; a test that passes only alone is to be repaired.
# The slowest ones are listed, to see where the time goes. Files run in the order of their names: the slow ones of
# faults/ and integration/ begin first, and the many short ones of unit/ fill all workers until the end.
run_tests() {
    code=0
    "$BIN/pytest" -q -m "not long" -n 3 --dist loadfile --no-loadscope-reorder --durations=40 --durations-min=5 "$@" </dev/null || code=$?
    failed=.pytest_cache/v/cache/lastfailed
    if [ $code -ne 1 ] || [ "$("$BIN/python" -c 'import json, sys; print(len(json.load(open(sys.argv[1]))))' $failed)" -gt 2 ]; then
        exit $code
    fi
    echo "these tests run once more, alone:" >&2
    exec "$BIN/pytest" -q -m "not long" --last-failed "$@" </dev/null
}

target=${1:-help}
[ $# -eq 0 ] || shift
case $target in
    setup) setup ;;
    dashboard) setup ;;
    demo) setup; exec "$BIN/forewatch" demo "$@" ;;
    test) beside_compilation lint; run_tests "$@" ;;
    lint) beside_compilation lint ;;
    format) setup; "$BIN/ruff" check --fix .; "$BIN/ruff" format . ;;
    docs) setup; "$BIN/python" -m pipeline.cli.docs docs; "$BIN/python" -m tools.monitoring; NO_MKDOCS_2_WARNING=1 "$BIN/mkdocs" build --strict --quiet; echo "the site is in site/index.html" >&2 ;;
    scenarios)
        setup
        for tier in light standard strong; do "$BIN/python" -m benchmarks.worlds --events --detector "$tier"; done
        worlds=${SCENARIOS:-../shared/scenarios}
        if [ ! -f "$worlds/score.py" ]; then
            echo "there is no folder $worlds with further worlds: set SCENARIOS to one that has score.py" >&2
            exit 0
        fi
        here=$PWD
        for tier in light standard strong; do
            (cd "$worlds" && PYTHONPATH="$here" "$here/$BIN/python" score.py --detector "$tier" "$@")
        done
        ;;
    lock)
        setup
        "$BIN/python" -m pip install --quiet uv
        "$BIN/uv" pip compile --quiet --universal --generate-hashes --no-emit-index-url --all-extras pyproject.toml -o requirements.lock
        ;;
    clean)
        rm -rf "$VENV" build dist site ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
        remove_compiled
        ;;
    *)
        echo "usage: make setup|dashboard|demo|test|lint|format|docs|scenarios|lock|clean (or: sh tools/dev.sh TARGET)" >&2
        exit 2
        ;;
esac
