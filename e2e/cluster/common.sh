# Sourced by the scripts of this folder: names and places, how they speak, and which engine carries the nodes.
# shellcheck shell=bash disable=SC2034  # what is set here is used there

cluster_folder="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
checkout="$(cd "$cluster_folder/../.." && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/psephos"
speaker=cluster
# shellcheck source=../../scripts/packages.sh
source "$checkout/scripts/packages.sh"

cluster="${PSEPHOS_CLUSTER:-psephos}"
nodes=("$cluster-control-plane" "$cluster-worker")
kubeconfig="$checkout/.psephos/cluster/kubeconfig"
# Ports of this machine, on 127.0.0.1 alone, and the node ports that they lead to.
http_port="${PSEPHOS_CLUSTER_HTTP_PORT:-18080}"             # 30080
https_port="${PSEPHOS_CLUSTER_HTTPS_PORT:-18443}"           # 30443
prometheus_port="${PSEPHOS_CLUSTER_PROMETHEUS_PORT:-19090}" # 30090
# What the cluster brought onto this machine besides its nodes, one "kind name" a line; down takes it away again. The
# line "nodes complete" says that their making was not broken off.
brought="$cache/cluster-$cluster.brought"

# --- speaking ---

# phase WORDS COMMAND...: runs a command and says how many seconds it took.
phase() {
    local started=$SECONDS
    doing="$1"
    shift
    say "$doing ..."
    "$@"
    say "$doing: $((SECONDS - started)) s"
    doing=
}

# A command that fails ends the script (set -e); this says which step that was.
doing=
set -o errtrace
trap '[ -z "$doing" ] || [ "$BASH_SUBSHELL" != 0 ] || say "$doing: failed; what was said stands above"' ERR

# --- installing ---

# What podman needs to run nodes and buildah to make images; each is only recommended by the others.
engine_packages=(podman buildah runc netavark aardvark-dns iptables)

# Twelve digits that change with the content of files and folders, and with nothing else.
key_of() {
    find "$@" -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum | cut -c1-12
}

# need PACKAGE...: installs those packages of Debian that are not there.
need() {
    local package missing=()
    for package in "$@"; do
        dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    refresh_package_lists "${missing[@]}"
    phase "installing ${missing[*]}" install_packages "${missing[@]}"
}

# --- the engine that carries the nodes ---

# "published": Docker, and the node image that kind's makers publish. "local": podman, and one that is made here.
node_source() {
    case "${PSEPHOS_NODES:-}" in
        published | local) echo "$PSEPHOS_NODES" ;;
        "") if works docker info; then echo published; else echo local; fi ;;
        *) fail "PSEPHOS_NODES is '$PSEPHOS_NODES': it may be 'published' (Docker, a registry) or 'local' (podman, no registry)" ;;
    esac
}

# Sets `engine`, and what the engine and kind read from the environment.
use_engine() {
    case "$(node_source)" in
        published)
            engine=docker
            export KIND_EXPERIMENTAL_PROVIDER=docker KIND_EXPERIMENTAL_DOCKER_NETWORK="$cluster"
            ;;
        local)
            engine=podman
            export KIND_EXPERIMENTAL_PROVIDER=podman KIND_EXPERIMENTAL_PODMAN_NETWORK="$cluster"
            podman_settings
            ;;
        *) exit 1 ;;
    esac
}

# In the cache and not in the checkout: containers remember the path of their runtime, and checkouts go away.
podman_settings() {
    local folder
    folder="$cache/podman-$(key_of "$cluster_folder/podman")"
    if [ ! -d "$folder" ]; then
        mkdir -p "$folder.$$"
        cp "$cluster_folder/podman/runc" "$folder.$$"
        sed "s|@RUNTIME@|$folder/runc|" "$cluster_folder/podman/containers.conf.in" >"$folder.$$/containers.conf"
        mv -T "$folder.$$" "$folder" 2>/dev/null || rm -r "$folder.$$"
    fi
    export CONTAINERS_CONF="$folder/containers.conf"
}

# kind, kubectl and helm from the cache, and the cluster that they talk to.
use_commands() {
    local name path
    while read -r name path; do
        case "$name" in
            kind | kubectl | helm) PATH="$(dirname "$path"):$PATH" ;;
        esac
    done < <("$cluster_folder/binaries" where)
    export PATH KUBECONFIG="$kubeconfig"
}

# Two that start or end the same cluster do so one after the other: starts this script again, behind a lock. What the
# engine leaves running must not inherit the lock.
one_at_a_time() {
    local lock="$cache/.cluster-$cluster"
    [ "${PSEPHOS_CLUSTER_LOCK:-}" != "$lock" ] || return 0
    mkdir -p "$cache"
    flock --nonblock "$lock" true || say "waiting for another run that starts or ends the cluster $cluster"
    PSEPHOS_CLUSTER_LOCK="$lock" exec flock --close "$lock" "$0"
}

cluster_exists() { kind get clusters 2>/dev/null | grep -qx "$cluster"; }

# Waits until the cluster's API answers.
await_api() {
    local deadline=$((SECONDS + 120))
    until works kubectl get --raw /readyz; do
        [ "$SECONDS" -lt "$deadline" ] || fail "the cluster's API didn't answer in two minutes; make cluster-down ends what is left of it"
        sleep 0.5
    done
}
