package docs

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/host"
	"countersign.dev/services/countersign/stack"
)

var update = flag.Bool("update", false, "write the generated tables into the pages")

// section keeps what stands in a page between the marks of a generated table the same as want.
func section(t *testing.T, page, name, want string) {
	t.Helper()
	begin, end := "<!-- generated: "+name+" -->\n", "<!-- /generated -->"
	text := read(t, page)
	before, rest, found := strings.Cut(text, begin)
	got, after, closed := strings.Cut(rest, end)
	switch {
	case !found || !closed:
		t.Fatalf("%s has no section %q", page, name)
	case got == want:
	case *update:
		if err := os.WriteFile(filepath.Join(root, page), []byte(before+begin+want+end+after), 0o644); err != nil { //nolint:gosec // a page for everybody
			t.Fatal(err)
		}
	default:
		t.Errorf("%s: section %q is not what the program has; `go test ./docs -update` writes:\n%s", page, name, want)
	}
}

func TestFailureTable(t *testing.T) {
	var b strings.Builder
	b.WriteString("| code | HTTP | gRPC | says | next | again |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, f := range failure.All() {
		again := ""
		switch {
		case f.Retryable && f.Expected > 0:
			again = "the same call, in about " + short(f)
		case f.Retryable:
			again = "the same call, later"
		}
		fmt.Fprintf(&b, "| `%s` | %d | %s | %s | `%s` | %s |\n", f.Code, f.HTTP, f.Kind, f.Text, f.Next, again)
	}
	section(t, "docs/contract.md", "failures", b.String())
}

func short(f *failure.Error) string {
	text := strings.TrimSuffix(f.Expected.String(), "0s")
	return strings.TrimSuffix(text, "0m")
}

func TestFlagTables(t *testing.T) {
	var up stack.Config
	parser, err := kong.New(&up, kong.Name("countersign up"))
	if err != nil {
		t.Fatal(err)
	}
	section(t, "docs/configuration.md", "up", flags(parser))
	if parser, err = (host.Program{Name: "service"}).Parser(); err != nil {
		t.Fatal(err)
	}
	section(t, "docs/configuration.md", "service", flags(parser))
}

// flags are the flags of a command as a table.
func flags(parser *kong.Kong) string {
	var b strings.Builder
	b.WriteString("| flag | environment | default | |\n| --- | --- | --- | --- |\n")
	for _, group := range parser.Model.Node.AllFlags(true) {
		for _, f := range group {
			if f.Name == "help" {
				continue
			}
			fmt.Fprintf(&b, "| `--%s` | %s | %s | %s |\n", f.Name, code(strings.Join(f.Envs, " ")), code(f.Default), strings.ReplaceAll(f.Help, "|", `\|`))
		}
	}
	return b.String()
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

// TestReadyLine holds the line that others wait for to the addresses that the program has.
func TestReadyLine(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile(`(?m)^\{"ready":true.*\}$`).FindString(read(t, "docs/contract.md"))
	var a stack.Addresses
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		t.Fatal(err)
	}
	printed, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if string(printed) != line {
		t.Errorf("the program prints\n%s\nand the contract says\n%s", printed, line)
	}
}
