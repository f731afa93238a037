# shellcheck shell=bash
# Sourced by the scripts that install something: messages, and packages of Debian and Ubuntu.

speaker="${speaker:-setup}"

say() { printf '%s: %s\n' "$speaker" "$*" >&2; }
fail() { say "$*"; exit 1; }
works() { "$@" >/dev/null 2>&1; }

# Runs a command as root, by sudo when needed.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Whether packages can be installed here at all; says which ones would be needed, when not.
refresh_package_lists() {
    command -v apt-get >/dev/null || fail "this system has no apt-get: install by its own means $* (jdk: version 17 or more), then run again"
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || fail "neither root nor sudo: have these packages installed: $*"
    as_root apt-get update -qq
}

install_packages() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
}
