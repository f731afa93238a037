#!/usr/bin/env bash
# Builds Traefik, the ingress controller of a cluster on one machine, from its Go module into the cache; once, some
# minutes. The version is pinned in scripts/tools/traefik/go.mod.
#
#   scripts/traefik.sh         build it if it is missing
#   scripts/traefik.sh where   the path where it is or will be
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=packages.sh
source scripts/packages.sh
# shellcheck source=go.sh
source scripts/go.sh

traefik="$(pinned traefik github.com/traefik/traefik/v3)"
binary="$cache/traefik-$traefik/traefik"
case "${1:-}" in
    where) echo "$binary"; exit ;;
esac
[ ! -x "$binary" ] || exit 0
one_builder traefik
use_go
build traefik "traefik-$traefik" github.com/traefik/traefik/v3/cmd/traefik traefik \
    "-X github.com/traefik/traefik/v3/pkg/version.Version=$traefik"
