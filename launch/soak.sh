#!/usr/bin/env bash
# What takes longer than CI has time for: a training that is killed at random moments ends with the
# same bits, the memory of a long one stays flat; preparations killed more often, files damaged in more
# ways; the whole official lists; long comparisons with PyTorch, after launch/torch_env.sh. Arguments go
# to pytest.
#   KILLS=200 STEPS=50000 bash launch/soak.sh    # by default 50 and 5000
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment "[dev]"
# One after the other, so that memory is the training's own.
.venv/bin/pytest -m soak --numprocesses=0 --capture=no tests/soak_test.py "$@"
preparations=tests/data/prepare_soak_test.py
KILLS=10 DAMAGES=500 .venv/bin/pytest -m "long or soak" "$preparations" "$@"
.venv/bin/pytest -m soak --ignore=tests/soak_test.py --ignore="$preparations" "$@"
