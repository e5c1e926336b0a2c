package server

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Signals returns a context that ends at the first SIGTERM or SIGINT, with the signal as its cause. The second one calls
// exit with 128 plus the signal's number, as a shell would report it: whoever asks twice does not want to wait. stop ends
// the watch, and with it the context.
func Signals(parent context.Context, log *slog.Logger, exit func(code int)) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case s := <-signals:
				if n > 0 {
					log.WarnContext(ctx, "second signal, leaving at once", "signal", s.String())
					exit(code(s))
					return
				}
				log.InfoContext(ctx, "signal, draining", "signal", s.String())
				cancel(fmt.Errorf("server: %s", s))
			case <-quit:
				return
			}
		}
	}()
	return ctx, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(quit)
		<-done
		cancel(nil)
	})
}

func code(s os.Signal) int {
	if n, ok := s.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return 1
}
