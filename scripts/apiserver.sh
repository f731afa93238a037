#!/usr/bin/env bash
# A real Kubernetes API server for the tests, without Docker and without a registry: builds kube-apiserver, kubectl,
# etcd and helm from their Go modules, and gathers the CustomResourceDefinitions of the projects that the operator
# works with. Beside them versitygw, a small S3 server over a folder. Versions are pinned in scripts/tools/*/go.mod and
# strimzi/pom.xml; Go checks every module against go.sum.
#
#   scripts/apiserver.sh            build what is missing into the cache; a second run only looks
#   scripts/apiserver.sh binaries   the same without the definitions, which need Maven and Java
#   scripts/apiserver.sh there      whether nothing is missing, as exit code
#   scripts/apiserver.sh where      one "name path" a line, of what may or may not be there yet
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
crds="$(cat "$tools"/crds/go.* "$tools/strimzi/pom.xml" | sha256sum | cut -c1-12)"

where() {
    echo "kube-apiserver $cache/kubernetes-$kubernetes/kube-apiserver"
    echo "kubectl $cache/kubernetes-$kubernetes/kubectl"
    echo "etcd $cache/etcd-$etcd/etcd"
    echo "helm $cache/helm-$helm/helm"
    echo "versitygw $cache/versitygw-$s3/versitygw"
    echo "crds $cache/crds-$crds"
}

everything_there() {
    local name path
    while read -r name path; do
        [ -e "$path" ] || [ "$wanted $name" = "binaries crds" ] || return 1
    done < <(where)
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
    local to="$cache/crds-$crds" gateway keda prometheus certificates
    [ ! -d "$to" ] || return 0
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
    mv "$making" "$to"
    trap - EXIT
}

wanted="${1:-}"
case "$wanted" in
    where) where; exit ;;
    there) everything_there; exit ;;
esac
if everything_there; then
    exit
fi
one_builder apiserver
if everything_there; then
    exit
fi
use_go
version="$(kubernetes_stamp)"
minor="$(cut -d. -f2 <<<"$kubernetes")"
charts="helm.sh/helm/v3/pkg/chartutil" # where helm is told which cluster a template is for
[ "$wanted" = binaries ] || gather_crds
build etcd "etcd-$etcd" go.etcd.io/etcd/server/v3 etcd ""
build kubernetes "kubernetes-$kubernetes" k8s.io/kubernetes/cmd/kube-apiserver kube-apiserver "$version"
build kubernetes "kubernetes-$kubernetes" k8s.io/kubernetes/cmd/kubectl kubectl "$version"
build helm "helm-$helm" helm.sh/helm/v3/cmd/helm helm \
    "-X helm.sh/helm/v3/internal/version.version=$helm -X $charts.k8sVersionMajor=1 -X $charts.k8sVersionMinor=$minor"
build s3 "versitygw-$s3" github.com/versity/versitygw/cmd/versitygw versitygw "-X main.Version=$s3"
