{{- define "psephos.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* Not longer than 40: names with a suffix still fit everywhere. */ -}}
{{- define "psephos.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "psephos.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "psephos.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Cluster-wide names: two releases in two namespaces may not meet. */ -}}
{{- define "psephos.clustername" -}}
{{- if eq (include "psephos.fullname" .) .Release.Namespace -}}
{{- include "psephos.fullname" . }}
{{- else -}}
{{- printf "%s-%s" .Release.Namespace (include "psephos.fullname" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "psephos.selector" -}}
app.kubernetes.io/name: {{ include "psephos.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "psephos.labels" -}}
{{ include "psephos.selector" . }}
{{ include "psephos.common" . }}
{{- end }}

{{- define "psephos.common" -}}
app.kubernetes.io/part-of: psephos
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "psephos.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (printf "%s-operator" (include "psephos.fullname" .)) .Values.serviceAccount.name }}
{{- else -}}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* (dict "image" … "default" …) */ -}}
{{- define "psephos.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .tag) }}
{{- end }}
{{- end }}

{{- define "psephos.operatorImage" -}}
{{- include "psephos.image" (dict "image" .Values.image "tag" .Chart.AppVersion) }}
{{- end }}

{{- define "psephos.sessionImage" -}}
{{- if .Values.sessions.image.repository -}}
{{- include "psephos.image" (dict "image" .Values.sessions.image "tag" .Chart.AppVersion) }}
{{- else -}}
{{- include "psephos.operatorImage" . }}
{{- end }}
{{- end }}

{{- define "psephos.webhook" -}}
{{- printf "%s-webhook" (include "psephos.clustername" .) }}
{{- end }}

{{- define "psephos.webhookService" -}}
{{- printf "%s-webhook" (include "psephos.fullname" .) }}
{{- end }}

{{- /* The names that API servers call the webhook by. */ -}}
{{- define "psephos.webhookHosts" -}}
{{- if .Values.webhook.url -}}
{{- get (urlParse .Values.webhook.url) "hostname" }}
{{- else -}}
{{- $service := include "psephos.webhookService" . -}}
{{- printf "%s.%s.svc,%s.%s.svc.cluster.local" $service .Release.Namespace $service .Release.Namespace }}
{{- end }}
{{- end }}

{{- define "psephos.dev" -}}
{{- printf "%s-dev-%s" (include "psephos.fullname" .root) .backend }}
{{- end }}

{{- define "psephos.devHost" -}}
{{- printf "%s.%s.svc" (include "psephos.dev" .) .root.Release.Namespace }}
{{- end }}

{{- define "psephos.kafka" -}}
{{- if .Values.devBackends.enabled -}}
{{- printf "%s:9092" (include "psephos.devHost" (dict "root" . "backend" "kafka")) }}
{{- else -}}
{{- required "kafka.bootstrapServers is empty: name the brokers, or set devBackends.enabled" .Values.kafka.bootstrapServers }}
{{- end }}
{{- end }}

{{- define "psephos.credentialsSecret" -}}
{{- if .Values.devBackends.enabled -}}
{{- include "psephos.dev" (dict "root" . "backend" "credentials") }}
{{- else -}}
{{- .Values.dynamodb.credentialsSecret }}
{{- end }}
{{- end }}

{{- define "psephos.restricted" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "psephos.container" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
{{- end }}
