#!/usr/bin/env bash
# Installs what the tests need besides Python packages, when it is missing: PostgreSQL 14 or newer, which they start by
# themselves, Redis, curl, which the guides use, Prometheus and its Alertmanager,
# a Java for Spark, and Chromium, in which pages are looked at. Prints the folder of PostgreSQL's programs. Debian and Ubuntu by apt-get; elsewhere it says what to install.
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

missing=()
find_postgres >/dev/null || missing+=(postgresql)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v curl >/dev/null || missing+=(curl)
command -v promtool >/dev/null || missing+=(prometheus)  # checks and runs our alert rules and dashboards' queries
command -v prometheus-alertmanager >/dev/null || missing+=(prometheus-alertmanager)  # takes our alerts
java -version >/dev/null 2>&1 || missing+=(default-jre-headless)  # Spark's; 17 or newer
[[ -n ${FAIRWAY_CHROMIUM:-} ]] || command -v chromium google-chrome >/dev/null || missing+=(chromium)
ldconfig -p 2>/dev/null | grep -q libb64.so.0d || missing+=(libb64-0d)  # perf_analyzer is linked to it
if [[ ${#missing[@]} == 0 ]]; then
  find_postgres
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "The tests need ${missing[*]}. Install PostgreSQL 14 or newer and put initdb and pg_ctl on PATH," >&2
  echo "or name their folder in FAIRWAY_POSTGRES_BIN; a Chromium elsewhere is named in FAIRWAY_CHROMIUM." >&2
  exit 1
fi

as_root=()
if [[ $(id -u) != 0 ]]; then
  if ! command -v sudo >/dev/null; then
    echo "The tests need ${missing[*]}. As root, run: apt-get install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi

install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y --no-install-recommends "${missing[@]}" >&2
}

echo "Installing ${missing[*]} for the tests ..." >&2
install || { "${as_root[@]}" apt-get update >&2 && install; }
find_postgres
