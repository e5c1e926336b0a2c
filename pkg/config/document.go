package config

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	// goccy/go-yaml keeps the position of everything it has read.
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	// The schema that editors use is the one that decides, so that both say the same.
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

//go:embed schema/*.json
var schemaFiles embed.FS

// Schemas returns the JSON schemas of the files, for editors: profiles.schema.json and so on.
func Schemas() fs.FS {
	sub, err := fs.Sub(schemaFiles, "schema")
	if err != nil {
		panic(err) // the folder is compiled in
	}
	return sub
}

// Problem is one wrong setting.
type Problem struct {
	File         string
	Line, Column int    // from 1; 0 where it is the file as a whole
	Path         string // such as profiles.sales.lifetime
	Text         string // what is wrong, and what is accepted
}

func (p Problem) String() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
	if p.Path != "" {
		where += ": " + p.Path
	}
	return where + ": " + p.Text
}

// Problems is the error of settings that are wrong: all of them, in the order of the files.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return "config: " + strings.Join(lines, "\n        ")
}

// document is one file, parsed.
type document struct {
	file     string
	root     ast.Node // nil for an empty file
	problems []Problem
}

// read parses a file, checks it against its schema, and decodes it into v. Problems are kept, and v is not touched then.
func read(file string, data []byte, schema string, v any) *document {
	d := &document{file: file}
	parsed, err := parser.ParseBytes(data, 0)
	if err != nil {
		d.syntax(err)
		return d
	}
	if len(parsed.Docs) > 1 {
		d.add(nil, "holds several documents; one is accepted")
		return d
	}
	if len(parsed.Docs) == 0 || parsed.Docs[0].Body == nil || parsed.Docs[0].Body.Type() == ast.NullType || parsed.Docs[0].Body.Type() == ast.CommentType {
		return d
	}
	d.root = parsed.Docs[0].Body
	var plain any
	if err := yaml.NodeToValue(d.root, &plain); err != nil {
		d.syntax(err)
		return d
	}
	d.check(schema, plain)
	if len(d.problems) > 0 {
		return d
	}
	if err := yaml.NodeToValue(d.root, v, yaml.Strict()); err != nil {
		d.syntax(err)
	}
	return d
}

func (d *document) syntax(err error) {
	p := Problem{File: d.file, Text: "is no YAML"}
	var located yaml.Error
	if errors.As(err, &located) {
		p.Text = located.GetMessage()
		if tk := located.GetToken(); tk != nil && tk.Position != nil {
			p.Line, p.Column = tk.Position.Line, tk.Position.Column
		}
	}
	d.problems = append(d.problems, p)
}

// add notes what is wrong at a path, such as "profiles", "sales", "lifetime".
func (d *document) add(path []string, format string, args ...any) {
	p := Problem{File: d.file, Path: joined(path), Text: fmt.Sprintf(format, args...)}
	p.Line, p.Column = d.position(path)
	d.problems = append(d.problems, p)
}

// position finds a path, or as much of it as there is. A setting that was left out is where its parent is.
func (d *document) position(path []string) (line, column int) {
	if d.root == nil {
		return 0, 0
	}
	node, at := d.root, d.root
	for _, step := range path {
		key, value := child(node, step)
		if value == nil {
			break
		}
		node, at = value, key
	}
	if tk := at.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position.Line, tk.Position.Column
	}
	return 0, 0
}

// child returns where the step leads, and what marks the place: the key in a mapping, the item itself in a list.
func child(n ast.Node, step string) (place, value ast.Node) {
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			if v.Key.String() == step || v.Key.GetToken().Value == step {
				return v.Key, v.Value
			}
		}
	case *ast.MappingValueNode:
		if n.Key.GetToken().Value == step {
			return n.Key, n.Value
		}
	case *ast.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Values) {
			return n.Values[i], n.Values[i]
		}
	case *ast.AnchorNode:
		return child(n.Value, step)
	case *ast.TagNode:
		return child(n.Value, step)
	}
	return nil, nil
}

func joined(path []string) string {
	var out strings.Builder
	for _, step := range path {
		if _, err := strconv.Atoi(step); err == nil {
			out.WriteString("[" + step + "]")
			continue
		}
		if out.Len() > 0 {
			out.WriteByte('.')
		}
		out.WriteString(step)
	}
	return out.String()
}

// check holds the value against the schema and notes every difference.
func (d *document) check(schema string, value any) {
	s := compiled()[schema]
	err := s.Validate(value)
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return
	}
	d.differences(invalid, s.source)
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	d.problems = slices.Compact(d.problems) // a pattern and a format can say the same
}

func (d *document) differences(e *jsonschema.ValidationError, source any) {
	if len(e.Causes) > 0 {
		for _, c := range e.Causes {
			d.differences(c, source)
		}
		return
	}
	at := lookup(source, e.SchemaURL)
	accepted, _ := at["description"].(string)
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		if names, ok := at["properties"].(map[string]any); ok {
			accepted = strings.Join(sortedKeys(names), ", ")
		}
		for _, name := range k.Properties {
			d.add(append(slices.Clone(e.InstanceLocation), name), "is no setting here; accepted: %s", accepted)
		}
	case *kind.Required:
		d.add(e.InstanceLocation, "lacks %s; accepted: %s", strings.Join(k.Missing, ", "), accepted)
	case *kind.DependentRequired:
		d.add(e.InstanceLocation, "lacks %s, which goes with %s", strings.Join(k.Missing, ", "), k.Prop)
	default:
		d.add(e.InstanceLocation, "accepted: %s", accepted)
	}
}

// schemaOf is a compiled schema, and its text as plain values.
type schemaOf struct {
	*jsonschema.Schema
	source any
}

// compiled returns every schema by the name of its file. They are part of the program, so a broken one is a panic.
var compiled = sync.OnceValue(func() map[string]schemaOf {
	all := map[string]schemaOf{}
	files, err := fs.Glob(Schemas(), "*.json")
	if err != nil {
		panic(err)
	}
	for _, name := range files {
		s, err := compile(name)
		if err != nil {
			panic(err)
		}
		all[name] = s
	}
	return all
})

func compile(name string) (schemaOf, error) {
	data, err := fs.ReadFile(Schemas(), name)
	if err != nil {
		return schemaOf{}, fmt.Errorf("config: schema %s: %w", name, err)
	}
	var source any
	if err := json.Unmarshal(data, &source); err != nil {
		return schemaOf{}, fmt.Errorf("config: schema %s: %w", name, err)
	}
	c := jsonschema.NewCompiler()
	// What no pattern can say: the range. An editor that does not know these formats checks the pattern alone.
	c.RegisterFormat(&jsonschema.Format{Name: "countersign-wait", Validate: func(v any) error { return inRange(v, 0) }})
	c.RegisterFormat(&jsonschema.Format{Name: "countersign-duration", Validate: func(v any) error { return inRange(v, Duration(time.Second)) }})
	c.AssertFormat()
	if err := c.AddResource(name, source); err != nil {
		return schemaOf{}, fmt.Errorf("config: schema %s: %w", name, err)
	}
	s, err := c.Compile(name)
	if err != nil {
		return schemaOf{}, fmt.Errorf("config: schema %s: %w", name, err)
	}
	return schemaOf{s, source}, nil
}

func inRange(v any, least Duration) error {
	text, ok := v.(string)
	if !ok {
		return nil // its type is another keyword's matter
	}
	if d, err := ParseDuration(text); err != nil || d < least {
		return errDuration
	}
	return nil
}

// lookup follows the JSON pointer of a schema's URL; an absent place is an empty schema.
func lookup(source any, schemaURL string) map[string]any {
	_, pointer, _ := strings.Cut(schemaURL, "#")
	at := source
	for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if pointer == "" || pointer == "/" {
			break
		}
		if unescaped, err := url.PathUnescape(step); err == nil {
			step = unescaped
		}
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		switch v := at.(type) {
		case map[string]any:
			at = v[step]
		case []any:
			if i, err := strconv.Atoi(step); err == nil && i < len(v) {
				at = v[i]
			}
		}
	}
	m, _ := at.(map[string]any)
	return m
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
