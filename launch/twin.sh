#!/usr/bin/env bash
# Does the paper's structure matter on rendered faces? The narrow full model against itself without
# motion features, without hierarchical relations, without temporal filters: three seeds each, the
# same data, steps, clips and backbone to begin with. Runs lie in runs/twin; docs/results/twin gets
# a line per finished run and the table. Safe to interrupt and repeat: what is finished is not done
# again.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment "$(gpu_extra)"
source launch/compared_faces.sh

.venv/bin/mdhr compare --config twin --config.data=runs/twin/data \
  --config.model.init_from=runs/twin/backbone --seeds 3 \
  --workdir runs/twin/runs --results docs/results/twin \
  --variant "full" \
  --variant "no motion (MFD): model.dynamics.kind=none" \
  --variant "no relations (HSR): model.afe=none model.auxiliary=false model.edges=none" \
  --variant "no temporal filter: model.temporal=false"
