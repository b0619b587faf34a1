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

{{/* The Secret with the tokens; nothing when a proxy checks. */}}
{{- define "agency.tokens" -}}
{{- if .Values.auth.existingSecret }}{{ .Values.auth.existingSecret }}
{{- else if or .Values.auth.tokens (not .Values.auth.behindProxy) }}{{ .Release.Name }}-tokens
{{- end }}
{{- end }}

{{- define "agency.tokensMade" -}}
{{- if not (or .Values.auth.tokens .Values.auth.existingSecret .Values.auth.behindProxy) }}yes{{ end }}
{{- end }}

{{/* The Secret with mcp.json; nothing when no other MCP servers are named. */}}
{{- define "agency.mcp" -}}
{{- with .Values.agent.mcpServers }}
{{- if .existingSecret }}{{ .existingSecret }}
{{- else if .servers }}{{ $.Release.Name }}-mcp
{{- end }}
{{- end }}
{{- end }}

{{- define "agency.curve" -}}
{{ .Values.curve.existingSecret | default (printf "%s-curve" .Release.Name) }}
{{- end }}

{{- define "agency.keygen" -}}
{{- if and .Values.curve.generate (not .Values.curve.existingSecret) }}yes{{ end }}
{{- end }}

{{- define "agency.owner" -}}
{{ .Release.Name }}-agent-0.{{ .Release.Name }}-agent-headless.{{ .Release.Namespace }}.svc
{{- end }}

{{/* What must hold between values; the schema sees each alone. */}}
{{- define "agency.check" -}}
{{- if not (or .Values.curve.generate .Values.curve.existingSecret) }}
{{- fail (printf "curve.existingSecret: pods talk with CURVE keys only. Make them: agency keygen a; agency keygen b; kubectl -n %s create secret generic keys --from-file=agent.key=a/curve.key --from-file=agent.pub=a/curve.pub --from-file=brain.key=b/curve.key --from-file=brain.pub=b/curve.pub; and set curve.existingSecret=keys, or curve.generate=true" .Release.Namespace) }}
{{- end }}
{{- if and .Values.auth.tokens .Values.auth.existingSecret }}
{{- fail "auth.tokens and auth.existingSecret say two things: set one" }}
{{- end }}
{{- if and .Values.agent.mcpServers.servers .Values.agent.mcpServers.existingSecret }}
{{- fail "agent.mcpServers: servers and existingSecret say two things: set one" }}
{{- end }}
{{- if and (include "agency.mcp" .) (hasKey .Values.settings "AGENCY_OUTSIDE_FILE") }}
{{- fail "settings.AGENCY_OUTSIDE_FILE: the chart gives this setting itself, from agent.mcpServers" }}
{{- end }}
{{- range $key, $_ := .Values.settings }}
{{- if regexMatch "^AGENCY_(BUS_(POD|OWNER|BRAIN|LISTEN|CURVE_.*)|GATEWAY_(ALLOWED_HOSTS|KEY_FILE|BEHIND_PROXY)|WORKER_LLM_KEY_FILE|BRAIN_EMBED_(URL|MODEL|KEY_FILE)|(AGENT|ELASTIC)_(MIN_REPLICAS|MAX_REPLICAS|TARGET_PER_REPLICA)|ELASTIC_(MODE|DOWN_STABILIZATION_MS|DOWN_PERIOD_MS|UP_PERIOD_MS|STATEFULSET|NAMESPACE|IDENTITY))$" $key }}
{{- fail (printf "settings.%s: the chart gives this setting itself, from other values" $key) }}
{{- end }}
{{- end }}
{{- if and .Values.embeddings.url (not .Values.embeddings.model) }}
{{- fail "embeddings.model must be set with embeddings.url" }}
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

{{/* {root, name, words, port, portName, service, preStop, resources, env}: one container of an agency. */}}
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
  - {name: AGENCY_BUS_LISTEN, value: "*"}
  - {name: AGENCY_BUS_CURVE_KEY, value: /etc/agency/curve/curve.key}
  - {name: AGENCY_BUS_CURVE_ALLOW, value: /etc/agency/curve/allow}
  - {name: AGENCY_BUS_CURVE_SERVERS, value: /etc/agency/curve/servers}
  - {name: AGENCY_BUS_OWNER, value: {{ include "agency.owner" .root }}}
  {{- if eq .service "agent" }}
  - {name: AGENCY_BUS_POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: AGENCY_BUS_BRAIN, value: "tcp://{{ .root.Release.Name }}-brain-0.{{ .root.Release.Name }}-brain-headless.{{ .root.Release.Namespace }}.svc:5502"}
  {{- end }}
  - {name: AGENCY_GATEWAY_KEY_FILE, value: /etc/agency/gateway/key}
  - {name: AGENCY_BIND, value: 0.0.0.0}
  {{- $host := printf "%s-%s" .root.Release.Name .service }}
  - name: AGENCY_GATEWAY_ALLOWED_HOSTS
    value: {{ concat (list (printf "$(POD_IP):%d" (int .port)) (printf "%s:%d" $host (int .port)) (printf "%s.%s:%d" $host .root.Release.Namespace (int .port)) (printf "%s.%s.svc:%d" $host .root.Release.Namespace (int .port)) (printf "%s.%s.svc.cluster.local:%d" $host .root.Release.Namespace (int .port))) $v.allowedHosts | join "," | quote }}
  {{- if include "agency.tokens" .root }}
  - {name: AGENCY_TOKENS, value: /etc/agency/tokens/tokens}
  {{- end }}
  {{- if $v.auth.behindProxy }}
  - {name: AGENCY_GATEWAY_BEHIND_PROXY, value: "true"}
  {{- end }}
  {{- range $key, $value := .env }}
  - {name: {{ $key }}, value: {{ $value | quote }}}
  {{- end }}
  {{- if and (eq .name "agent") (include "agency.mcp" .root) }}
  - {name: AGENCY_OUTSIDE_FILE, value: /etc/agency/mcp/mcp.json}
  {{- end }}
  {{- if and .llm $v.llm.url }}
  - {name: AGENCY_LLM_URL, value: {{ $v.llm.url | quote }}}
  {{- if $v.llm.model }}
  - {name: AGENCY_LLM_MODEL, value: {{ $v.llm.model | quote }}}
  {{- end }}
  {{- if $v.llm.existingSecret }}
  - {name: AGENCY_WORKER_LLM_KEY_FILE, value: /etc/agency/llm/key}
  {{- end }}
  {{- end }}
  {{- if and (eq .name "brain") $v.embeddings.url }}
  - {name: AGENCY_BRAIN_EMBED_URL, value: {{ $v.embeddings.url | quote }}}
  - {name: AGENCY_BRAIN_EMBED_MODEL, value: {{ $v.embeddings.model | quote }}}
  {{- if $v.embeddings.existingSecret }}
  - {name: AGENCY_BRAIN_EMBED_KEY_FILE, value: /etc/agency/embeddings/key}
  {{- end }}
  {{- end }}
  {{- range $key, $value := $v.settings }}
  - {name: {{ $key }}, value: {{ $value | quote }}}
  {{- end }}
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
lifecycle:
  preStop:
    exec: {command: {{ .preStop | toJson }}}
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
  {{- if include "agency.tokens" .root }}
  - {name: tokens, mountPath: /etc/agency/tokens, readOnly: true}
  {{- end }}
  - {name: curve, mountPath: /etc/agency/curve, readOnly: true}
  - {name: gateway, mountPath: /etc/agency/gateway, readOnly: true}
  {{- if and (eq .name "agent") (include "agency.mcp" .root) }}
  - {name: mcp, mountPath: /etc/agency/mcp, readOnly: true}
  {{- end }}
  {{- if and .llm $v.llm.url $v.llm.existingSecret }}
  - {name: llm, mountPath: /etc/agency/llm, readOnly: true}
  {{- end }}
  {{- if and (eq .name "brain") $v.embeddings.url $v.embeddings.existingSecret }}
  - {name: embeddings, mountPath: /etc/agency/embeddings, readOnly: true}
  {{- end }}
  {{- if .api }}
  - {name: api, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  {{- end }}
{{- end }}

{{/* {root, part}. Each pod has its own secret key, and of the others the public ones. Modes are 0440
(288), written so that every reader of YAML understands the same. */}}
{{- define "agency.volumes" -}}
{{- $part := .part }}
- {name: sockets, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
- {name: tmp, emptyDir: {sizeLimit: 256Mi}}
{{- with include "agency.tokens" .root }}
- {name: tokens, secret: {secretName: {{ . }}, defaultMode: 288, items: [{key: tokens, path: tokens}]}}
{{- end }}
- {name: gateway, secret: {secretName: {{ .root.Release.Name }}-gateway, defaultMode: 288}}
{{- if eq $part "agent" }}
{{- with include "agency.mcp" .root }}
- {name: mcp, secret: {secretName: {{ . }}, defaultMode: 288, items: [{key: mcp.json, path: mcp.json}]}}
{{- end }}
{{- end }}
{{- range $name, $of := dict "llm" "agent" "embeddings" "brain" }}
{{- with get $.root.Values $name }}
{{- if and (eq $part $of) .url .existingSecret }}
- {name: {{ $name }}, secret: {secretName: {{ .existingSecret }}, defaultMode: 288, items: [{key: key, path: key}]}}
{{- end }}
{{- end }}
{{- end }}
- name: curve
  secret:
    secretName: {{ include "agency.curve" .root }}
    defaultMode: 288
    items:
      - {key: {{ $part }}.key, path: curve.key}
      - {key: agent.pub, path: allow/agent.pub}
      - {key: brain.pub, path: allow/brain.pub}
      - {key: brain.pub, path: servers/brain.pub}
      {{- range list "agent" "health" "swarm" "elastic" "outside" }}
      - {key: agent.pub, path: servers/{{ . }}.pub}
      {{- end }}
{{- end }}

{{- define "agency.claim" -}}
accessModes: [{{ .mode }}]
{{- with .claim.storageClass }}
storageClassName: {{ . | quote }}
{{- end }}
resources: {requests: {storage: {{ .claim.size }}}}
{{- end }}

{{/* {root, pillar}. The worker finishes what it holds, and the containers beside it wait for that. */}}
{{- define "agency.preStop" -}}
{{ list "agency" "drain" .pillar "--timeout" (mul (sub (int .root.Values.terminationGracePeriodSeconds) 15) 1000 | toString) | toJson }}
{{- end }}

{{/* The account of the pod, for containers that ask the API server. */}}
{{- define "agency.apiVolume" -}}
name: api
projected:
  defaultMode: 288
  sources:
    - serviceAccountToken: {path: token, expirationSeconds: 3600}
    - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
    - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end }}

{{/* Rules of egress that more than one policy has. */}}
{{- define "agency.dns" -}}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}
{{- define "agency.peer" -}}
- podSelector:
    matchLabels: {{- include "agency.selector" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .part }}
{{- end }}
{{/* {from, to}: the ports of the bus between two parts; nothing when they do not talk. */}}
{{- define "agency.busPorts" -}}
{{- if eq .to "agent" -}}
- {protocol: TCP, port: 5500, endPort: 5507}
- {protocol: TCP, port: 5600, endPort: 5607}
{{- else if eq .from "agent" -}}
- {protocol: TCP, port: 5502}
- {protocol: TCP, port: 5602}
{{- end }}
{{- end }}
{{- define "agency.apiServer" -}}
- ports:
    - {protocol: TCP, port: 443}
    - {protocol: TCP, port: 6443}
  {{- with .Values.networkPolicy.apiServer }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "agency.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
{{- define "agency.keygenLabels" -}}
{{ include "agency.labels" . }}
app.kubernetes.io/component: keygen
{{- end }}
