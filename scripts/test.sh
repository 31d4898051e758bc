#!/bin/sh
# The whole test suite, as `make test` runs it: first what can share the cores, three at a time on one thread each, because some wait
# for processes that they killed; then the tests on the real model, one at a time on all cores. Both parts always run; the exit code is
# that of the first that failed.
cd "$(dirname "$0")/.." || exit 1
export HF_HUB_OFFLINE=1

echo "== tests, three at a time"
OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n 3 --dist worksteal --durations 40 --durations-min 10 -m "not real" "$@"
shared=$?
echo "== tests on the real model"
# Only their files are given: collecting all of the tests takes half a minute.
[ "$#" -gt 0 ] || set -- $(grep -rl --include "test_*.py" "pytest.mark.real" tests | sort)
.venv/bin/python -m pytest -q -m real "$@"
real=$?
[ "$shared" -eq 0 ] || exit "$shared"
exit "$real"
