# Sourced by the scripts that build tools from Go modules, after packages.sh. Versions are pinned in tools/*/go.mod; Go
# checks every module against go.sum. What was built stays in the cache, in folders named after the versions.
# shellcheck shell=bash

cache="${XDG_CACHE_HOME:-$HOME/.cache}/psephos"
tools="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/tools"
go_version=1.26.8 # for machines whose own Go is older than helm needs; a Go module as well

# The version of a module that a tool's go.mod requires.
pinned() { sed -nE "s|^(require)?[[:space:]]*$2 (v[^ ]+).*|\2|p" "$tools/$1/go.mod" | head -1; }

# one_builder WHAT: whoever comes second waits for what the first one builds.
one_builder() {
    mkdir -p "$cache"
    exec 9>"$cache/.building-$1"
    flock --nonblock 9 || { say "waiting for another run that builds $1"; flock 9; }
}

# Makes `go` a Go that is new enough. Older ones than 1.21 can't switch by themselves, but they can fetch the
# module that holds the newer one.
use_go() {
    command -v go >/dev/null || fail "Go is missing: install the package golang-go, or Go from https://go.dev/dl, then run again"
    local have toolchain
    have="$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed 's/^go//')"
    unset GOFLAGS GOROOT
    export CGO_ENABLED=0 GOWORK=off GOGC=400 # compilers live for seconds: collecting less garbage saves a fifth of them
    if at_least "$have" "$go_version"; then
        export GOTOOLCHAIN=local
    elif at_least "$have" 1.21; then
        export GOTOOLCHAIN="go$go_version"
    else
        say "fetching Go $go_version (this machine has $have)"
        toolchain="golang.org/toolchain@v0.0.1-go$go_version.$(go env GOOS)-$(go env GOARCH)"
        (cd / && go mod download "$toolchain") || fail "Go $go_version could not be fetched: is the Go module proxy reachable?"
        toolchain="$(go env GOMODCACHE)/$toolchain"
        # Modules are unpacked without their executable bits.
        chmod -R u+w "$toolchain"
        chmod +x "$toolchain"/bin/* "$toolchain"/pkg/tool/*/*
        export GOTOOLCHAIN=local PATH="$toolchain/bin:$PATH"
    fi
}

at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -1)" = "$2" ]; }

# Without DWARF, which -w keeps out of the binary anyway: a fifth less to compile.
compile=(-mod=readonly -trimpath -buildvcs=false -gcflags=all=-dwarf=false)

# build TOOL FOLDER PACKAGE BINARY LDFLAGS: a binary appears by a rename, whole or not at all.
build() {
    local tool="$1" folder="$cache/$2" package="$3" binary="$4" flags="$5" started=$SECONDS
    [ ! -x "$folder/$binary" ] || return 0
    say "building $binary ${2##*-}: once, some minutes"
    mkdir -p "$folder"
    (cd "$tools/$tool" && go build "${compile[@]}" -ldflags "-s -w $flags" -o "$folder/.$binary.$$" "$package") \
        2> >(grep -v '^go: downloading' >&2) || fail "$binary could not be built; what Go said stands above"
    mv "$folder/.$binary.$$" "$folder/$binary"
    say "built $binary in $((SECONDS - started)) s"
}

# The linker's flags that tell the parts of Kubernetes which version they are; kubeadm and the version endpoint need it.
kubernetes_stamp() {
    local version stamp="k8s.io/component-base/version"
    version="$(pinned kubernetes k8s.io/kubernetes)"
    echo "-X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=$(cut -d. -f2 <<<"$version") -X $stamp.gitTreeState=clean"
}
