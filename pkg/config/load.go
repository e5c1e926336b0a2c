package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const (
	maxFileBytes = 1 << 20
	maxProblems  = 100 // of which all are told; what is beyond is a file of another kind
)

// ErrNone means that the folder given does not exist.
var ErrNone = errors.New("config: there is no such folder")

var tenantPattern = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// fileReaders are the files a folder may hold; order matters for what they report: profiles name plans and policies.
var fileReaders = []struct {
	name string
	read func(l *layer, file string, data []byte)
}{
	{"reminders.yaml", (*layer).reminders},
	{"escalations.yaml", (*layer).escalations},
	{"branding.yaml", (*layer).branding},
	{"profiles.yaml", (*layer).profiles},
}

// Load reads DIR/defaults and DIR/<tenant> for every tenant, over the built-in settings. The error is ErrNone, a Problems
// with every wrong setting, or an accident of the file system.
func Load(dir string) (*Config, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNone, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("config: read %s: %w", dir, err)
	}
	var problems Problems
	base := builtIn()
	if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == Defaults }) {
		found, err := overlay(&base, filepath.Join(dir, Defaults))
		if err != nil {
			return nil, err
		}
		problems = append(problems, found...)
	}
	c := &Config{base: base, tenants: map[string]Tenant{}, files: true}
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(dir, name)
		switch {
		case name == Defaults || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".md") || name == "schema":
			continue
		case !e.IsDir():
			problems = append(problems, Problem{File: path, Text: "is no folder; accepted: defaults, and one a tenant"})
			continue
		case !tenantPattern.MatchString(name):
			problems = append(problems, Problem{File: path, Text: "is no tenant; accepted: up to 32 lower-case letters, digits and -"})
			continue
		}
		tenant := base.clone()
		tenant.given, tenant.givenRules = nil, false
		found, err := overlay(&tenant, path)
		if err != nil {
			return nil, err
		}
		problems = append(problems, found...)
		c.tenants[name] = tenant
	}
	if len(problems) > 0 {
		return nil, problems[:min(len(problems), maxProblems)]
	}
	return c, nil
}

// layer is one folder laid over what is below it.
type layer struct {
	tenant   *Tenant
	problems []Problem
	broken   bool // plans or policies could not be read, so that names of them cannot be checked
}

// overlay reads one folder into t. After problems t is of no use.
func overlay(t *Tenant, dir string) ([]Problem, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("config: read %s: %w", dir, err)
	}
	l := &layer{tenant: t}
	var accepted []string
	for _, f := range fileReaders {
		accepted = append(accepted, f.name)
	}
	for _, e := range entries {
		if n := e.Name(); !slices.Contains(accepted, n) && !strings.HasPrefix(n, ".") && !strings.HasSuffix(n, ".md") {
			l.problems = append(l.problems, Problem{File: filepath.Join(dir, n), Text: "is not read; accepted: " + strings.Join(accepted, ", ")})
		}
	}
	for _, f := range fileReaders {
		path := filepath.Join(dir, f.name)
		data, err := readFile(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case errors.Is(err, errTooLarge):
			l.problems = append(l.problems, Problem{File: path, Text: "is too large; accepted: up to 1 MiB"})
		case err != nil:
			return nil, fmt.Errorf("config: read %s: %w", path, err)
		default:
			f.read(l, path, data)
		}
	}
	return l.problems, nil
}

var errTooLarge = errors.New("too large")

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(data) > maxFileBytes {
		return nil, errTooLarge
	}
	return data, err
}

// set takes a value that a file gives; one it leaves out stays.
func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func names[T any](m map[string]T) string { return strings.Join(slices.Sorted(maps.Keys(m)), ", ") }
