#!/usr/bin/env bash
# An environment of its own for the mtcnn package with TensorFlow, .venv-mtcnn, with which
# benchmarks/faces.py compares. The package mdhr-jax never needs it. Safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."

if .venv-mtcnn/bin/python -c "import mtcnn" 2>/dev/null; then
  exit
fi
for python in $(type -ap python3.13 python3.12 python3.11); do
  rm -rf .venv-mtcnn
  "$python" -m venv .venv-mtcnn 2>/dev/null || continue
  echo "Installing mtcnn and TensorFlow into .venv-mtcnn (once) ..."
  .venv-mtcnn/bin/python -m pip install --quiet --disable-pip-version-check \
    mtcnn==1.0.0 tensorflow-cpu==2.21.0 2>/dev/null && exit
done
rm -rf .venv-mtcnn
echo "TensorFlow 2.21.0 is not offered for any Python here." >&2
exit 3
