#!/usr/bin/env bash
# Everything that is asked of a GPU, in order of importance, within a budget of seconds; one line of
# JSON in DIR/lines.jsonl for each part, when it is there. Installs nothing and needs no network: the
# Python of .venv, else python3, has JAX with CUDA, and PyTorch if that is to be compared.
#   bash launch/measure.sh --out DIR [--budget 540] [--parts NAME,...] [--torch PYTHON]
#   bash launch/measure.sh --out DIR --size small     # dry run on a CPU, minutes
#   bash launch/measure.sh --table DIR                # Markdown
set -euo pipefail
repository="$(cd "$(dirname "$0")/.." && pwd)"
python="$repository/.venv/bin/python"
if [ ! -x "$python" ]; then
  python=python3
fi
export PYTHONPATH="$repository${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" "$repository/benchmarks/measure.py" "$@"
