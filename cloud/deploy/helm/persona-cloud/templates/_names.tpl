{{- define "persona.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}-cloud
{{- end }}

{{- define "persona.selector" -}}
app.kubernetes.io/name: persona-cloud
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "persona.labels" -}}
{{ include "persona.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}
