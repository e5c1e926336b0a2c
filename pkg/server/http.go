package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// HTTP makes a component of an HTTP server and its listener. It drains for at most drain, then cuts. Limits that s leaves
// open are set: 10 s to read a header, 64 KiB of it, 2 min idle; not on reading and writing bodies, which uploads and
// streams of events must set for themselves.
func HTTP(name string, s *http.Server, l net.Listener, drain time.Duration) Component {
	if s.ReadHeaderTimeout == 0 {
		s.ReadHeaderTimeout = 10 * time.Second
	}
	if s.IdleTimeout == 0 {
		s.IdleTimeout = 2 * time.Minute
	}
	if s.MaxHeaderBytes == 0 {
		s.MaxHeaderBytes = 64 << 10
	}
	return Component{Name: name, Run: func(ctx context.Context) error {
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l) }()
		select {
		case err := <-ended:
			return fmt.Errorf("serve HTTP: %w", err)
		case <-ctx.Done():
		}
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		err := s.Shutdown(limited)
		if errors.Is(err, context.DeadlineExceeded) {
			err = s.Close() // what still runs had its time
		}
		<-ended //nolint:errcheck // http.ErrServerClosed: the drain says how it went
		if err != nil {
			return fmt.Errorf("stop HTTP: %w", err)
		}
		return nil
	}}
}
