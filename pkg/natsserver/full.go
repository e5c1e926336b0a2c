package natsserver

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"
)

const (
	// watchEvery is how often the disk and the server's health are looked at.
	watchEvery = time.Second
	// spare is how much has to be free before writes that failed are begun again; on a small disk a tenth of it.
	spare = 64 << 20
)

// ErrDisk means that the record takes no write because one to its disk failed.
var ErrDisk = errors.New("natsserver: a write to the disk of the record failed")

// Health says what is wrong; nil while everything is written. Its error is ErrDisk, with how much is free.
func (s *Server) Health() error {
	what := writeError(s.current())
	if what == "" {
		return nil
	}
	free, _, err := space(s.options.StoreDir)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrDisk, what, err)
	}
	return fmt.Errorf("%w: %s; %d MiB are free: make space, then it goes on by itself", ErrDisk, what, free>>20)
}

// watch begins the server anew where a write failed and there is space again. A stream whose write failed takes none any more until
// its files are opened anew, and does not answer who publishes: what it has acknowledged is whole, what it has not is refused by
// whoever waits for the answer in vain. Clients come back as after a restart.
func (s *Server) watch() {
	defer close(s.stopped)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		ns := s.current()
		if ns.Running() && writeError(ns) == "" {
			continue
		}
		free, total, err := space(s.options.StoreDir)
		if err != nil || free < min(spare, total/10) {
			continue
		}
		ns.Shutdown()
		ns.WaitForShutdown()
		again, err := run(s.options)
		if err != nil {
			continue // the next look tries again
		}
		s.mu.Lock()
		s.ns = again
		s.mu.Unlock()
	}
}

// writeError is what the server says of a stream that could not be written; "" where all are well.
func writeError(ns *server.Server) string {
	for _, e := range ns.Healthz(&server.HealthzOptions{Details: true}).Errors {
		if e.Type == server.HealthzErrorStream && strings.Contains(e.Error, "write error") {
			return "stream " + e.Stream + " is not written"
		}
	}
	return ""
}

// space returns how many bytes are free for us on the disk of a directory, and how many it has.
func space(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("natsserver: look at the disk of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
}
