package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const swagger = `{"definitions": {
	"io.k8s.api.apps.v1.Deployment": {
		"properties": {"spec": {"$ref": "#/definitions/Spec"}, "port": {"type": "string", "format": "int-or-string"}},
		"x-kubernetes-group-version-kind": [{"group": "apps", "kind": "Deployment", "version": "v1"}]},
	"io.k8s.api.core.v1.Service": {"x-kubernetes-group-version-kind": [{"group": "", "kind": "Service", "version": "v1"}]},
	"io.k8s.api.networking.v1.Ingress": {"x-kubernetes-group-version-kind": [{"group": "networking.k8s.io", "kind": "Ingress", "version": "v1"}]},
	"DeleteOptions": {"x-kubernetes-group-version-kind": [{"kind": "DeleteOptions", "version": "v1"}, {"kind": "DeleteOptions", "version": "v2"}]},
	"Spec": {"properties": {"replicas": {"type": "integer"}}},
	"Labels": {"properties": {"a": {}}, "additionalProperties": {"type": "string"}}
}}`

func TestSchemas(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "swagger.json")
	if err := os.WriteFile(source, []byte(swagger), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "schemas")
	n, err := run(source, out)
	if err != nil || n != 3 {
		t.Fatalf("run = %d, %v; want 3 kinds", n, err)
	}
	for file, want := range map[string]string{
		"deployment-apps-v1.json":    `{"$ref":"_definitions.json#/definitions/io.k8s.api.apps.v1.Deployment"}`,
		"service-v1.json":            `{"$ref":"_definitions.json#/definitions/io.k8s.api.core.v1.Service"}`,
		"ingress-networking-v1.json": `{"$ref":"_definitions.json#/definitions/io.k8s.api.networking.v1.Ingress"}`,
	} {
		got, err := os.ReadFile(filepath.Join(out, file))
		if err != nil || string(got) != want {
			t.Errorf("%s = %s, %v; want %s", file, got, err, want)
		}
	}
	text, err := os.ReadFile(filepath.Join(out, shared))
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		Definitions map[string]json.RawMessage `json:"definitions"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Spec":                          `"additionalProperties":false`,
		"Labels":                        `"additionalProperties":{"type":"string"}`,
		"io.k8s.api.apps.v1.Deployment": `"port":{"oneOf":[{"type":"string"},{"type":"integer"}]},"spec":{"$ref":"_definitions.json#/definitions/Spec"}`,
	} {
		if !strings.Contains(string(all.Definitions[name]), want) {
			t.Errorf("%s = %s; want it to hold %s", name, all.Definitions[name], want)
		}
	}
}

func TestRefusesWhatNamesNoKind(t *testing.T) {
	source := filepath.Join(t.TempDir(), "swagger.json")
	if err := os.WriteFile(source, []byte(`{"definitions": {}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run(source, t.TempDir()); err == nil {
		t.Error("an OpenAPI document without kinds was taken")
	}
}
