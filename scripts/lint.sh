#!/bin/sh
# The gates besides tests. Each runs even if one before it failed; the exit code is that of the first that failed.
cd "$(dirname "$0")/.." || exit 1
status=0

step() {
    name=$1
    shift
    echo "-- $name"
    started=$(date +%s)
    "$@"
    code=$?
    echo "-- $name: exit $code after $(($(date +%s) - started)) s"
    [ "$status" -ne 0 ] || status=$code
}

step "ruff" .venv/bin/ruff check --output-format concise src tests scripts benchmarks examples fuzz
step "mypy" .venv/bin/mypy
step "import rules" .venv/bin/lint-imports --no-logo
step "generated files" .venv/bin/python scripts/generate.py --check
step "coverage of the vocabularies" .venv/bin/tunewright coverage
exit "$status"
