#!/usr/bin/env bash
# Resolves every set of extras for Python 3.11 to 3.13 on every platform and writes requirements/<set>.txt.
# dev.txt comes first and constrains the rest, so that what users install is what the tests ran on.
# The files hold hashes, no URLs and no machine paths. `UPGRADE=1` takes the newest versions allowed.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

uv=${UV:-.venv/bin/uv}

compile() {  # output, further options
  local output=$1
  shift
  "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url --no-emit-find-links ${UPGRADE:+--upgrade} \
    --output-file "requirements/$output.txt" "$@"
  echo "requirements/$output.txt"
}

compile dev pyproject.toml --extra all --group test --group check
grep -E '^[A-Za-z0-9]' requirements/dev.txt | sed -E 's/ *\\$//' > "$work/constraints.txt"
# What the clients load is saved by the tests' own versions of these.
grep -E '^(scikit-learn|numpy|scipy|joblib)==' "$work/constraints.txt" > "$work/shared.txt"
compile clients requirements/clients.in --constraint "$work/shared.txt"
compile programs requirements/programs.in --no-deps
compile build requirements/build.in --constraint "$work/constraints.txt"
compile core pyproject.toml --constraint "$work/constraints.txt"
compile run pyproject.toml --extra sklearn --extra monitor --extra grpc --constraint "$work/constraints.txt"
for extra in sklearn xgboost lightgbm catboost grpc postgres s3 redis bench otel monitor spark ray all; do
  compile "$extra" pyproject.toml --extra "$extra" --constraint "$work/constraints.txt"
done
