#!/usr/bin/env bash
# All tests but launch/soak.sh's, slow ones included; arguments are passed on to pytest. CI runs this.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment "[dev]"
unset PYTHONDONTWRITEBYTECODE # the tests start the commands some hundred times
bash launch/torch_env.sh || true # without it, comparisons with PyTorch are skipped, but in CI
.venv/bin/ruff format --check .
.venv/bin/ruff check .
.venv/bin/pytest -m "not soak" "$@"
