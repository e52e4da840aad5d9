#!/usr/bin/env bash
# The environment and the tests: in minutes what a change may break, with --all everything but
# launch/soak.sh's, beside PyTorch as well. Other arguments are passed on to pytest. CI runs --all.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment "[dev]"
unset PYTHONDONTWRITEBYTECODE # the tests start the commands some hundred times
chosen="not long and not soak"
if [ "${1:-}" = --all ]; then
  shift
  chosen="not soak"
  bash launch/torch_env.sh || true # without it, comparisons with PyTorch are skipped, but in CI
fi
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/mypy
.venv/bin/pytest -m "$chosen" "$@"
