package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"countersign.dev/pkg/keys"
	"countersign.dev/services/countersign/cli"
	"countersign.dev/services/countersign/stack"
)

// upCommand runs everything.
type upCommand struct {
	stack.Config `embed:""`
	JSON         bool `help:"Print one line of JSON with all addresses when everything is ready, and nothing else." name:"json"`
}

// Run serves until ctx ends.
func (c *upCommand) Run(ctx context.Context) error {
	return stack.Run(ctx, c.Config, os.Stderr, func(r stack.Running) {
		if c.JSON {
			line, err := json.Marshal(r.Addresses)
			if err == nil {
				fmt.Println(string(line))
			}
			return
		}
		fmt.Print(r.Describe())
	})
}

// initCommand makes what services only open.
type initCommand struct {
	stack.Init  `embed:""`
	MountedKeys bool `help:"The platform guards the modes of the keys (a Kubernetes secret), and 'countersign keys make' made them." env:"COUNTERSIGN_MOUNTED_KEYS"`
	JSON        bool `help:"Print what was made as JSON." name:"json"`
}

// Run makes keys and streams; running it again changes nothing.
func (c *initCommand) Run(ctx context.Context, _ *cli.IO) error {
	open := stack.OpenKeys
	if c.MountedKeys {
		open = func(data string) (*keys.Ring, error) { return keys.OpenMounted(filepath.Join(data, "keys")) }
	}
	ring, err := open(c.Data)
	if err != nil {
		return err
	}
	made, err := c.Init.Run(ctx, ring)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(made)
	}
	fmt.Printf("keys     %s (%s)\n", made.Keys, keys.Dir(c.Data+"/keys"))
	fmt.Printf("streams  %d made\n", len(made.Streams))
	if made.Sync != "always" {
		fmt.Println("sync     the server may acknowledge before it syncs: set `sync_interval: always` in its jetstream block and name its monitoring address with --monitor, or services start only with --allow-lazy-sync")
	}
	return nil
}
