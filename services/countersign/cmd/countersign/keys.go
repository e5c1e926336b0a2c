package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/goccy/go-yaml"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/keys"
	"countersign.dev/services/countersign/cli"
	"countersign.dev/services/countersign/stack"
)

// keysCommand makes the secrets of a deployment.
type keysCommand struct {
	Make   keysMake      `cmd:"" help:"Make the keys of a deployment, once. Needs no server."`
	API    keysAPI       `cmd:"" name:"api" help:"Make an API key for a platform, and print it this once. It is good within seconds."`
	Revoke keysRevoke    `cmd:"" help:"Take an API key back, within seconds."`
	Rotate cli.RotateCmd `cmd:"" help:"Change the master key that personal data are under. Services may serve meanwhile."`
	NATS   keysNATS      `cmd:"" name:"nats" help:"Make the accounts of a NATS server: one for the services, one for the platforms of each tenant."`
}

// keysMake makes what has to be there before any server starts.
type keysMake struct {
	Data      string `help:"Directory of the keys: they go into its folder keys." default:"data" env:"COUNTERSIGN_DATA" type:"path"`
	NATSStore string `help:"Also write the key by which NATS encrypts its files, as a line of its configuration." type:"path" name:"nats-store"`
	APIKeys   string `help:"Also make an empty file of platforms' API keys, where there is none." type:"path" name:"api-keys"`
	JSON      bool   `help:"Print what was made as JSON." name:"json"`
}

// Run makes what is missing; running it again changes nothing.
func (c *keysMake) Run(out *cli.IO) error {
	ring, err := stack.OpenKeys(c.Data)
	if err != nil {
		return err
	}
	if c.NATSStore != "" {
		// The same key as the embedded server has, so that its files can be moved to a server of one's own.
		line := fmt.Sprintf("key: %q\n", hex.EncodeToString(ring.Derive("cs.nats.v1", 32)))
		if err := eventlog.WriteFile(c.NATSStore, []byte(line)); err != nil {
			return fmt.Errorf("write the key of NATS's files: %w", err)
		}
	}
	if c.APIKeys != "" {
		if _, err := os.Stat(c.APIKeys); errors.Is(err, fs.ErrNotExist) {
			if err := writeKeyFile(c.APIKeys, auth.KeyFile{Keys: []auth.Key{}}); err != nil {
				return err
			}
		}
	}
	if c.JSON {
		return json.NewEncoder(out.Out).Encode(map[string]string{"keys": ring.ID(), "directory": filepath.Join(c.Data, "keys")})
	}
	_, err = fmt.Fprintf(out.Out, "keys  %s in %s\nBack them up, apart from the data: what they sealed cannot be read without them.\n", ring.ID(), filepath.Join(c.Data, "keys"))
	return err
}

// keysAPI makes an API key.
type keysAPI struct {
	Data   string        `help:"Directory whose folder keys has the keys of the deployment." default:"data" env:"COUNTERSIGN_DATA" type:"path"`
	File   string        `help:"File of API keys that gets the new one; it holds nothing a key could be made from." default:"data/api-keys.yaml" env:"COUNTERSIGN_API_KEYS" type:"path"`
	Tenant string        `help:"Tenant that the platform acts for." required:""`
	Name   string        `help:"What the key is for, in your words."`
	Scope  []string      `help:"What it may do." default:"requests:read,requests:write,links:reissue"`
	Life   time.Duration `help:"How long it is good for, up to a year." default:"2160h"`
	From   []string      `help:"Networks it may be used from, such as 192.0.2.0/24; none is any."`
	JSON   bool          `help:"Print the key and its entry as JSON." name:"json"`
}

// Run adds the key to the file and prints it.
func (c *keysAPI) Run(out *cli.IO) error {
	ring, err := keys.Open(filepath.Join(c.Data, "keys"))
	if err != nil {
		return err
	}
	file, err := readKeyFile(c.File)
	if err != nil {
		return err
	}
	plain, entry, err := auth.GenerateKey(ring.Derive("cs.apikey.v1", 32), clock.System().Now(""),
		auth.NewKey{Tenant: c.Tenant, Name: c.Name, Scopes: c.Scope, Life: c.Life, AllowIPs: c.From})
	if err != nil {
		return err
	}
	file.Keys = append(file.Keys, entry)
	if err := writeKeyFile(c.File, file); err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(out.Out).Encode(map[string]any{"key": plain.Reveal(), "id": entry.ID, "tenant": entry.Tenant, "expires": entry.Expires})
	}
	_, err = fmt.Fprintf(out.Err, "%s for tenant %s, until %s; it is not shown again:\n", entry.ID, entry.Tenant, entry.Expires.Format(time.DateOnly))
	if err == nil {
		_, err = fmt.Fprintln(out.Out, plain.Reveal())
	}
	return err
}

func writeKeyFile(path string, file auth.KeyFile) error {
	text, err := yaml.Marshal(file)
	if err != nil {
		return err
	}
	if err := eventlog.WriteFile(path, text); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// keysRevoke takes an API key back.
type keysRevoke struct {
	ID   string `arg:"" help:"The key's id: the 10 characters behind csk_live_."`
	File string `help:"File of API keys." default:"data/api-keys.yaml" env:"COUNTERSIGN_API_KEYS" type:"path"`
}

// Run takes the key out of the file. A running Countersign refuses it within seconds, and ends the streams that were opened by it.
func (c *keysRevoke) Run(out *cli.IO) error {
	file, err := readKeyFile(c.File)
	if err != nil {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(file.Keys), func(k auth.Key) bool { return k.ID == c.ID })
	if len(left) == len(file.Keys) {
		return fmt.Errorf("%s has no key with the id %q", c.File, c.ID)
	}
	file.Keys = left
	if err := writeKeyFile(c.File, file); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out.Err, "%s is taken back; it opens nothing more within seconds.\n", c.ID)
	return err
}

// readKeyFile reads a file of API keys; one that is not there has none.
func readKeyFile(path string) (file auth.KeyFile, err error) {
	text, err := os.ReadFile(path)
	if err == nil {
		err = yaml.UnmarshalWithOptions(text, &file, yaml.Strict())
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return file, fmt.Errorf("read %s: %w", path, err)
	}
	return file, nil
}
