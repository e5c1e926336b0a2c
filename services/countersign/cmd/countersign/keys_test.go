package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v3"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/keys"
	"countersign.dev/services/countersign/cli"
	"countersign.dev/services/countersign/stack"
)

func TestKeysMakeTwiceIsOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := keysMake{Data: filepath.Join(dir, "data"), NATSStore: filepath.Join(dir, "nats", "store.conf"), APIKeys: filepath.Join(dir, "access", "api-keys.yaml")}
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := c.Run(&cli.IO{Out: out}); err != nil {
			t.Fatal(err)
		}
	}
	if first.String() != second.String() {
		t.Errorf("made %s, then %s", &first, &second)
	}
	for _, file := range []string{"data/keys/master.key", "data/keys/pdf-authority.pem", "nats/store.conf", "access/api-keys.yaml"} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	// The server's own code reads the line, and it is the key that the embedded server has.
	conf := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(conf, []byte("jetstream {\n cipher: aes\n include \"nats/store.conf\"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(conf)
	if err != nil || !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(o.JetStreamKey) {
		t.Errorf("the key of NATS's files: %v", err)
	}
}

func TestAnAPIKeyOpens(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	ring, err := stack.OpenKeys(data)
	if err != nil {
		t.Fatal(err)
	}
	c := keysAPI{Data: data, File: filepath.Join(data, "api-keys.yaml"), Tenant: "acme", Scope: []string{auth.RequestsRead}, Life: time.Hour}
	var out, notes bytes.Buffer
	for range 2 { // the second is added to the first
		out.Reset()
		if err := c.Run(&cli.IO{Out: &out, Err: &notes}); err != nil {
			t.Fatal(err)
		}
	}
	plain := strings.TrimSpace(out.String())
	if text, err := os.ReadFile(c.File); err != nil || strings.Contains(string(text), plain) || strings.Contains(notes.String(), plain) {
		t.Errorf("the key stands where it should not: %v", err)
	}
	known, err := auth.LoadKeyring(c.File, ring.Derive("cs.apikey.v1", 32), time.Now)
	if err != nil || known.Len() != 2 {
		t.Fatalf("%v; %d keys", err, known.Len())
	}
	caller, err := known.Authenticate(t.Context(), auth.Evidence{Authorization: "Bearer " + plain})
	if err != nil || caller.Tenant != "acme" || !caller.Has(auth.RequestsRead) || caller.Has(auth.RequestsWrite) {
		t.Errorf("%+v, %v", caller, err)
	}
	revoke := keysRevoke{ID: caller.ID, File: c.File}
	if err := revoke.Run(&cli.IO{Out: &out, Err: &notes}); err != nil {
		t.Fatal(err)
	}
	if err := known.Reload(); err != nil || known.Len() != 1 {
		t.Errorf("after one was taken back: %v, %d keys", err, known.Len())
	}
	if err := revoke.Run(&cli.IO{Out: &out, Err: &notes}); err == nil {
		t.Error("a key that is not there was taken back")
	}
	c.Life = 10_000 * time.Hour
	if err := c.Run(&cli.IO{Out: &out, Err: &notes}); err == nil {
		t.Error("a key for more than a year")
	}
	c.Data = t.TempDir()
	if err := c.Run(&cli.IO{Out: &out, Err: &notes}); !errors.Is(err, keys.ErrMissing) {
		t.Errorf("without keys: %v", err)
	}
}

// TestDeployedCommands reads what deploy/ says to this command line.
func TestDeployedCommands(t *testing.T) {
	t.Parallel()
	const deploy = "../../../../deploy/"
	text, err := os.ReadFile(deploy + "compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Services map[string]struct {
			Command []string `yaml:"command"`
		} `yaml:"services"`
	}
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	said := map[string][]string{"compose keys": c.Services["keys"].Command, "compose init": c.Services["init"].Command}
	for _, file := range []string{"README.md", "dev-secrets"} {
		text, err := os.ReadFile(deploy + file)
		if errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		joined := strings.ReplaceAll(string(text), "\\\n", " ")
		for _, m := range regexp.MustCompile(`(?m)(?:^countersign|^\tcountersign|run --rm keys) ((?:keys|init) [^#>\n]*)`).FindAllStringSubmatch(joined, -1) {
			said[file+": "+m[1]] = strings.Fields(strings.NewReplacer(`"`, "", "'HR system'", "HR").Replace(m[1]))
		}
	}
	if len(said) < 6 {
		t.Errorf("found only %v", said)
	}
	for where, args := range said {
		parser, err := kong.New(&commands{}, kong.BindTo(t.Context(), (*context.Context)(nil)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(args); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
}

// TestNATSAccounts: the files are the same each time, nobody else reads them, and the server takes them.
func TestNATSAccounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if _, err := stack.OpenKeys(data); err != nil {
		t.Fatal(err)
	}
	c := keysNATS{Data: data, Accounts: filepath.Join(dir, "accounts.conf"), Seeds: filepath.Join(dir, "seeds"), Tenants: []string{"acme", "globex:2"}}
	var made []string
	for range 2 {
		var out bytes.Buffer
		if err := c.Run(&cli.IO{Out: &out}); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{c.Accounts, filepath.Join(c.Seeds, "acme.nk"), filepath.Join(c.Seeds, "globex.nk")} {
			info, err := os.Stat(file)
			if err != nil || info.Mode().Perm() != 0o600 || !strings.Contains(out.String(), file) {
				t.Errorf("%s: %v, %v; told %s", file, info, err, &out)
			}
			text, err := os.ReadFile(file)
			if err != nil || strings.Contains(out.String(), strings.TrimSpace(string(text))) {
				t.Errorf("%s: %v, or its content is shown", file, err)
			}
			made = append(made, string(text))
		}
	}
	if strings.Join(made[:3], "") != strings.Join(made[3:], "") {
		t.Error("the second time other keys are made")
	}
	o, err := server.ProcessConfigFile(c.Accounts)
	if err != nil || len(o.Accounts) != 4 || len(o.Nkeys) != 3 { // the services, two platforms, the system
		t.Errorf("the server reads %d accounts and %d keys, %v", len(o.Accounts), len(o.Nkeys), err)
	}
	for _, wrong := range [][]string{{"ACME"}, {"acme", "acme:2"}, {"acme:0"}} {
		c.Tenants = wrong
		if err := c.Run(&cli.IO{Out: &bytes.Buffer{}}); err == nil {
			t.Errorf("%v is taken", wrong)
		}
	}
}
