package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/natsaccess"
	"countersign.dev/pkg/vault"
)

// RotateCmd changes the master key that personal data are under.
type RotateCmd struct {
	Data    string        `help:"Directory whose folder keys has the keys of the deployment." default:"data" env:"COUNTERSIGN_DATA" type:"path"`
	NATS    string        `help:"NATS server that has the vault." default:"nats://127.0.0.1:4222" env:"COUNTERSIGN_NATS" name:"nats" group:"Connection:"`
	Prepare bool          `help:"Only make the next key, to be given to every process first. Asks no server."`
	Settle  time.Duration `help:"How long to wait, at the end, for calls that began under the former key." default:"1m"`
	JSON    bool          `help:"Print what was done as JSON." name:"json"`
}

// Help teaches by examples.
func (c *RotateCmd) Help() string {
	return `Every person's data are encrypted under a key of their own, and those keys are wrapped under the master key. This makes a new master key,
wraps every key anew under it, overwrites what they were wrapped in, and removes the former master once nothing is under it. Services
may serve meanwhile: they find the new key in their directory by themselves. It may be interrupted at any point; run it again, and it
finishes what it began. Back up the directory before and after.

Where processes have copies of the directory, make the next key first, copy the directory to all of them, then rotate, and copy again.

Ids, keyed hashes of tokens and codes, keys of documents and of the NATS server's files are derived from the first master, which stays
as origin.key: they cannot be made anew.

Examples:
  countersign keys rotate --nats nats://nats.internal:4222
  countersign keys rotate --prepare`
}

// rotated is what a rotation prints.
type rotated struct {
	Master  string         `json:"master"`            // what data are under now
	Next    string         `json:"next,omitempty"`    // what was prepared
	Former  []string       `json:"former,omitempty"`  // masters that something is still under
	Letters map[string]int `json:"letters,omitempty"` // dead letters under those
	Retired []string       `json:"retired,omitempty"`
	vault.Rewrapped
}

// Run rotates.
func (c *RotateCmd) Run(ctx context.Context, io *IO) (err error) {
	directory := keys.Dir(filepath.Join(c.Data, "keys"))
	rotation, err := directory.Rotate()
	switch {
	case errors.Is(err, keys.ErrBusy):
		return &problem{text: err.Error(), next: "wait until it has ended", exit: ExitRefused}
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, rotation.Release()) }()
	if c.Prepare {
		if err := rotation.Prepare(); err != nil {
			return err
		}
		return c.tell(io, rotated{Master: rotation.Current(), Next: rotation.Next(), Former: rotation.Former()})
	}
	v, done, err := c.vault(ctx, directory)
	if err != nil {
		return err
	}
	defer done()
	r := &rotator{command: c, io: io, files: rotation, vault: v}
	if rotation.Next() == "" && len(rotation.Former()) > 0 { // one that was interrupted
		if err := r.finish(ctx); err != nil {
			return unfinished(ctx, "run it again, it goes on from what is there", err)
		}
		if r.did.Removed > 0 || len(r.did.Retired) > 0 {
			return c.tell(io, r.did)
		}
	}
	if err := rotation.Prepare(); err != nil {
		return err
	}
	if err := rotation.Switch(); err != nil {
		return err
	}
	if err := r.finish(ctx); err != nil {
		return unfinished(ctx, "run it again, it goes on from what is there", err)
	}
	return c.tell(io, r.did)
}

// vault opens the vault with the keys of the directory.
func (c *RotateCmd) vault(ctx context.Context, directory keys.Dir) (*vault.Vault, func(), error) {
	ring, err := keys.Open(string(directory))
	if err != nil {
		return nil, nil, err
	}
	nc, err := natsaccess.Connect(c.NATS, ring, nats.Name("countersign keys rotate"))
	if err != nil {
		return nil, nil, &problem{
			text: fmt.Sprintf("cannot connect to NATS at %s: %v", c.NATS, err), exit: ExitUnreachable,
			next: "start it (`countersign up` has one of its own), or say where it is with --nats nats://HOST:PORT (COUNTERSIGN_NATS)",
		}
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	v, err := vault.Open(ctx, js, ring)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return v, nc.Close, nil
}

// stragglers is how many passes may find keys under a former master after everybody should have the new one.
const stragglers = 2

// rotator is one rotation after the switch.
type rotator struct {
	command *RotateCmd
	io      *IO
	files   *keys.Rotation
	vault   *vault.Vault
	did     rotated
}

// finish wraps until nothing is under a former master, also of what began before the switch, and retires those masters.
func (r *rotator) finish(ctx context.Context) error {
	if err := r.vault.Stamp(ctx); err != nil {
		return err
	}
	if err := r.pass(ctx); err != nil {
		return err
	}
	if r.command.Settle > 0 {
		_, _ = fmt.Fprintf(r.io.Err, "waiting %v for calls that began under the former key\n", r.command.Settle)
		timer := time.NewTimer(r.command.Settle)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
	for tries := 0; ; tries++ {
		before := r.did.Removed
		if err := r.pass(ctx); err != nil {
			return err
		}
		if r.did.Removed == before {
			break // nothing was under another one
		}
		if tries == stragglers {
			return errors.New("some process still writes under the former key: it has not got the directory")
		}
	}
	letters, err := r.vault.Letters(ctx)
	if err != nil {
		return err
	}
	r.did.Letters = map[string]int{}
	for _, id := range r.files.Former() {
		if letters[id] > 0 {
			r.did.Letters[id] = letters[id]
			continue
		}
		if err := r.files.Retire(id); err != nil {
			return err
		}
		r.did.Retired = append(r.did.Retired, id)
	}
	r.did.Master, r.did.Former = r.files.Current(), r.files.Former()
	return nil
}

func (r *rotator) pass(ctx context.Context) error {
	p := newProgress(r.io.Err, "keys")
	one, err := r.vault.Rewrap(ctx, p)
	p.end()
	r.did.Keys = one.Keys
	r.did.Wrapped += one.Wrapped
	r.did.Removed += one.Removed
	return err
}

func (c *RotateCmd) tell(io *IO, r rotated) error {
	if c.JSON {
		return io.object(r)
	}
	io.print("master   %s\n", r.Master)
	if r.Next != "" {
		io.print("next     %s, prepared: give the directory to every process, then run this again without --prepare\n", r.Next)
		return nil
	}
	io.print("wrapped  %s of %s anew, %s overwritten\n", number(r.Wrapped), count(int(r.Keys), "key", "keys"), number(r.Removed))
	if len(r.Retired) > 0 {
		io.print("removed  %s: nothing is under it any more\n", strings.Join(r.Retired, ", "))
	}
	for id, n := range r.Letters {
		io.print("kept     %s: %s sealed under it\n", id, count(n, "dead letter is", "dead letters are"))
	}
	return nil
}
