#!/usr/bin/env bash
# A real Kubernetes API server for the tests, without Docker and without a registry: kube-apiserver, kubectl, etcd and
# helm, and the CustomResourceDefinitions of the projects that the operator works with. Beside them versitygw, a small S3
# server over a folder. What this machine has already is used where its version fits (found.sh); the rest is built from
# Go modules. Versions are pinned in scripts/tools/*/go.mod and strimzi/pom.xml; Go checks every module against go.sum.
#
#   scripts/apiserver.sh                 build what is missing into the cache; a second run only looks
#   scripts/apiserver.sh binaries        the same without the definitions
#   scripts/apiserver.sh definitions     only the definitions: these need Maven and Java, and no binary
#   scripts/apiserver.sh pinned          only the binaries, all in exactly those versions: what a cluster is made of
#   scripts/apiserver.sh there           whether nothing is missing, as exit code
#   scripts/apiserver.sh where [pinned]  one "name path" a line, of what may or may not be there yet
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=packages.sh
source scripts/packages.sh
# shellcheck source=go.sh
source scripts/go.sh

kubernetes="$(pinned kubernetes k8s.io/kubernetes)"
etcd="$(pinned etcd go.etcd.io/etcd/server/v3)"
helm="$(pinned helm helm.sh/helm/v3)"
s3="$(pinned s3 github.com/versity/versitygw)"
definitions="$cache/crds-$(cat "$tools"/crds/go.* "$tools/strimzi/pom.xml" | sha256sum | cut -c1-12)"

names=(kube-apiserver kubectl etcd helm versitygw) # kube-apiserver first, as kubectl has to fit it
# Of each: the folder in the cache, the one in tools, and the package.
declare -A made=(
    [kube-apiserver]="kubernetes-$kubernetes kubernetes k8s.io/kubernetes/cmd/kube-apiserver"
    [kubectl]="kubernetes-$kubernetes kubernetes k8s.io/kubernetes/cmd/kubectl"
    [etcd]="etcd-$etcd etcd go.etcd.io/etcd/server/v3"
    [helm]="helm-$helm helm helm.sh/helm/v3/cmd/helm"
    [versitygw]="versitygw-$s3 s3 github.com/versity/versitygw/cmd/versitygw"
)
declare -A used # the path of each
# shellcheck source=found.sh
source scripts/found.sh

built() { echo "$cache/${made[$1]%% *}/$1"; }

where() {
    local name
    for name in "${names[@]}"; do
        echo "$name ${used[$name]}"
    done
    echo "crds $definitions"
}

# What is to be built, a name a line.
missing() {
    local name
    for name in "${names[@]}"; do
        [ -x "${used[$name]}" ] || echo "$name"
    done
}

# The folder of a module of tools/crds in Go's module cache, fetched when it is not there.
module() {
    local answer folder
    answer="$(cd "$tools/crds" && go mod download -json "$1@$(pinned crds "$1")" 2>&1)" || true
    folder="$(sed -n 's/.*"Dir": "\(.*\)",/\1/p' <<<"$answer")"
    [ -n "$folder" ] || fail "$1 could not be fetched: $(sed -n 's/.*"Error": "\(.*\)"/\1/p' <<<"$answer")"
    echo "$folder"
}

gather_crds() {
    local gateway keda prometheus certificates
    [ ! -d "$definitions" ] || return 0
    one_builder definitions
    [ ! -d "$definitions" ] || return 0
    use_go
    say "gathering the CustomResourceDefinitions of Gateway API, KEDA, Prometheus, cert-manager and Strimzi"
    # One a line: a failure inside of an assignment ends the script.
    gateway="$(module sigs.k8s.io/gateway-api)"
    keda="$(module github.com/kedacore/keda/v2)"
    prometheus="$(module github.com/prometheus-operator/prometheus-operator)"
    certificates="$(module github.com/cert-manager/cert-manager)"
    mkdir -p "$cache"
    making="$(mktemp -d "$cache/.crds.XXXXXX")"
    trap 'rm -rf "$making"' EXIT
    cp "$gateway"/config/crd/standard/gateway.networking.k8s.io_{gateways,gatewayclasses,httproutes}.yaml "$making"
    cp "$keda"/config/crd/bases/keda.sh_{scaledobjects,triggerauthentications}.yaml "$making"
    cp "$prometheus"/example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,servicemonitors,prometheusrules}.yaml "$making"
    cp "$certificates"/deploy/crds/cert-manager.io_{certificates,issuers}.yaml "$making"
    mvn --batch-mode --quiet --file "$tools/strimzi/pom.xml" "-Djars.out=$making/jars" package >&2 ||
        fail "Maven could not fetch Strimzi's definitions; what it said stands above"
    "${JAVA_HOME:+$JAVA_HOME/bin/}java" -cp "$making/jars/*" io.strimzi.crdgenerator.CrdGenerator \
        --yaml "io.strimzi.api.kafka.model.topic.KafkaTopic=$making/kafka.strimzi.io_kafkatopics.yaml" 2>/dev/null ||
        fail "Strimzi's generator failed"
    rm -r "$making/jars"
    chmod -R u+w,a+r "$making"
    mv "$making" "$definitions"
    trap - EXIT
}

build_binaries() {
    local beside
    [ -n "$(missing)" ] || return 0
    one_builder apiserver
    [ -n "$(missing)" ] || return 0
    use_go
    prepare
    # The longest build has the others beside it: while one links or waits for modules, the cores have work.
    build_beside &
    beside=$!
    trap wait EXIT # also where the longest one fails: nothing goes on after this script
    build_missing kube-apiserver "$(kubernetes_stamp)"
    build_missing kubectl "$(kubernetes_stamp)"
    wait "$beside"
    trap - EXIT
}

build_beside() {
    local charts="helm.sh/helm/v3/pkg/chartutil" # where helm is told which cluster a template is for
    build_missing etcd ""
    build_missing helm "-X helm.sh/helm/v3/internal/version.version=$helm -X $charts.k8sVersionMajor=1 -X $charts.k8sVersionMinor=$(minor_of "$kubernetes")"
    build_missing versitygw "-X main.Version=$s3"
}

# Go's own library, which all of them contain, while their modules are fetched: builds side by side would each compile
# it. A module that can't be fetched is named by the build that needs it.
prepare() {
    local name folder tool package
    for name in $(missing); do
        read -r folder tool package <<<"${made[$name]}"
        (cd "$tools/$tool" && go list -mod=readonly -deps "$package" >/dev/null 2>&1) &
    done
    go build "${compile[@]}" net/http net/rpc encoding/xml html/template
    wait
}

# build_missing NAME LDFLAGS
build_missing() {
    local folder tool package
    [ ! -x "${used[$1]}" ] || return 0
    read -r folder tool package <<<"${made[$1]}"
    build "$tool" "$folder" "$package" "$1" "$2"
}

wanted="${1:-}"
for name in "${names[@]}"; do
    used[$name]="$(built "$name")"
    [[ " $* " == *" pinned "* ]] || [ "$name" = versitygw ] || choose "$name"
done
case "$wanted" in
    there) [ -z "$(missing)" ] && [ -d "$definitions" ] ;;
    where) report_found; where ;;
    binaries | pinned) report_found; build_binaries ;;
    definitions) gather_crds ;;
    "") report_found; build_binaries; gather_crds ;;
    *) fail "$wanted is unknown" ;;
esac
