#!/usr/bin/env bash
# Sets up .venv from a hashed lock file, once per content of that file.
#
#   scripts/setup.sh run    what the examples need (requirements/run.txt)
#   scripts/setup.sh dev    all extras, tests and checks (requirements/dev.txt); serves "run" too. The clients that
#                           tests drive, which pin what they like, get .venv/clients (requirements/clients.txt),
#                           programs and stubs without what they need .venv/programs (requirements/programs.txt)
#
# PYTHON=... chooses the interpreter of a new .venv.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:?run or dev}
case $profile in
  run) lock=requirements/run.txt ;;
  dev) lock=requirements/dev.txt ;;
  *) echo "setup.sh: '$profile' is neither run nor dev" >&2; exit 2 ;;
esac

key() { cat "$1" requirements/build.txt requirements/clients.txt requirements/programs.txt pyproject.toml | cksum | tr -d ' '; }
stamp() { echo ".venv/.fairway-$1-$(key "$2")"; }

wanted=$(stamp "$profile" "$lock")
if [ -e "$wanted" ] || [ -e "$(stamp dev requirements/dev.txt)" ]; then
  exit 0
fi

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3 python; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Fairway needs Python 3.11, 3.12 or 3.13, and none is on PATH. Install one, or give PYTHON=/path/to/python." >&2
  return 1
}

if [ ! -x .venv/bin/python ]; then
  python=$(find_python)
  echo "Setting up .venv with $("$python" -V) ..."
  if ! "$python" -m venv .venv; then
    rm -rf .venv
    echo "'$python -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
  fi
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1
# Without bytecode on disk every start of `fairway` compiles what it imports, which takes longer than all else it does.
unset PYTHONDONTWRITEBYTECODE
export UV_COMPILE_BYTECODE=1
pip() { .venv/bin/python -m pip "$@"; }

# uv is here for speed only: pip installs it from the lock and is the fallback when uv cannot work
# (a proxy or certificate that only pip is configured for).
if [ ! -x .venv/bin/uv ]; then
  pip install --quiet --require-hashes --no-deps -r requirements/build.txt
fi
index=$(pip config get global.index-url 2>/dev/null || true)
index=${PIP_INDEX_URL:-$index}
if [ -n "$index" ]; then
  export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
fi
if [ -n "${PIP_CERT:-}" ]; then
  export SSL_CERT_FILE=${SSL_CERT_FILE:-$PIP_CERT}
fi

echo "Installing $lock ..."
rm -f .venv/.fairway-*
if ! .venv/bin/uv pip sync --python .venv/bin/python --quiet --require-hashes "$lock" requirements/build.txt; then
  echo "uv could not; trying pip ..."
  pip install --quiet --require-hashes -r "$lock" -r requirements/build.txt
fi
if [ "$profile" = dev ]; then
  echo "Installing requirements/clients.txt ..."
  [ -x .venv/clients/bin/python ] || .venv/bin/python -m venv --without-pip .venv/clients
  if ! .venv/bin/uv pip sync --python .venv/clients/bin/python --quiet --require-hashes requirements/clients.txt; then
    echo "uv could not; trying pip ..."
    pip --python .venv/clients/bin/python install --quiet --require-hashes -r requirements/clients.txt
  fi
fi
if [ "$profile" = dev ]; then
  echo "Installing requirements/programs.txt ..."
  rm -rf .venv/programs
  programs=(--quiet --no-deps --require-hashes --target .venv/programs -r requirements/programs.txt)
  .venv/bin/uv pip install --python .venv/bin/python "${programs[@]}" || pip install "${programs[@]}"
fi
# hatchling stands in requirements/build.txt, so building the editable install fetches nothing.
pip install --quiet --no-deps --no-build-isolation --no-index -e .
touch "$wanted"
