#!/usr/bin/env bash
# From nothing to a result: environment, rendered faces, training, F1 on unseen people.
# Arguments are passed on to `mdhr quickstart`. The result lies in runs/quickstart/.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment "$(gpu_extra)"
.venv/bin/mdhr quickstart "$@"
