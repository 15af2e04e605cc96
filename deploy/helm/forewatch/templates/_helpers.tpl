{{- define "forewatch.name" -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | replace (printf "%s-%s" .Chart.Name .Chart.Name) .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "forewatch.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{- /* Call with (dict "root" $ "component" NAME). */}}
{{- define "forewatch.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* Call with (dict "image" IMAGE "root" $). */}}
{{- define "forewatch.image" -}}
{{- if .image.digest -}}
{{ printf "%s@%s" .image.repository .image.digest | quote }}
{{- else -}}
{{ printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) | quote }}
{{- end -}}
{{- end }}

{{- define "forewatch.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "forewatch.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "forewatch.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /var/cache/forewatch}
- {name: config, mountPath: /etc/forewatch, readOnly: true}
{{- if .Values.data.enabled }}
- {name: data, mountPath: /var/lib/forewatch}
{{- end }}
{{- if .Values.secretFiles }}
- {name: secrets, mountPath: /run/secrets/forewatch, readOnly: true}
{{- end }}
{{- end }}

{{- define "forewatch.scratch" -}}
- {name: tmp, emptyDir: {sizeLimit: 1Gi}}
- {name: cache, emptyDir: {sizeLimit: 1Gi}}
{{- end }}

{{- define "forewatch.volumes" -}}
{{ include "forewatch.scratch" . }}
- name: config
  configMap: {name: {{ include "forewatch.name" . }}}
{{- include "forewatch.dataVolume" . }}
{{- include "forewatch.secretVolume" . }}
{{- end }}

{{- define "forewatch.dataVolume" -}}
{{- if .Values.data.enabled }}
- name: data
  persistentVolumeClaim: {claimName: {{ .Values.data.existingClaim | default (printf "%s-data" (include "forewatch.name" .)) | quote }}}
{{- end }}
{{- end }}

{{- define "forewatch.secretVolume" -}}
{{- if .Values.secretFiles }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range .Values.secretFiles }}
      - secret:
          name: {{ .secret | quote }}
          items: [{key: {{ .key | quote }}, path: {{ .file | quote }}}]
      {{- end }}
{{- end }}
{{- end }}

{{- define "forewatch.config" -}}
{{- $http := dict "host" "0.0.0.0" "port" 9464 -}}
{{- $storage := dict "history_path" "/var/lib/forewatch/history" "models_path" "/var/lib/forewatch/models" -}}
{{- if not .Values.data.enabled -}}
{{- $storage = dict "history" false "models_path" "/tmp/models" -}}
{{- end -}}
{{- $given := deepCopy .Values.config -}}
{{- $_ := set $given "http" $http -}}
{{- if gt (int .Values.workers) 1 -}}
{{- $_ := set $given "workers" (int .Values.workers) -}}
{{- end -}}
{{- if and (gt (int .Values.worker.replicas) 0) (not (hasKey $given "cluster")) -}}
{{- $_ := set $given "cluster" (dict "scheduler" (printf "tcp://%s-scheduler:8786" (include "forewatch.name" .))) -}}
{{- end -}}
{{- $pushed := list -}}
{{- range $name, $stream := get $given "streams" -}}
{{- $source := get ($stream | default dict) "source" | default dict -}}
{{- if hasKey $source "push" -}}
{{- $push := get $source "push" | default dict -}}
{{- range list "host" "port" "spool" -}}
{{- if hasKey $push . -}}
{{- fail (printf "config.streams.%s.source.push.%s: the chart sets it; remove the key" $name .) -}}
{{- end -}}
{{- end -}}
{{- if not (hasKey $push "key") -}}
{{- fail (printf "config.streams.%s.source.push.key: senders of other pods need a key; give {file: /run/secrets/forewatch/NAME}" $name) -}}
{{- end -}}
{{- $place := dict "host" "0.0.0.0" "port" (int $.Values.push.port) "spool" (printf "/var/spool/forewatch/%s" $name) -}}
{{- $_ := set $source "push" (merge $place $push) -}}
{{- $pushed = append $pushed $name -}}
{{- end -}}
{{- end -}}
{{- if and $pushed (not .Values.push.enabled) -}}
{{- fail (printf "push.enabled: stream %s receives pushed data; write push: {enabled: true}" (first $pushed)) -}}
{{- end -}}
{{- if and .Values.push.enabled (not $pushed) -}}
{{- fail "push.enabled: no stream has source.push; write push: {enabled: false}" -}}
{{- end -}}
{{- $_ := set $given "storage" (merge (deepCopy (get $given "storage" | default dict)) $storage) -}}
{{ toYaml $given }}
{{- end }}
