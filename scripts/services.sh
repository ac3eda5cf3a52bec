#!/usr/bin/env bash
# Installs the servers that the tests start by themselves, when they are missing: PostgreSQL 14 or newer.
# Prints the folder of its programs. Debian and Ubuntu by apt-get; elsewhere it says what to install.
set -euo pipefail

find_postgres() {
  local directory
  for directory in "${FAIRWAY_POSTGRES_BIN:-}" \
    $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql*/bin 2>/dev/null | sort -rV) \
    "$(dirname "$(command -v initdb || true)")"; do
    if [[ -n $directory && -x $directory/initdb && -x $directory/pg_ctl ]]; then
      echo "$directory"
      return 0
    fi
  done
  return 1
}

if find_postgres; then
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "The tests need a PostgreSQL server. Install PostgreSQL 14 or newer and put initdb and pg_ctl on PATH," >&2
  echo "or name their folder in FAIRWAY_POSTGRES_BIN." >&2
  exit 1
fi

as_root=()
if [[ $(id -u) != 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "The tests need a PostgreSQL server. As root, run: apt-get install postgresql" >&2
    exit 1
  fi
  as_root=(sudo)
fi

install_postgres() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends postgresql >&2
}

echo "Installing PostgreSQL for the tests ..." >&2
install_postgres || { "${as_root[@]}" apt-get update >&2 && install_postgres; }
find_postgres
