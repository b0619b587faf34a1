{{- define "agency.company" -}}{{ .Values.company | default .Release.Namespace }}{{- end }}

{{- define "agency.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "agency.selector" -}}
app.kubernetes.io/name: agency
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "agency.labels" -}}
{{ include "agency.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "agency.tokens" -}}
{{- if .Values.auth.existingSecret }}{{ .Values.auth.existingSecret }}{{ else if .Values.auth.tokens }}{{ .Release.Name }}-tokens{{ end }}
{{- end }}

{{/* What must hold between values; the schema sees each alone. */}}
{{- define "agency.check" -}}
{{- if not (or .Values.auth.tokens .Values.auth.existingSecret .Values.auth.behindProxy) }}
{{- fail "who may come in? Set auth.tokens, auth.existingSecret, or auth.behindProxy=true" }}
{{- end }}
{{- if gt (int .Values.scaling.minReplicas) (int .Values.scaling.maxReplicas) }}
{{- fail "scaling.minReplicas is larger than scaling.maxReplicas" }}
{{- end }}
{{- if and .Values.agent.persistence.existingClaim (not (and (eq .Values.scaling.mode "off") (eq (int .Values.agent.replicas) 1))) }}
{{- fail "agent.persistence.existingClaim is one volume with one writer: set scaling.mode=off and agent.replicas=1" }}
{{- end }}
{{- end }}

{{- define "agency.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "agency.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
privileged: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* {root, name, words, port, service, resources, env}: one container of an agency. */}}
{{- define "agency.container" -}}
{{- $v := .root.Values }}
name: {{ .name }}
image: {{ include "agency.image" .root | quote }}
imagePullPolicy: {{ $v.image.pullPolicy }}
command: [agency]
args: {{ .words | toJson }}
env:
  - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
  - {name: company, value: {{ include "agency.company" .root | quote }}}
  - {name: AGENCY_COMPANY, value: {{ include "agency.company" .root | quote }}}
  - {name: AGENCY_DATA, value: /data}
  - {name: AGENCY_RUN, value: /run/agency/sockets}
  {{- if .port }}
  - {name: AGENCY_BIND, value: 0.0.0.0}
  {{- $host := printf "%s-%s" .root.Release.Name .service }}
  - name: AGENCY_GATEWAY_ALLOWED_HOSTS
    value: {{ printf "$(POD_IP):%d,%s:%d,%s.%s:%d,%s.%s.svc:%d,%s.%s.svc.cluster.local:%d" (int .port) $host (int .port) $host .root.Release.Namespace (int .port) $host .root.Release.Namespace (int .port) $host .root.Release.Namespace (int .port) | quote }}
  {{- if include "agency.tokens" .root }}
  - {name: AGENCY_TOKENS, value: /etc/agency/tokens/tokens}
  {{- end }}
  {{- if $v.auth.behindProxy }}
  - {name: AGENCY_GATEWAY_BEHIND_PROXY, value: "true"}
  {{- end }}
  {{- end }}
  {{- range $key, $value := .env }}
  - {name: {{ $key }}, value: {{ $value | quote }}}
  {{- end }}
  {{- if and .llm $v.llm.url }}
  - {name: AGENCY_LLM_URL, value: {{ $v.llm.url | quote }}}
  {{- if $v.llm.model }}
  - {name: AGENCY_LLM_MODEL, value: {{ $v.llm.model | quote }}}
  {{- end }}
  {{- if $v.llm.existingSecret }}
  - {name: AGENCY_LLM_KEY, valueFrom: {secretKeyRef: {name: {{ $v.llm.existingSecret }}, key: key}}}
  {{- end }}
  {{- end }}
  {{- range $key, $value := $v.settings }}
  - {name: {{ $key }}, value: {{ $value | quote }}}
  {{- end }}
{{- if .port }}
ports:
  - {name: {{ .portName }}, containerPort: {{ .port }}, protocol: TCP}
startupProbe:
  httpGet: {path: /startupz, port: {{ .portName }}, httpHeaders: [{name: Host, value: localhost}]}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: {{ .portName }}, httpHeaders: [{name: Host, value: localhost}]}
  periodSeconds: 10
  timeoutSeconds: 3
readinessProbe:
  httpGet: {path: /readyz, port: {{ .portName }}, httpHeaders: [{name: Host, value: localhost}]}
  periodSeconds: 5
  timeoutSeconds: 3
{{- else }}
startupProbe:
  exec: {command: [sh, -c, 'exec agency bus lat "$POD_NAME" --timeout 3000']}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  exec: {command: [sh, -c, 'exec agency bus lat "$POD_NAME" --timeout 3000']}
  periodSeconds: 30
  timeoutSeconds: 10
readinessProbe:
  exec: {command: [sh, -c, 'exec agency bus lat "$POD_NAME" --timeout 3000']}
  periodSeconds: 15
  timeoutSeconds: 10
{{- end }}
lifecycle:
  preStop:
    sleep: {seconds: {{ $v.preStopSeconds }}}
resources: {{- toYaml .resources | nindent 2 }}
securityContext: {{- include "agency.security" .root | nindent 2 }}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: sockets, mountPath: /run/agency}
  - {name: tmp, mountPath: /tmp}
  {{- if and $v.shared.enabled (ne .name "brain") }}
  - {name: shared, mountPath: /data/metrics, subPath: metrics}
  - {name: shared, mountPath: /data/sops, subPath: sops}
  {{- end }}
  {{- if and .port (include "agency.tokens" .root) }}
  - {name: tokens, mountPath: /etc/agency/tokens, readOnly: true}
  {{- end }}
  {{- if $v.curve.existingSecret }}
  - {name: curve, mountPath: /etc/agency/curve, readOnly: true}
  {{- end }}
  {{- if .api }}
  - {name: api, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  {{- end }}
{{- end }}

{{- define "agency.volumes" -}}
- {name: sockets, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
- {name: tmp, emptyDir: {sizeLimit: 256Mi}}
{{- with include "agency.tokens" . }}
- {name: tokens, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- with .Values.curve.existingSecret }}
- {name: curve, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- end }}

{{- define "agency.claim" -}}
accessModes: [{{ .mode }}]
{{- with .claim.storageClass }}
storageClassName: {{ . | quote }}
{{- end }}
resources: {requests: {storage: {{ .claim.size }}}}
{{- end }}
