#!/usr/bin/env bash
# An environment of its own for PyTorch, .venv-torch, with which tests and benchmarks compare. The
# package never needs it. It is made where pip offers a build without CUDA; elsewhere this says so
# and ends with 3. Safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."
torch=torch==2.13.0
plan="$(mktemp)"
trap 'rm -f "$plan"' EXIT

if .venv-torch/bin/python -c "import torch, numpy" 2>/dev/null; then
  exit
fi
for python in $(type -ap python3.11 python3.12 python3.13 python3.14); do
  rm -rf .venv-torch
  "$python" -m venv .venv-torch 2>/dev/null || continue
  pip=(.venv-torch/bin/python -m pip --quiet --disable-pip-version-check)
  if "${pip[@]}" install --dry-run --report "$plan" "$torch" 2>/dev/null &&
    ! grep -q '"nvidia-' "$plan"; then
    echo "Installing $torch into .venv-torch (once) ..."
    "${pip[@]}" install "$torch" numpy
    exit
  fi
done
rm -rf .venv-torch
echo "No build of $torch without CUDA for any Python here: comparisons with PyTorch are skipped." >&2
exit 3
