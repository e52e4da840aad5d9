#!/usr/bin/env bash
# Does the paper's structure matter on rendered faces? The narrow full model against itself without
# motion features, without hierarchical relations, without temporal filters: three seeds each, the
# same data, steps, clips and backbone to begin with. Runs lie in runs/twin; docs/results/twin gets
# a line per finished run and the table. Safe to interrupt and repeat: what is finished is not done
# again.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
make_environment ""

render() {
  .venv/bin/mdhr synthesize --layout bp4d --frames_per_video 30 --size 110 "$@"
}

# A backbone that knows other people's faces: the quickstart's, without the parts to compare.
render --out runs/twin/others --seed 1 --subjects 1280 --videos_per_subject 1
.venv/bin/mdhr train --config configs/quickstart.py --workdir runs/twin/backbone \
  --config.data=runs/twin/others --config.epochs=37.5 --config.eval_every=1000 \
  --config.learning_rate=3e-2 --config.augmentation=0.15 \
  --config.model.dynamics.kind=none --config.model.afe=none --config.model.auxiliary=false \
  --config.model.edges=none --config.model.temporal=false

render --out runs/twin/data --seed 0 --subjects 640 --videos_per_subject 2
.venv/bin/mdhr compare --config configs/twin.py --config.data=runs/twin/data \
  --config.model.init_from=runs/twin/backbone --seeds 3 \
  --workdir runs/twin/runs --results docs/results/twin \
  --variant "full" \
  --variant "no motion (MFD): model.dynamics.kind=none" \
  --variant "no relations (HSR): model.afe=none model.auxiliary=false model.edges=none" \
  --variant "no temporal filter: model.temporal=false"
