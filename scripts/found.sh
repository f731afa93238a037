# Sourced by apiserver.sh, after packages.sh and go.sh: parts of an API server that are on this machine already. What
# the tests were last run with are the pinned versions, so those are taken before anything but KUBEBUILDER_ASSETS.
# shellcheck shell=bash

oldest_etcd=3.5.13 # the first of 3.5 whose progress notices kube-apiserver trusts, for consistent reads from its cache
oldest_helm=3.18.0 # the first that names a wrong value by its path
server="$kubernetes" # the version of the API server that is used, which kubectl has to fit
found=() passed_over=()

# choose NAME: the first file of that name whose version fits is used, if there is any.
choose() {
    local name="$1" built="${used[$1]}" candidate version why
    while read -r candidate; do
        [ "$candidate" != "$built" ] || return 0
        version="$(version_of "$name" "$candidate")"
        why="$(misfit "$name" "$version")"
        if [ -z "$why" ]; then
            used[$name]="$candidate"
            [ "$name" != kube-apiserver ] || server="$version"
            found+=("$candidate ($version)")
            return
        fi
        passed_over+=("$candidate: $why")
    done < <(candidates "$name")
}

# Every executable of that name, in the order in which they are considered.
candidates() {
    local folder file
    local -A seen=() # /bin and /usr/bin may be one folder
    while read -r folder; do
        file="$folder/$1"
        [ -f "$file" ] && [ -x "$file" ] || continue
        folder="$(readlink -f "$folder")"
        [ -n "${seen[$folder]:-}" ] || echo "$file"
        seen[$folder]=yes
    done < <(
        [ -z "${KUBEBUILDER_ASSETS:-}" ] || echo "$KUBEBUILDER_ASSETS"
        dirname "${used[$1]}"
        envtest_folders
        echo /usr/local/kubebuilder/bin
        tr : '\n' <<<"$PATH"
    )
}

# Where setup-envtest keeps what it fetched, the newest version first.
envtest_folders() {
    find "${XDG_DATA_HOME:-$HOME/.local/share}/kubebuilder-envtest/k8s" -mindepth 1 -maxdepth 1 \
        -name "*-linux-$(machine)" 2>/dev/null | sort -rV || true
}

# This machine's kind as Go names it.
machine() { uname -m | sed -e s/x86_64/amd64/ -e s/aarch64/arm64/; }

# version_of NAME FILE: three numbers, or nothing where it does not say.
version_of() {
    local question=(--version)
    case "$1" in
        kubectl) question=(version --client) ;;
        helm) question=(version --short) ;;
    esac
    timeout 10 "$2" "${question[@]}" 2>/dev/null </dev/null | sed -n 1p | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | sed -n 1p || true
}

# misfit NAME VERSION: why the tests can't use it; nothing where they can. API servers only gain what sessions are made
# of; kubectl's makers want it within one minor version of the server.
misfit() {
    local minor
    [ -n "$2" ] || { echo "does not say its version"; return; }
    case "$1" in
        kube-apiserver) within "$2" "1.$(minor_of "$kubernetes")" 2 ;;
        kubectl)
            minor="$(minor_of "$server")"
            within "$2" "1.$((minor - 1))" "1.$((minor + 2))"
            ;;
        etcd) within "$2" "$oldest_etcd" 4 ;;
        helm) within "$2" "$oldest_helm" 4 ;;
    esac
}

# within VERSION LEAST BELOW
within() {
    if ! at_least "$1" "$2" || at_least "$1" "$3"; then
        echo "it is $1, and has to be $2 or newer, below $3"
    fi
}

minor_of() { cut -d. -f2 <<<"$1"; }

# One line of what is used, and one for each that is not.
report_found() {
    local each
    [ "${#found[@]}" = 0 ] || say "used as they are: $(printf '%s, ' "${found[@]}" | sed 's/, $//')"
    for each in "${passed_over[@]}"; do
        say "passed over $each"
    done
}
