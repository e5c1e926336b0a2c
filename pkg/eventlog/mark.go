package eventlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"
)

// Mark is how far a stream was seen to have come: a record that is shorter than its mark went back in time.
type Mark struct {
	Birth    string `json:"birth"`
	Sequence uint64 `json:"sequence"`
}

// Marks keeps high-water marks outside the record: in a file, and in Redis where there is one; the higher counts (decisions 15).
type Marks struct {
	dir string
	rdb redis.UniversalClient

	mu     sync.Mutex
	marks  map[string]Mark
	dirty  map[string]bool
	failed error // why the last Flush could not write
}

// NewMarks returns marks kept under dir and in rdb, which may be nil.
func NewMarks(dir string, rdb redis.UniversalClient) *Marks {
	return &Marks{dir: dir, rdb: rdb, marks: map[string]Mark{}, dirty: map[string]bool{}}
}

// Check refuses, by name, a stream that is not the one it was: made anew, shorter than it was, or with holes where nothing may be deleted.
func (m *Marks) Check(ctx context.Context, st jetstream.Stream) error {
	info, err := st.Info(ctx)
	if err != nil {
		return fmt.Errorf("eventlog: look at stream: %w", err)
	}
	name, birth := info.Config.Name, info.Config.Metadata[BirthKey]
	kept, err := m.load(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case kept.Birth != "" && kept.Birth != birth:
		return fmt.Errorf("eventlog: stream %s was made anew (birth %s, was %s): its record is lost; restore it from a backup, or remove its mark %s if that was meant",
			name, birth, kept.Birth, m.path(name))
	case info.State.LastSeq < kept.Sequence:
		return fmt.Errorf("eventlog: stream %s went back in time: it ends at %d, was at %d; restore it from a newer backup, or remove its mark %s to accept the loss",
			name, info.State.LastSeq, kept.Sequence, m.path(name))
	case info.Config.DenyDelete && info.Config.DenyPurge && info.State.Msgs > 0 && info.State.FirstSeq > 1:
		return fmt.Errorf("eventlog: stream %s begins at %d where nothing may be deleted: its first blocks are lost; restore it from a backup", name, info.State.FirstSeq)
	case info.Config.DenyDelete && info.State.NumDeleted > 0:
		return fmt.Errorf("eventlog: stream %s has %d holes where nothing may be deleted: blocks of it are lost; restore it from a backup", name, info.State.NumDeleted)
	}
	if info.Config.DenyDelete && info.State.Msgs > 0 {
		// The server counts what it cannot read, too: two of its messages stand for the blocks they are in.
		for _, sequence := range []uint64{info.State.FirstSeq, info.State.LastSeq} {
			if _, err := st.GetMsg(ctx, sequence); errors.Is(err, jetstream.ErrMsgNotFound) {
				return fmt.Errorf("eventlog: message %d of stream %s cannot be read: blocks of it are damaged; restore it from a backup", sequence, name)
			} else if err != nil {
				return fmt.Errorf("eventlog: look at stream %s: %w", name, err)
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.marks[name] = Mark{Birth: birth, Sequence: info.State.LastSeq}
	m.dirty[name] = true
	return nil
}

// Note raises the mark of a stream that was checked. It is cheap; Run writes what was noted.
func (m *Marks) Note(stream string, sequence uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mark, known := m.marks[stream]; known && sequence > mark.Sequence {
		mark.Sequence = sequence
		m.marks[stream] = mark
		m.dirty[stream] = true
	}
}

// Run writes marks every second, and once more when ctx ends. A mark behind the record is harmless, so it is never in the way: where one
// cannot be written, because the disk is full, it is tried again, and Err says so.
func (m *Marks) Run(ctx context.Context) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return m.Flush(context.WithoutCancel(ctx))
		case <-t.C:
			_ = m.Flush(ctx) // Err has it
		}
	}
}

// Err says why the marks are not written just now; nil while they are.
func (m *Marks) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.failed
}

// Flush writes the marks that rose. Those that could not be written are tried by the next one.
func (m *Marks) Flush(ctx context.Context) (err error) {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.failed = err
	}()
	m.mu.Lock()
	rose := map[string]Mark{}
	for name := range m.dirty {
		rose[name] = m.marks[name]
	}
	clear(m.dirty)
	m.mu.Unlock()
	for name, mark := range rose {
		body, err := json.Marshal(mark)
		if err != nil {
			return err
		}
		if err := WriteFile(m.path(name), body); err != nil {
			m.mu.Lock()
			for name := range rose {
				m.dirty[name] = true
			}
			m.mu.Unlock()
			return fmt.Errorf("eventlog: write mark: %w", err)
		}
		if m.rdb != nil {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			// Best effort: the file stands, and Redis may be emptied anyway.
			_ = m.rdb.Set(ctx, markKey(name), body, 0).Err()
			cancel()
		}
	}
	return nil
}

func (m *Marks) load(ctx context.Context, name string) (Mark, error) {
	var mark Mark
	body, err := os.ReadFile(m.path(name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return mark, fmt.Errorf("eventlog: read mark: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(body, &mark); err != nil {
			return mark, fmt.Errorf("eventlog: mark %s is damaged (%w); remove it to go on without it", m.path(name), err)
		}
	}
	if m.rdb == nil {
		return mark, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if body, err := m.rdb.Get(ctx, markKey(name)).Bytes(); err == nil {
		var far Mark
		if json.Unmarshal(body, &far) == nil && far.Sequence > mark.Sequence {
			mark = far
		}
	}
	return mark, nil
}

func (m *Marks) path(stream string) string { return filepath.Join(m.dir, stream+".mark") }

func markKey(stream string) string { return "mark:" + stream }

// WriteFile replaces a file so that a crash leaves the old or the new one.
func WriteFile(path string, body []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".mark-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone already when all went well
	if _, err := tmp.Write(body); err != nil {
		return errors.Join(err, tmp.Close())
	}
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
