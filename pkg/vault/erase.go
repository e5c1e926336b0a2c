package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"countersign.dev/pkg/crash"
	"countersign.dev/pkg/eventlog"
)

// Erase destroys what is kept of an owner, for good: after nil nothing of it can be read, and its data key is overwritten on disk.
// Erasing twice is harmless; an owner of whom nothing was kept is barred. After an error, erase again: it goes on where it stopped.
func (v *Vault) Erase(ctx context.Context, tenant, owner string) error {
	if err := validate(tenant, owner); err != nil {
		return err
	}
	p := Place{Tenant: tenant, Owner: owner, ID: "*"}
	ctx, cancel := context.WithTimeout(ctx, callFor)
	defer cancel()
	tombstone, err := v.bury(ctx, p)
	if err != nil {
		return fmt.Errorf("vault: erase: %w", err)
	}
	if err := v.deleteKeys(ctx, p, tombstone); err != nil {
		return err
	}
	crash.Point("vault.buried")
	return v.deleteValues(ctx, p.valueSubject())
}

// deleteKeys overwrites every key of an owner below its tombstone. There is more than one where the master was being rotated: the same
// data key, wrapped twice.
func (v *Vault) deleteKeys(ctx context.Context, p Place, tombstone uint64) error {
	for {
		e, err := v.keys.LeaderNext(ctx, p.keySubject(), 1)
		switch {
		case err != nil:
			return fmt.Errorf("vault: erase a key: %w", err)
		case e.Sequence >= tombstone:
			return nil
		}
		if err := overwrite(ctx, v.keys, e.Sequence); err != nil {
			return fmt.Errorf("vault: erase a key: %w", err)
		}
	}
}

// bury puts the tombstone, where there is none yet, and returns its sequence. It comes before anything is deleted: from here on no
// Put can make a new key, and after a crash whoever erases again knows what is left.
func (v *Vault) bury(ctx context.Context, p Place) (tombstone uint64, err error) {
	for {
		last := uint64(0)
		switch e, err := v.keys.LeaderLast(ctx, p.keySubject()); {
		case err == nil && isTombstone(e.Data):
			return e.Sequence, nil
		case err == nil:
			last = e.Sequence
		case !errors.Is(err, eventlog.ErrNotFound):
			return 0, err
		}
		sequence, err := v.keys.Append(ctx, message(p.keySubject(), newTombstone(last)), rand.Text(), last)
		if !errors.Is(err, eventlog.ErrConflict) {
			return sequence, err
		}
	}
}

// deleteValues deletes the ciphertexts on subjects, which nothing can read any more. Older versions were pushed out by newer ones.
func (v *Vault) deleteValues(ctx context.Context, subjects string) error {
	for {
		e, err := v.values.LeaderNext(ctx, subjects, 1)
		switch {
		case errors.Is(err, eventlog.ErrNotFound):
			return nil
		case err != nil:
			return fmt.Errorf("vault: erase a value: %w", err)
		}
		if err := overwrite(ctx, v.values, e.Sequence); err != nil {
			return fmt.Errorf("vault: erase a value: %w", err)
		}
	}
}

// overwrite has a message replaced by noise in the server's files. One that is gone is no error.
func overwrite(ctx context.Context, log *eventlog.Log, sequence uint64) error {
	err := log.Stream().SecureDeleteMsg(ctx, sequence)
	if err == nil {
		return nil
	}
	// Deleted by somebody else meanwhile, or by an earlier call whose answer was lost?
	if _, look := log.Stream().GetMsg(ctx, sequence); errors.Is(look, jetstream.ErrMsgNotFound) {
		return nil
	}
	return err
}
