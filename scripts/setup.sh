#!/usr/bin/env bash
# Installs what Psephos needs, and nothing that is there already. A second run only looks.
#
#   scripts/setup.sh         for the local stack: uv, the Python environment, a JDK, Maven, Redis, the servers' jars
#   scripts/setup.sh tests   for the tests too: Chromium and, built with Go, an API server
#   scripts/setup.sh bench   for the benchmarks too: wrk
set -euo pipefail
cd "$(dirname "$0")/.."
for_tests="" for_bench=""
case "${1:-}" in
    "") ;;
    tests) for_tests=yes ;;
    bench) for_bench=yes ;;
    *) printf 'setup: %s is unknown; what can be set up is "tests" or "bench"\n' "$1" >&2; exit 2 ;;
esac

# uv, when it has to be installed here, gets a folder of its own: no system Python is touched.
uv_home="${XDG_CACHE_HOME:-$HOME/.cache}/psephos/uv"
PATH="$PATH:$uv_home/bin"

# shellcheck source=packages.sh
source scripts/packages.sh

to_build="" # an API server, unless all of it is there
[ -z "$for_tests" ] || scripts/apiserver.sh there || to_build=yes

# The packages that are missing, one a line, by the names of Debian and Ubuntu.
missing_packages() {
    works uv --version || works python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 8))' || echo python3-venv
    has_jdk || echo jdk
    works mvn --version || echo maven
    works redis-server --version || echo redis-server
    if [ -n "$for_tests" ]; then
        has_chromium || echo chromium
        [ -z "$to_build" ] || works go version || echo golang-go
    fi
    [ -z "$for_bench" ] || command -v wrk >/dev/null || echo wrk
    command -v setpriv >/dev/null || [ "$(uname)" != Linux ] || echo util-linux
}

has_jdk() {
    local javac major
    javac="${JAVA_HOME:+$JAVA_HOME/bin/javac}"
    [ -x "${javac:-}" ] || javac="$(command -v javac)" || return 1
    major="$("$javac" -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p')"
    [ "${major:-0}" -ge 17 ]
}

has_chromium() {
    command -v chromium || command -v chromium-browser || command -v google-chrome
} >/dev/null

install_missing() {
    local packages=("$@") i
    say "installing ${packages[*]}"
    for i in "${!packages[@]}"; do
        [ "${packages[i]}" != jdk ] || packages[i]="$(jdk_package)"
    done
    install_packages "${packages[@]}"
}

# The newest long-term JDK that this system's archive has.
jdk_package() {
    local name
    for name in openjdk-21-jdk-headless openjdk-17-jdk-headless default-jdk-headless; do
        if apt-cache show "$name" >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    fail "no JDK of version 17 or more in this system's package archive"
}

install_uv() {
    say "installing uv into $uv_home"
    python3 -m venv "$uv_home"
    "$uv_home/bin/pip" install --quiet uv
}

# Changes with everything that setup installs from.
fingerprint() {
    {
        cat scripts/setup.sh scripts/packages.sh pyproject.toml uv.lock
        find workers/psephos_lab/jars -type f -print0 | LC_ALL=C sort -z | xargs -0 cat
    } | sha256sum | cut -c1-16
}

stamp=".venv/setup-$(fingerprint)"

readarray -t missing < <(missing_packages)
[ "${#missing[@]}" = 0 ] || refresh_package_lists "${missing[@]}"
if [ -n "$to_build" ]; then
    # First of all, as it takes the longest: the rest is fetched and unpacked beside it.
    works go version || install_missing golang-go
    scripts/apiserver.sh binaries &
    building=$!
    trap wait EXIT # also where something else fails: nothing goes on after this script
    readarray -t missing < <(missing_packages)
fi
[ "${#missing[@]}" = 0 ] || install_missing "${missing[@]}"
works uv --version || install_uv
if [ ! -e "$stamp" ] || [ ! -d "$(cat "$stamp")" ]; then
    say "installing the Python environment"
    uv sync --frozen --all-extras --quiet
    # A name in the stamp, so that a cache that was emptied is filled again.
    jars="$(.venv/bin/python -m psephos_lab.java)"
    .venv/bin/python -m psephos_lab.class_archives
    rm -f .venv/setup-*
    printf '%s\n' "$jars" > "$stamp"
    say "done"
fi
if [ -n "$to_build" ]; then
    scripts/apiserver.sh definitions
    wait "$building"
    trap - EXIT
elif [ -n "$for_tests" ]; then
    scripts/apiserver.sh # names what this machine had already
fi
