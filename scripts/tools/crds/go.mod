// Where other projects' CustomResourceDefinitions come from: their YAML is read, no code of them is built.
module psephos.dev/tools/crds

go 1.24.0

require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/kedacore/keda/v2 v2.21.0
	github.com/prometheus-operator/prometheus-operator v0.94.0
	sigs.k8s.io/gateway-api v1.6.0
)
