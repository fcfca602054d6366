{{/* Ray's ports, which are random where they are not fixed: a network policy needs to know them. */}}
{{- define "loadtest.rayPorts" -}}
node-manager-port: "6380"
object-manager-port: "6381"
runtime-env-agent-port: "6382"
dashboard-agent-grpc-port: "6383"
dashboard-agent-listen-port: "52365"
metrics-export-port: "8080"
min-worker-port: "10002"
max-worker-port: "19999"
{{- end }}

{{- define "loadtest.rayContainer" -}}
image: {{ include "loadtest.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "loadtest.containerSecurity" . | nindent 2 }}
{{- end }}

{{/* Workers over the nodes. Takes (list $ component). */}}
{{- define "loadtest.spread" -}}
{{- $ := index . 0 -}}
{{- if $.Values.topologySpread.enabled -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ $.Values.topologySpread.topologyKey }}
    whenUnsatisfiable: {{ $.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "loadtest.selector" . | nindent 8 }}
        ray.io/node-type: worker
{{- end }}
{{- end }}

{{/* A RayJob's spec. Takes (dict "root" $ "plan" ConfigMap "entrypoint" text "deadline" seconds "component" label). */}}
{{- define "loadtest.rayJob" -}}
{{- $ := .root -}}
{{- $component := .component -}}
entrypoint: {{ .entrypoint | quote }}
# Repeating it would send load again that somebody pays for, outside the window that was announced.
backoffLimit: 0
submissionMode: K8sJobMode
submitterConfig: {backoffLimit: 0}
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: {{ $.Values.run.keepSeconds }}
activeDeadlineSeconds: {{ .deadline }}
preRunningDeadlineSeconds: {{ $.Values.run.startWithinSeconds }}
submitterPodTemplate:
  metadata:
    {{- /* Another component than the run: a disruption budget counts the pods of that one. */}}
    {{- include "loadtest.podMetadata" (list $ "submit") | nindent 4 }}
  spec:
    {{- include "loadtest.podIdentity" $ | nindent 4 }}
    restartPolicy: Never
    containers:
      - name: submit
        {{- include "loadtest.rayContainer" $ | nindent 8 }}
        resources: {requests: {cpu: 100m, memory: 512Mi}, limits: {memory: 512Mi}}
        volumeMounts: [{name: tmp, mountPath: /tmp}]
    volumes: [{name: tmp, emptyDir: {}}]
rayClusterSpec:
  rayVersion: {{ $.Values.rayVersion | quote }}
  authOptions: {mode: token}
  headGroupSpec:
    rayStartParams:
      # No load beside the driver.
      num-cpus: "0"
      dashboard-host: 0.0.0.0
      disable-usage-stats: "true"
      {{- include "loadtest.rayPorts" . | nindent 6 }}
    template:
      metadata:
        {{- include "loadtest.podMetadata" (list $ $component) | nindent 8 }}
      spec:
        {{- include "loadtest.podIdentity" $ | nindent 8 }}
        restartPolicy: Never
        terminationGracePeriodSeconds: 60
        {{- with $.Values.head.nodeSelector }}
        nodeSelector:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        {{- with $.Values.head.tolerations }}
        tolerations:
          {{- toYaml . | nindent 10 }}
        {{- end }}
        containers:
          - name: ray-head
            {{- include "loadtest.rayContainer" $ | nindent 12 }}
            ports:
              - {name: gcs-server, containerPort: 6379}
              - {name: dashboard, containerPort: 8265}
              - {name: metrics, containerPort: 8080}
            env:
              - {name: LOADTEST_STORE, value: {{ include "loadtest.store" $ | quote }}}
            resources:
              {{- include "loadtest.resources" (dict "cpus" $.Values.head.cpus "memory" $.Values.head.memory "mode" $.Values.cpuMode) | nindent 14 }}
            volumeMounts:
              - {name: tmp, mountPath: /tmp}
              - {name: home, mountPath: /data}
              {{- include "loadtest.driverMounts" $ | nindent 14 }}
        volumes:
          - {name: tmp, emptyDir: {}}
          - {name: home, emptyDir: {}}
          {{- include "loadtest.driverVolumes" (dict "root" $ "plan" .plan) | nindent 10 }}
  workerGroupSpecs:
    {{- range $group := $.Values.workers }}
    - groupName: {{ $group.name }}
      replicas: {{ $group.replicas }}
      minReplicas: {{ $group.replicas }}
      maxReplicas: {{ $group.replicas }}
      rayStartParams:
        num-cpus: {{ $group.cpus | toString | quote }}
        disable-usage-stats: "true"
        {{- include "loadtest.rayPorts" . | nindent 8 }}
      {{- with $group.resources }}
      resources:
        {{- range $name, $amount := . }}
        {{ $name }}: {{ $amount | toString | quote }}
        {{- end }}
      {{- end }}
      {{- with $group.labels }}
      labels:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      template:
        metadata:
          {{- include "loadtest.podMetadata" (list $ $component) | nindent 10 }}
        spec:
          {{- include "loadtest.podIdentity" $ | nindent 10 }}
          restartPolicy: Never
          terminationGracePeriodSeconds: 60
          {{- include "loadtest.spread" (list $ $component) | nindent 10 }}
          {{- with $group.nodeSelector }}
          nodeSelector:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with $group.tolerations }}
          tolerations:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          containers:
            - name: ray-worker
              {{- include "loadtest.rayContainer" $ | nindent 14 }}
              resources:
                {{- include "loadtest.resources" (dict "cpus" $group.cpus "memory" $group.memory "mode" $.Values.cpuMode) | nindent 16 }}
              volumeMounts:
                - {name: tmp, mountPath: /tmp}
                - {name: home, mountPath: /data}
          volumes:
            - {name: tmp, emptyDir: {}}
            - {name: home, emptyDir: {}}
    {{- end }}
{{- end }}
