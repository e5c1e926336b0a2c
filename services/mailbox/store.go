package mailbox

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// store keeps each mail as one file, <id>.eml, with the envelope in the fields before it. The id starts with the time
// of arrival in milliseconds, so that names sort by age; the index is built from the files at start.
type store struct {
	dir  string
	keep int

	mu      sync.Mutex
	index   []Summary // oldest first
	last    int64     // milliseconds of the newest id
	changed chan struct{}
}

var idForm = regexp.MustCompile(`^[0-9a-f]{12}[0-9a-f]{8}$`)

const extension = ".eml"

func openStore(dir string, keep int) (*store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &store{dir: dir, keep: keep, changed: make(chan struct{})}
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		id, isMail := strings.CutSuffix(e.Name(), extension)
		switch {
		case strings.HasPrefix(e.Name(), unfinished):
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fmt.Errorf("remove what a crash left: %w", err)
			}
		case isMail && idForm.MatchString(id):
			raw, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return nil, err
			}
			s.index = append(s.index, parse(id, raw).summary())
			s.last = max(s.last, millis(id))
		}
	}
	return s, nil
}

const unfinished = ".unfinished-"

// add stores a mail durably and returns its id.
func (s *store) add(env envelope, raw []byte, now time.Time) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := max(now.UnixMilli(), s.last+1) // later mails have later ids, whatever the clock does
	random := make([]byte, 4)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	id := fmt.Sprintf("%012x", at) + hex.EncodeToString(random)
	content := append([]byte(env.trace(id, now.UTC().Format(time.RFC1123Z))), raw...)
	if err := s.write(id, content); err != nil {
		return "", fmt.Errorf("store mail: %w", err)
	}
	s.last = at
	s.index = append(s.index, parse(id, content).summary())
	for len(s.index) > s.keep {
		if err := s.remove(s.index[0].ID); err != nil {
			return "", fmt.Errorf("make room: %w", err)
		}
		s.index = s.index[1:]
	}
	s.announce()
	return id, nil
}

func (s *store) write(id string, content []byte) error {
	f, err := os.CreateTemp(s.dir, unfinished)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, id+extension))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(s.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *store) remove(id string) error {
	if err := os.Remove(filepath.Join(s.dir, id+extension)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// raw returns a mail as it lies on disk. id "latest" is the newest. It marks the mail as read.
func (s *store) raw(id string) (string, []byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == "latest" && len(s.index) > 0 {
		id = s.index[len(s.index)-1].ID
	}
	for i := range s.index {
		if s.index[i].ID == id {
			s.index[i].Read = true
			content, err := os.ReadFile(filepath.Join(s.dir, id+extension))
			return id, content, err
		}
	}
	return "", nil, fs.ErrNotExist
}

func (s *store) message(id string) (Message, error) {
	id, content, err := s.raw(id)
	if err != nil {
		return Message{}, fmt.Errorf("read mail: %w", err)
	}
	return parse(id, content).Message, nil
}

// list returns all summaries, newest first.
func (s *store) list() []Summary {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.index)
	slices.Reverse(all)
	return all
}

// delete removes the mails of ids, or all where there are none; an unknown id is no error.
func (s *store) delete(ids ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept []Summary
	for _, m := range s.index {
		if len(ids) > 0 && !slices.Contains(ids, m.ID) {
			kept = append(kept, m)
			continue
		}
		if err := s.remove(m.ID); err != nil {
			return fmt.Errorf("delete mail: %w", err)
		}
	}
	s.index = kept
	s.announce()
	return syncDir(s.dir)
}

// changes returns a channel that is closed at the next change.
func (s *store) changes() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *store) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func millis(id string) int64 {
	n, err := strconv.ParseInt(id[:12], 16, 64)
	if err != nil {
		return 0
	}
	return n
}
