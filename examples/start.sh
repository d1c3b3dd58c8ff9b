# What the examples' run scripts share: finding passerelle, starting it, keeping programs running, ending all of them.
# shellcheck shell=bash

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
page_url=${PASSERELLE_URL:-http://127.0.0.1:8080/}
jobs_started=()
trap 'for job in "${jobs_started[@]}"; do kill -- "-$job" 2>/dev/null || true; done' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Starts passerelle on AMQP_URL or with its embedded broker, a folder of pages at its root, and waits until it listens.
start_passerelle() {
  local static=$1 program=${PASSERELLE_BIN:-$(command -v passerelle || true)}
  unset PASSERELLE_BIN PASSERELLE_URL PASSERELLE_ADMIN_URL # The program would take them for misspelt settings.
  if [ -z "$program" ]; then
    (cd "$top" && cargo build --release)
    program=$top/target/release/passerelle
  fi
  if [ -n "${AMQP_URL:-}" ]; then
    # On a RabbitMQ pages may not publish unless told so; these examples do, on this machine only.
    PASSERELLE_AUTH__ANONYMOUS_PUBLISH=true "$program" --static "$static" --amqp "$AMQP_URL" &
  else
    "$program" --static "$static" --embedded &
  fi
  passerelle=$!
  jobs_started+=("$passerelle")
  until curl -fs -o /dev/null "${page_url%/}/client.js"; do
    kill -0 "$passerelle" 2>/dev/null || { echo "passerelle did not start" >&2; exit 1; }
    sleep 0.2
  done
}

# Runs a program, and runs it again a second after it ended: a service that lost its broker simply starts over.
keep() {
  while true; do "$@" || true; sleep 1; done &
  jobs_started+=("$!")
}

# Sets $python to one that has what a requirements.txt asks for.
needs_python() {
  python=${PYTHON:-python3}
  "$python" -c 'import pika' 2>/dev/null && return
  local environment=$top/target/examples-python
  [ -x "$environment/bin/python" ] || "$python" -m venv "$environment"
  python=$environment/bin/python
  "$python" -m pip install --quiet -r "$1"
}

# Installs what a package.json asks for.
needs_node() {
  [ -d "$1/node_modules" ] || npm --prefix "$1" ci --silent
}

wait_for_passerelle() {
  wait "$passerelle"
}
