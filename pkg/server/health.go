package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	// Probes of several balancers at once cost one check.
	"golang.org/x/sync/singleflight"
)

// readiness remembers what was told last, so that only changes are logged.
type readiness struct {
	flight singleflight.Group
	mu     sync.Mutex
	last   string
}

// NotReady names the components that are not ready, in their order, with the reason; empty = the group is ready. A group
// that has begun to drain is not ready, as "draining".
func (g *Group) NotReady(ctx context.Context) map[string]error {
	if g.draining.Load() || g.stopping(context.Background()) {
		return map[string]error{"draining": errDraining}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	found := map[string]error{}
	for _, p := range g.parts {
		wg.Go(func() {
			err := errNotStarted
			if p.started.Load() {
				err = p.check(ctx)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				found[p.Name] = err
			}
		})
	}
	wg.Wait()
	return found
}

var (
	errDraining   = errors.New("the process is stopping")
	errNotStarted = errors.New("not started yet")
)

// Handler answers probes: GET /livez with 200 as long as the process can answer at all, GET /readyz with 200 when every
// component is ready, else 503 and their names. Reasons are logged when they change, not shown: they name machines.
func (g *Group) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"live": true})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		names := g.readyNames(r.Context())
		if len(names) == 0 {
			answer(w, http.StatusOK, map[string]any{"ready": true})
			return
		}
		answer(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "not_ready": names})
	})
	return mux
}

func (g *Group) readyNames(ctx context.Context) []string {
	// The first caller may go away while others wait for the same answer; Ready has a limit of its own.
	got, _, _ := g.readiness.flight.Do("", func() (any, error) {
		found := g.NotReady(context.WithoutCancel(ctx))
		names := []string{}
		for _, p := range g.parts {
			if _, ok := found[p.Name]; ok {
				names = append(names, p.Name)
			}
		}
		if _, ok := found["draining"]; ok && !slices.Contains(names, "draining") {
			names = append(names, "draining")
		}
		g.logChange(ctx, names, found)
		return names, nil
	})
	names, _ := got.([]string)
	return names
}

func (g *Group) logChange(ctx context.Context, names []string, reasons map[string]error) {
	g.readiness.mu.Lock()
	defer g.readiness.mu.Unlock()
	now := strings.Join(names, ",")
	if now == g.readiness.last {
		return
	}
	g.readiness.last = now
	if len(names) == 0 {
		g.options.Log.InfoContext(ctx, "ready again")
		return
	}
	for _, n := range names {
		g.options.Log.WarnContext(ctx, "not ready", "component", n, "reason", reasons[n])
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the prober may be gone
}
