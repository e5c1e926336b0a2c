package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/natsaccess"
)

// Init makes streams and consumers on a server, each stream once in its life.
type Init struct {
	Data     string `help:"Directory of keys and of the list of streams that were made." default:"data" env:"COUNTERSIGN_DATA" type:"path"`
	NATS     string `help:"NATS server." default:"nats://127.0.0.1:4222" env:"COUNTERSIGN_NATS" name:"nats"`
	Monitor  string `help:"The server's monitoring address (http://host:8222), to see whether it syncs before it acknowledges." env:"COUNTERSIGN_NATS_MONITOR"`
	Replicas int    `help:"Copies of each stream: 1 on one server, 3 on a cluster." default:"1" env:"COUNTERSIGN_REPLICAS" enum:"1,3,5"`
	Again    bool   `help:"Make streams again that were made before and are gone. Their record is lost; say so only if that is meant."`

	embedded    bool
	syncsAlways bool
}

// Made is what Init did.
type Made struct {
	Keys    string   `json:"keys"`
	Streams []string `json:"streams_made"`
	Sync    string   `json:"sync"`
}

// births is the list of streams that were made, kept outside the server: one that is on it and gone is a lost record, never
// replaced by an empty one (architecture 3).
type births struct {
	Keys    string            `json:"keys"`
	Streams map[string]string `json:"streams"`
}

// Run makes what is missing, and refuses to make again what was there before.
func (i Init) Run(ctx context.Context, ring *keys.Ring) (Made, error) {
	path := filepath.Join(i.Data, "births.json")
	known, err := readBirths(path)
	if err != nil {
		return Made{}, err
	}
	if known.Keys != "" && known.Keys != ring.ID() {
		return Made{}, fmt.Errorf("the streams were made under the keys %s, this directory has %s: put the right keys into %s", known.Keys, ring.ID(), filepath.Join(i.Data, "keys"))
	}
	nc, err := natsaccess.Connect(i.NATS, ring, nats.Timeout(5*time.Second))
	if err != nil {
		return Made{}, fmt.Errorf("connect to NATS at %s: %w", i.NATS, err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return Made{}, err
	}
	if !i.Again {
		if err := i.refuseLost(ctx, js, known); err != nil {
			return Made{}, err
		}
	}
	sync, err := i.sync(ctx)
	if err != nil {
		return Made{}, err
	}
	birth := map[string]string{}
	made, err := eventlog.Provision(ctx, js, Topology(), i.Replicas, func(stream string) map[string]string {
		birth[stream] = uuid.NewString()
		return map[string]string{eventlog.BirthKey: birth[stream], eventlog.KeysKey: ring.ID(), eventlog.SyncKey: sync}
	})
	if err != nil {
		return Made{}, err
	}
	known.Keys = ring.ID()
	for _, stream := range made {
		known.Streams[stream] = birth[stream]
	}
	slices.Sort(made)
	return Made{Keys: ring.ID(), Streams: made, Sync: sync}, writeBirths(path, known)
}

// refuseLost names the streams that were made once and are gone.
func (i Init) refuseLost(ctx context.Context, js jetstream.JetStream, known births) error {
	var lost []string
	for stream := range known.Streams {
		_, err := js.Stream(ctx, stream)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			lost = append(lost, stream)
		} else if err != nil {
			return fmt.Errorf("look at stream %s: %w", stream, err)
		}
	}
	if len(lost) > 0 {
		slices.Sort(lost)
		return fmt.Errorf("the record is lost: streams %v were made before and are gone. Restore them from a backup; `countersign init --again` makes them empty if that is meant", lost)
	}
	return nil
}

// sync finds out whether the server syncs before it acknowledges (decisions 16).
func (i Init) sync(ctx context.Context) (string, error) {
	switch {
	case i.embedded && i.syncsAlways:
		return eventlog.SyncAlways, nil
	case i.embedded:
		return "lazy", nil
	case i.Monitor == "":
		return "unknown", nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.Monitor+"/jsz?config=true", nil)
	if err != nil {
		return "", fmt.Errorf("monitoring address: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask the server how it syncs: %w", err)
	}
	defer resp.Body.Close()
	var answer struct {
		Config struct {
			SyncAlways bool `json:"sync_always"`
		} `json:"config"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer); err != nil {
		return "", fmt.Errorf("ask the server how it syncs: %w", err)
	}
	if answer.Config.SyncAlways {
		return eventlog.SyncAlways, nil
	}
	return "lazy", nil
}

func readBirths(path string) (births, error) {
	b := births{Streams: map[string]string{}}
	body, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(body, &b)
	}
	if err != nil {
		return b, fmt.Errorf("read the list of streams %s: %w", path, err)
	}
	return b, nil
}

// writeBirths replaces the list so that a crash leaves the old or the new one.
func writeBirths(path string, b births) error {
	body, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	return eventlog.WriteFile(path, body)
}
