{{- define "loadtest.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "loadtest.labels" -}}
app.kubernetes.io/name: loadtest
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* What selects pods: never changes for a release. Takes (list $ component). */}}
{{- define "loadtest.selector" -}}
app.kubernetes.io/name: loadtest
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "loadtest.podMetadata" -}}
{{- $ := index . 0 -}}
labels:
  {{- include "loadtest.selector" . | nindent 2 }}
  {{- with $.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  {{- /* What scales nodes down moves no pod that is sending load. */}}
  cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
  karpenter.sh/do-not-disrupt: "true"
  {{- with $.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "loadtest.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ printf "%s@%s" .repository .digest }}
{{- else -}}
{{ printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "loadtest.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "loadtest.name" .) -}}
{{- end }}

{{- define "loadtest.store" -}}
{{- $url := .Values.store.url | default (printf "clickhouse://loadtest@%s-clickhouse:8123/loadtest" (include "loadtest.name" .)) -}}
{{- printf "%s%spassword=file:/store/password" $url (ternary "&" "?" (contains "?" $url)) -}}
{{- end }}

{{- define "loadtest.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "loadtest.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Whole CPUs, or no limit of them. Takes (dict "cpus" "memory" "mode"). */}}
{{- define "loadtest.resources" -}}
requests: {cpu: {{ .cpus | toString | quote }}, memory: {{ .memory }}}
{{- if eq .mode "guaranteed" }}
limits: {cpu: {{ .cpus | toString | quote }}, memory: {{ .memory }}}
{{- else }}
limits: {memory: {{ .memory }}}
{{- end }}
{{- end }}

{{/* What every pod of ours has: who it is. */}}
{{- define "loadtest.podIdentity" -}}
serviceAccountName: {{ include "loadtest.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  {{- include "loadtest.podSecurity" . | nindent 2 }}
{{- end }}

{{/* Volumes of whoever runs a plan; the plan is in the ConfigMap .plan. Takes (dict "root" $ "plan" name). */}}
{{- define "loadtest.driverVolumes" -}}
- name: plan
  configMap: {name: {{ .plan }}}
- name: store
  secret: {secretName: {{ .root.Values.store.secret }}, defaultMode: 0440}
- name: results
  {{- if .root.Values.results.claim }}
  persistentVolumeClaim: {claimName: {{ .root.Values.results.claim }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- if .root.Values.keys }}
- name: keys
  projected:
    defaultMode: 0440
    sources:
      {{- range $name, $of := .root.Values.keys }}
      - secret:
          name: {{ $of.secret }}
          items: [{key: {{ $of.key }}, path: {{ $name }}}]
      {{- end }}
{{- end }}
{{- end }}

{{- define "loadtest.driverMounts" -}}
- {name: plan, mountPath: /plan, readOnly: true}
- {name: store, mountPath: /store, readOnly: true}
- {name: results, mountPath: /results}
{{- if .Values.keys }}
- {name: keys, mountPath: /keys, readOnly: true}
{{- end }}
{{- end }}
