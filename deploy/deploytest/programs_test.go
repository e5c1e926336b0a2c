package deploytest

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/host"
	"countersign.dev/services/audit"
	"countersign.dev/services/ceremony"
	"countersign.dev/services/delivery"
	"countersign.dev/services/delivery/smtp"
	"countersign.dev/services/escalation"
	"countersign.dev/services/gateway"
	"countersign.dev/services/identity"
	"countersign.dev/services/mailbox"
	"countersign.dev/services/reminder"
	"countersign.dev/services/token"
)

// root is the repository.
const root = "../.."

// services are those of architecture.md 2 that exist; the mailbox is no part of the product.
var services = []string{audit.Name, ceremony.Name, delivery.Name, escalation.Name, gateway.Name, identity.Name, reminder.Name, token.Name}

// program is the command line of one program, as its main has it.
type program struct {
	flags any          // its own flags, filled when it was parsed
	check func() error // what it refuses at its start
}

type deliveryFlags struct {
	delivery.Config `embed:""`
	Relay           smtp.Flags `embed:""`
	PublicURL       string     `env:"COUNTERSIGN_PUBLIC_URL" name:"public-url"`
}

type identityFlags struct {
	Identity identity.Config `embed:"" prefix:"identity-"`
}

func programs() map[string]program {
	nothing := func() error { return nil }
	t, c, d, i, g, m := &token.PublicConfig{}, &ceremony.Config{}, &deliveryFlags{}, &identityFlags{}, &gateway.Config{}, &mailbox.Flags{}
	return map[string]program{
		audit.Name: {nil, nothing}, escalation.Name: {nil, nothing}, reminder.Name: {nil, nothing}, ceremony.Name: {c, nothing},
		"mailbox":     {m, nothing},
		identity.Name: {i, func() error { return i.Identity.Validate() }},
		gateway.Name:  {g, func() error { return g.Validate() }},
		token.Name:    {t, func() error { return auth.CheckListener(t.GRPC, t.APIKeys != "") }},
		delivery.Name: {d, func() error {
			return errors.Join(d.Validate(), d.Relay.Config(time.Now).Validate())
		}},
	}
}

// parser returns the command line of a program, and what it refuses once it was parsed.
func parser(t *testing.T, name string) (*kong.Kong, func() error) {
	t.Helper()
	p, known := programs()[name]
	if !known {
		t.Fatalf("no program %s", name)
	}
	var k *kong.Kong
	var err error
	if name == "mailbox" {
		k, err = kong.New(p.flags)
	} else {
		k, err = host.Program{Name: name, Flags: p.flags}.Parser()
	}
	if err != nil {
		t.Fatal(err)
	}
	return k, p.check
}

// settings checks an environment as the named program would at its start. Every setting but those of others must be one of the
// program's. Files and folders that have to exist are taken as existing: where they come from is checked apart.
func settings(t *testing.T, name string, environment map[string]string, others ...string) {
	t.Helper()
	k, check := parser(t, name)
	flags := map[string]*kong.Flag{}
	for _, f := range k.Model.Flags {
		for _, env := range f.Envs {
			flags[env] = f
		}
	}
	var args []string
	for _, env := range slices.Sorted(maps.Keys(environment)) {
		value := environment[env]
		f, known := flags[env]
		switch {
		case !known && slices.Contains(others, env):
			continue
		case !known:
			t.Errorf("%s has no setting %s", name, env)
			continue
		case f.Tag.Type == "existingfile":
			value = existing(t, name, env, value, false)
		case f.Tag.Type == "existingdir":
			value = existing(t, name, env, value, true)
		}
		args = append(args, "--"+f.Name+"="+value)
	}
	if _, err := k.Parse(args); err != nil {
		t.Errorf("%s refuses its settings: %v", name, err)
		return
	}
	if err := check(); err != nil {
		t.Errorf("%s refuses its settings: %v", name, err)
	}
}

// existing returns something that exists in the place of a path in a container.
func existing(t *testing.T, name, env, value string, dir bool) string {
	t.Helper()
	if !filepath.IsAbs(value) {
		t.Errorf("%s: %s=%s is no absolute path: an image has no working directory", name, env, value)
	}
	d := t.TempDir()
	if dir {
		return d
	}
	file := filepath.Join(d, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestProgramsAreThoseOfTheirMains keeps this package's picture of the command lines true.
func TestProgramsAreThoseOfTheirMains(t *testing.T) {
	t.Parallel()
	mains, err := filepath.Glob(root + "/services/*/cmd/*/main.go")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range mains {
		name := filepath.Base(filepath.Dir(file))
		if name == "countersign" {
			continue // its own tests read what deploy/ says to it
		}
		found = append(found, name)
		p, known := programs()[name]
		if !known {
			t.Errorf("%s is not known here: it is deployed unchecked", name)
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range mentions(p.flags) {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s does not mention %s, which is among its flags here", file, want)
			}
		}
	}
	slices.Sort(found)
	if want := slices.Sorted(maps.Keys(programs())); !slices.Equal(found, want) {
		t.Errorf("mains: %v, known here: %v", found, want)
	}
}

// mentions are the types, and the settings of no type, that a main with these flags has to speak of.
func mentions(flags any) []string {
	if flags == nil {
		return nil
	}
	v := reflect.TypeOf(flags).Elem()
	if !strings.HasSuffix(v.PkgPath(), "deploytest") {
		return []string{v.String()}
	}
	var m []string
	for f := range v.Fields() {
		if f.Type.Kind() == reflect.Struct {
			m = append(m, f.Type.String())
		} else {
			m = append(m, f.Tag.Get("env"))
		}
	}
	return m
}

var client = regexp.MustCompile(`\b([a-z]+)v1\.New\w+Client\(`)

// asks returns whom each service asks by gRPC, read from its code.
func asks(t *testing.T) map[string][]string {
	t.Helper()
	asks := map[string][]string{}
	for _, name := range services {
		err := filepath.WalkDir(root+"/services/"+name, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range client.FindAllStringSubmatch(string(text), -1) {
				if m[1] != name && slices.Contains(services, m[1]) && !slices.Contains(asks[name], m[1]) {
					asks[name] = append(asks[name], m[1])
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Contains(asks[gateway.Name], token.Name) || !slices.Contains(asks[delivery.Name], identity.Name) {
		t.Fatalf("who asks whom was not found: %v", asks)
	}
	return asks
}

// peers checks that a service is told where to find those it asks, and that each listens there. listens is the address that
// other services are served on, by service.
func peers(t *testing.T, name, list string, asked []string, listens map[string]string) {
	t.Helper()
	at := map[string]string{}
	for entry := range strings.SplitSeq(list, ";") {
		peer, address, ok := strings.Cut(entry, "=")
		if !ok {
			t.Errorf("%s: peer %q is no name=address", name, entry)
		}
		at[peer] = address
		if listens[peer] != address {
			t.Errorf("%s expects %s at %s; it is at %q", name, peer, address, listens[peer])
		}
	}
	for _, peer := range asked {
		if at[peer] == "" {
			t.Errorf("%s asks %s, and is not told where it is", name, peer)
		}
	}
}

func exists(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
