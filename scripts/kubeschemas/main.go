// Command kubeschemas turns the OpenAPI document of Kubernetes into the JSON schemas that kubeconform reads, so that
// manifests are checked without a cluster and without the internet.
//
//	kubeschemas SWAGGER.JSON FOLDER
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: kubeschemas SWAGGER.JSON FOLDER")
		os.Exit(2)
	}
	n, err := run(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubeschemas:", err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "kubeschemas: %d kinds\n", n)
}

// definition is a schema; only what has to be rewritten is looked at.
type definition = map[string]any

// shared is the file that holds every definition; each kind's own file only points into it.
const shared = "_definitions.json"

// run writes the schemas into folder, which is made, and returns the number of kinds.
func run(swagger, folder string) (int, error) {
	text, err := os.ReadFile(swagger)
	if err != nil {
		return 0, err
	}
	var document struct {
		Definitions map[string]definition `json:"definitions"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return 0, fmt.Errorf("%s: %w", swagger, err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // public schemas
		return 0, err
	}
	kinds := 0
	for name, d := range document.Definitions {
		file, ok := fileName(d)
		rewrite(d)
		if !ok {
			continue
		}
		kinds++
		if err := write(filepath.Join(folder, file), definition{"$ref": shared + "#/definitions/" + name}); err != nil {
			return 0, err
		}
	}
	if kinds == 0 {
		return 0, fmt.Errorf("%s: names no kind", swagger)
	}
	return kinds, write(filepath.Join(folder, shared), definition{"definitions": document.Definitions})
}

// fileName returns the name under which kubeconform looks for d: kind-group-version, with the first label of the
// group and none for the core. It is false for what is no kind, and for what belongs to many (DeleteOptions).
func fileName(d definition) (string, bool) {
	list, _ := d["x-kubernetes-group-version-kind"].([]any)
	if len(list) != 1 {
		return "", false
	}
	gvk, _ := list[0].(map[string]any)
	group, _ := gvk["group"].(string)
	version, _ := gvk["version"].(string)
	kind, _ := gvk["kind"].(string)
	parts := []string{kind}
	if group != "" {
		label, _, _ := strings.Cut(group, ".")
		parts = append(parts, label)
	}
	return strings.ToLower(strings.Join(append(parts, version), "-")) + ".json", true
}

// rewrite changes in place what JSON schema says in another way than OpenAPI does, and refuses unknown fields.
func rewrite(node any) {
	switch n := node.(type) {
	case []any:
		for _, child := range n {
			rewrite(child)
		}
	case map[string]any:
		if ref, ok := n["$ref"].(string); ok {
			n["$ref"] = shared + ref
		}
		if n["format"] == "int-or-string" {
			delete(n, "type")
			delete(n, "format")
			n["oneOf"] = []any{definition{"type": "string"}, definition{"type": "integer"}}
		}
		if _, ok := n["properties"].(map[string]any); ok {
			if _, said := n["additionalProperties"]; !said {
				n["additionalProperties"] = false
			}
		}
		for _, child := range n {
			rewrite(child)
		}
	}
}

func write(file string, content any) error {
	text, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644) //nolint:gosec // public schemas
}
