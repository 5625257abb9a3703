{{- define "levin.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "levin.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "levin.labels" -}}
{{ include "levin.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "levin.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "levin.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- /* The key of a file in the ConfigMap: keys know no slash. */ -}}
{{- define "levin.key" -}}
{{ . | replace "/" "__" }}
{{- end }}

{{- /* What no schema can say. */ -}}
{{- define "levin.possible" -}}
{{- $store := .Values.store -}}
{{- if and $store.secret.name $store.sqlite.enabled }}{{ fail "store.secret.name and store.sqlite.enabled exclude each other" }}{{ end -}}
{{- if not (or $store.secret.name $store.sqlite.enabled) }}{{ fail "where is the store? Name a Secret in store.secret.name, or set store.sqlite.enabled for one replica" }}{{ end -}}
{{- if and $store.sqlite.enabled (gt (int .Values.replicas) 1) }}{{ fail "a store of SQLite serves one replica: set replicas to 1, or store.secret.name to a Secret with the address of a PostgreSQL" }}{{ end -}}
{{- if and .Values.project.files .Values.project.volume }}{{ fail "project.files and project.volume exclude each other" }}{{ end -}}
{{- if not (or .Values.project.files .Values.project.volume) }}{{ fail "where is the project? Set project.files (with --set-file) or project.volume" }}{{ end -}}
{{- if .Values.project.files -}}
{{- range $file := list "levin.yml" "levin.lock.yml" -}}
{{- if not (hasKey $.Values.project.files $file) }}{{ fail (printf "project.files has no %s: `levin check` writes levin.lock.yml beside levin.yml, and both belong to the project" $file) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add 60 (int .Values.preStopSeconds)) }}{{ fail "terminationGracePeriodSeconds must be at least 60 + preStopSeconds: so long runs under way may take to commit" }}{{ end -}}
{{- end }}
