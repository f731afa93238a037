#!/usr/bin/env bash
# Writes all YAML that is derived from something else, so that it can't differ: the definition of VotingSession (from
# psephos/domain/session.py) here and in the chart, and the plain manifests (from the chart). With a folder as argument it
# writes there instead; a test compares that with what is committed.
set -euo pipefail
cd "$(dirname "$0")/.."
to="${1:-$PWD}"
helm="$(scripts/apiserver.sh where | sed -n 's/^helm //p')"
python="${PYTHON:-.venv/bin/python}"

rendered() { # rendered FILE VALUES...
    local file="$1"
    shift
    {
        echo "# Written by \`make manifests\` from charts/psephos and $1: change those, not this."
        cat <<EOF
---
apiVersion: v1
kind: Namespace
metadata:
  name: psephos
  labels:
    pod-security.kubernetes.io/enforce: restricted
EOF
        "$helm" template psephos charts/psephos --namespace psephos --skip-tests --values "$1" |
            sed -e '/^ *helm.sh\/chart: /d' -e '/^# Source: /d' -e 's/managed-by: Helm/managed-by: manifests/'
    } > "$to/manifests/$file"
}

mkdir -p "$to/crds" "$to/charts/psephos/files" "$to/manifests"
"$python" -m psephos_operator.crd > "$to/crds/.new.yaml"
mv "$to/crds/.new.yaml" "$to/crds/votingsessions.psephos.dev.yaml"
cp "$to/crds/votingsessions.psephos.dev.yaml" "$to/charts/psephos/files/"
rendered psephos.yaml manifests/values.yaml
rendered try-it-out.yaml manifests/try-it-out.values.yaml
{
    echo "# Written by \`make manifests\` from charts/psephos/files/alerts.yaml: change that, not this."
    printf 'apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: psephos\nspec:\n'
    sed -e '/^#/d' -e 's/^\(.\)/  \1/' -e 's|RUNBOOKS|https://psephos.dev/docs/runbooks|' charts/psephos/files/alerts.yaml
} > "$to/manifests/alerts.yaml"
cp charts/psephos/files/dashboard.json "$to/manifests/dashboard.json"
