// Renders a chart's templates with Go's own engine, for tests: go run render_chart.go FOLDER < VALUES
//
// VALUES is JSON: what templates see as `.`. Of Helm's functions it has those that the chart uses;
// toYaml writes JSON, which is YAML. Prints a JSON object, file -> text.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"text/template"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	var values map[string]interface{}
	check(json.NewDecoder(os.Stdin).Decode(&values))
	files, err := filepath.Glob(filepath.Join(os.Args[1], "*"))
	check(err)
	chart := template.New("chart").Option("missingkey=error")
	chart.Funcs(template.FuncMap{
		"include": func(name string, data interface{}) (string, error) {
			var out bytes.Buffer
			err := chart.ExecuteTemplate(&out, name, data)
			return out.String(), err
		},
		"toYaml": func(value interface{}) (string, error) {
			text, err := json.Marshal(value)
			return string(text), err
		},
		"nindent": func(count int, text string) string {
			space := "\n" + strings.Repeat(" ", count)
			return space + strings.ReplaceAll(text, "\n", space)
		},
		"quote": func(value interface{}) string { return fmt.Sprintf("%q", fmt.Sprint(value)) },
		"trunc": func(count int, text string) string {
			if len(text) > count {
				return text[:count]
			}
			return text
		},
		"trimSuffix": func(suffix, text string) string { return strings.TrimSuffix(text, suffix) },
		"default": func(fallback, value interface{}) interface{} {
			if value == nil || reflect.ValueOf(value).IsZero() {
				return fallback
			}
			return value
		},
	})
	_, err = chart.ParseFiles(files...)
	check(err)
	rendered := map[string]string{}
	for _, file := range files {
		if strings.HasSuffix(file, ".yaml") {
			var out bytes.Buffer
			check(chart.ExecuteTemplate(&out, filepath.Base(file), values))
			rendered[filepath.Base(file)] = out.String()
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(rendered))
}
