#!/usr/bin/env bash
# The paper's Tables 3, 4 and 5 and its forms of what the release does otherwise, on rendered faces
# with the narrow model: 26 rows, three seeds each. Arguments go to `mdhr tables`, such as
# --processes 2. Runs lie in runs/tables; docs/results/tables gets a line per finished run, tables
# and pictures. Safe to interrupt and repeat: what is finished is not done again.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment "$(gpu_extra)"
source launch/compared_faces.sh

for table in 3 4 5 forms; do
  .venv/bin/mdhr tables --table "$table" --config ablations_narrow \
    --config.model.init_from=runs/twin/backbone --data runs/twin/data --seeds 3 \
    --budget-steps 400 --workdir runs/tables --results docs/results/tables "$@"
done
