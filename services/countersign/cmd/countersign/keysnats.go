package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/natsaccess"
	"countersign.dev/services/countersign/cli"
)

// keysNATS makes the accounts of a NATS server.
type keysNATS struct {
	Data     string   `help:"Directory whose folder keys has the keys of the deployment." default:"data" env:"COUNTERSIGN_DATA" type:"path"`
	Accounts string   `help:"File that gets the accounts, for --nats-accounts or to be included in NATS's configuration." default:"data/nats-accounts.conf" type:"path"`
	Seeds    string   `help:"Directory that gets the seed of each platform's key, as TENANT.nk." default:"data/nats-seeds" type:"path"`
	JSON     bool     `help:"Print what was made as JSON." name:"json"`
	Tenants  []string `arg:"" optional:"" help:"All tenants whose platforms may connect. TENANT:2 is a second key: the first is good no longer."`
}

// Help teaches by examples.
func (c *keysNATS) Help() string {
	return `The services know their key by the keys of the deployment. A platform connects with its seed, may publish intake.TENANT and hear
outcome.TENANT.> and reply.TENANT.>, and sees nothing else. All keys follow from those of the deployment, so the same command gives the same files;
name every tenant each time. The record is in the services' account: make the accounts before the first start.

Examples:
  countersign keys nats acme globex
  countersign up --nats-accounts data/nats-accounts.conf
  nats --nkey data/nats-seeds/acme.nk pub intake.acme "$(cat request.json)"`
}

// Run writes the files.
func (c *keysNATS) Run(out *cli.IO) error {
	ring, err := keys.Open(filepath.Join(c.Data, "keys"))
	if err != nil {
		return err
	}
	var platforms []natsaccess.Platform
	for _, text := range c.Tenants {
		p, err := natsaccess.ParsePlatform(text)
		if err != nil {
			return err
		}
		platforms = append(platforms, p)
	}
	text, err := natsaccess.Config(ring, platforms)
	if err != nil {
		return err
	}
	made := map[string]string{"accounts": c.Accounts}
	for _, p := range platforms {
		seed, err := p.Key(ring).Seed()
		if err != nil {
			return err
		}
		file := filepath.Join(c.Seeds, p.Tenant+".nk")
		if err := eventlog.WriteFile(file, append(seed, '\n')); err != nil {
			return fmt.Errorf("write the seed of %s: %w", p.Tenant, err)
		}
		made[p.Tenant] = file
	}
	if err := eventlog.WriteFile(c.Accounts, []byte(text)); err != nil {
		return fmt.Errorf("write the accounts: %w", err)
	}
	if c.JSON {
		return json.NewEncoder(out.Out).Encode(made)
	}
	for _, name := range slices.Sorted(maps.Keys(made)) {
		if _, err := fmt.Fprintf(out.Out, "%-10s %s\n", name, made[name]); err != nil {
			return err
		}
	}
	return nil
}
