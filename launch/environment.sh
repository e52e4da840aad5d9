# Makes .venv in the repository and installs the package into it. Source it, then call
#   make_environment "$(gpu_extra)"  for use
#   make_environment "[dev]"         for tests
# Safe to repeat: nothing happens while pyproject.toml and constraints.txt stay as they are.

find_python() {
  local candidate
  for candidate in python3.12 python3.13 python3.14 python3 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
  echo "Python 3.12 or newer is needed: install it (apt install python3.12 python3.12-venv," \
    "brew install python@3.12, or pyenv install 3.12) and run this again." >&2
  return 2
}

# The extra with which JAX uses this machine's NVIDIA GPUs; none without them.
gpu_extra() {
  if [ "${JAX_PLATFORMS:-}" != cpu ] && nvidia-smi -L >/dev/null 2>&1; then
    echo "[cuda]"
  fi
}

# Of what pip says: each package of 10 MB or more as it comes, and how many are put in place at last.
# What is wrong it says on stderr, which stays as it is.
in_brief() {
  local line name size commas
  while read -r line; do
    case "$line" in
      "Downloading "*[0-9][0-9].[0-9]" MB)" | "Using cached "*[0-9][0-9].[0-9]" MB)")
        name="${line%%-*}" size="${line##*(}"
        echo "  ${name##* } ${size%)}"
        ;;
      "Installing collected packages: "*)
        commas="${line//[^,]/}"
        echo "  putting $((${#commas} + 1)) packages in place, which takes about as long again"
        ;;
    esac
  done
}

make_environment() {
  local extras="$1" python stamp state start="$SECONDS"
  stamp=".venv/installed$extras"
  state="$(cat pyproject.toml constraints.txt | cksum)"
  if [ -x .venv/bin/mdhr ] && [ "$(cat "$stamp" 2>/dev/null)" = "$state" ]; then
    return
  fi
  python="$(find_python)" || return
  echo "Installing JAX, Flax and what they need into .venv, once: about 80 packages, 300 MB to" \
    "download (several GB with CUDA's libraries), about two minutes ..."
  [ -x .venv/bin/python ] || "$python" -m venv .venv || return
  (
    set -o pipefail
    .venv/bin/python -m pip install --progress-bar off --disable-pip-version-check \
      --constraint constraints.txt --editable ".$extras" | in_brief
  ) || return
  echo "$state" >"$stamp"
  echo "Installed in $((SECONDS - start)) s."
}
