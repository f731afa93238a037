{{- /* Values as the operator's variables; what is empty is left out, and the operator's own default holds. */ -}}
{{- define "psephos.settings" -}}
{{- $v := .Values -}}
{{- $set := dict
  "NAMESPACES" (join "," $v.watch.namespaces)
  "IMAGE" (include "psephos.sessionImage" .)
  "IMAGE_PULL_POLICY" $v.image.pullPolicy
  "IMAGE_PULL_SECRETS" (join "," $v.sessions.imagePullSecrets)
  "SERVICE_ACCOUNT" $v.sessions.serviceAccount
  "KAFKA_BOOTSTRAP" (include "psephos.kafka" .)
  "KAFKA_REPLICATION" (ternary 1 $v.kafka.replicationFactor $v.devBackends.enabled)
  "STRIMZI_CLUSTER" $v.kafka.strimzi.cluster
  "STRIMZI_NAMESPACE" $v.kafka.strimzi.namespace
  "DYNAMODB_ENDPOINT" $v.dynamodb.endpoint
  "DYNAMODB_TABLE" $v.dynamodb.table
  "DYNAMODB_BILLING" $v.dynamodb.billing
  "AWS_REGION" $v.dynamodb.region
  "REDIS_ACL" $v.redis.acl
  "REDIS_CLUSTER" $v.redis.cluster
  "S3_ENDPOINT" $v.s3.endpoint
  "S3_REGION" $v.s3.region
  "HOST" $v.publish.host
  "PUBLIC_PORT" (ternary "" $v.publish.port (eq (int $v.publish.port) 0))
  "ROUTING" $v.publish.routing
  "INGRESS_CLASS" $v.publish.ingressClass
  "TLS_SECRET" $v.publish.tlsSecret
  "GATEWAY" $v.publish.gateway
  "GATEWAY_TLS" $v.publish.gatewayTls
  "TRUSTED_PROXIES" $v.publish.trustedProxies
  "TALLY_VOLUME" $v.sessions.tally.volume
  "STORAGE_CLASS" $v.sessions.tally.storageClass
  "CPU_PERCENT" (ternary "" $v.sessions.cpuPercent (eq (int $v.sessions.cpuPercent) 100))
  "AUTOSCALING" $v.sessions.autoscaling
  "NETWORK_POLICIES" $v.sessions.networkPolicies
  "MONITORS" $v.sessions.podMonitors
  "WORKERS" $v.operator.workers
  "RESYNC_S" $v.operator.resyncSeconds
  "LEASE_S" $v.operator.leaseSeconds
  "CLEANUP_S" $v.operator.cleanupSeconds
  "LOG_LEVEL" $v.operator.logLevel
-}}
{{- if $v.webhook.enabled -}}
{{- $_ := set $set "WEBHOOK" (ternary "self-signed" "provided" (eq $v.webhook.certificates "self-signed")) -}}
{{- $_ := set $set "WEBHOOK_NAME" (include "psephos.webhook" .) -}}
{{- $_ := set $set "WEBHOOK_HOSTS" (include "psephos.webhookHosts" .) -}}
{{- end -}}
{{- if $v.kafka.propertiesSecret.name -}}
{{- $_ := set $set "KAFKA_PROPERTIES_FILE" (printf "/etc/psephos/kafka/%s" $v.kafka.propertiesSecret.key) -}}
{{- end -}}
{{- if $v.redis.caSecret.name -}}
{{- $_ := set $set "REDIS_CA_FILE" (printf "/etc/psephos/redis/%s" $v.redis.caSecret.key) -}}
{{- end -}}
{{- if $v.devBackends.enabled -}}
{{- $_ := set $set "REDIS_CLUSTER" false -}}
{{- $_ := set $set "DYNAMODB_ENDPOINT" (printf "http://%s:8000" (include "psephos.devHost" (dict "root" . "backend" "dynamodb"))) -}}
{{- $_ := set $set "REDIS_URL" (printf "redis://%s:6379/0" (include "psephos.devHost" (dict "root" . "backend" "redis"))) -}}
{{- else if not $v.redis.urlSecret.name -}}
{{- $_ := set $set "REDIS_URL" (required "redis.urlSecret.name and redis.url are empty: name one of them, or set devBackends.enabled" $v.redis.url) -}}
{{- end -}}
{{- range $name, $value := $set }}
{{- if ne (toString $value) "" }}
- {name: PSEPHOS_OPERATOR_{{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}
{{- if and $v.redis.urlSecret.name (not $v.devBackends.enabled) }}
- name: PSEPHOS_OPERATOR_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ $v.redis.urlSecret.name }}, key: {{ $v.redis.urlSecret.key }}}}
{{- end }}
{{- with $v.s3.credentialsSecret }}
{{- range $variable, $key := dict "S3_ACCESS_KEY_ID" "AWS_ACCESS_KEY_ID" "S3_SECRET_ACCESS_KEY" "AWS_SECRET_ACCESS_KEY" }}
- name: PSEPHOS_OPERATOR_{{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $v.s3.credentialsSecret }}, key: {{ $key }}}}
{{- end }}
{{- end }}
{{- with include "psephos.credentialsSecret" . }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ include "psephos.credentialsSecret" $ }}, key: {{ . }}}}
{{- end }}
{{- end }}
{{- end }}
