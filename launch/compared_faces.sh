# What launch/twin.sh and launch/tables.sh train on, in runs/twin; source it. Safe to repeat.
#   data      rendered people
#   backbone  the quickstart's net without the parts to compare, taught on other people: all runs
#             start from it, as the paper's start from ImageNet's

render() {
  .venv/bin/mdhr synthesize --layout bp4d --frames_per_video 30 --size 110 "$@"
}

render --out runs/twin/others --seed 1 --subjects 1280 --videos_per_subject 1
.venv/bin/mdhr train --config quickstart --workdir runs/twin/backbone \
  --config.data=runs/twin/others --config.epochs=37.5 --config.eval_every=1000 \
  --config.learning_rate=3e-2 --config.warmup_epochs=0.4 --config.augmentation=0.15 \
  --config.model.dynamics.kind=none --config.model.afe=none --config.model.auxiliary=false \
  --config.model.edges=none --config.model.temporal=false

render --out runs/twin/data --seed 0 --subjects 640 --videos_per_subject 2
