// Package server starts the parts of a process in order and drains them in reverse, tells whether it is ready, and turns
// signals into a stop.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Component is one part of a process: a server, a consumer, an embedded store.
type Component struct {
	Name string // unique in its group; shown by readiness

	// Run serves until ctx ends, then drains, and returns nil. An error ends the group. Returning nil before ctx ends is
	// an error too, unless Once.
	Run func(ctx context.Context) error

	// Ready returns nil once the component does its work; the next one starts only then. It is asked again by readiness,
	// as long as the group runs. nil = ready as soon as Run was called, or with Once when it has returned.
	Ready func(ctx context.Context) error

	Once bool // Run ends by itself, such as a migration
}

// Defaults of Options.
const (
	DefaultStartLimit = time.Minute
	DefaultStopLimit  = 30 * time.Second
)

// checkLimit is how long one Ready may take.
const checkLimit = 2 * time.Second

// Options say how a group behaves; the zero value is usable.
type Options struct {
	Log        *slog.Logger  // nil = nothing is logged
	StartLimit time.Duration // how long one component may take to become ready; 0 = DefaultStartLimit
	StopLimit  time.Duration // how long all may take to drain; 0 = DefaultStopLimit
	DrainDelay time.Duration // how long to go on serving as not ready, so that load balancers look away; 0 = not at all
}

// Group runs components. Make one with New.
type Group struct {
	options Options
	parts   []*part

	running  atomic.Bool
	draining atomic.Bool
	stop     chan struct{}
	stopOnce sync.Once
	failed   chan *part // the first that ended when it should not have

	readiness readiness
}

// part is a component as it runs.
type part struct {
	Component
	cancel  context.CancelFunc
	done    chan struct{}
	err     error // valid once done is closed
	started atomic.Bool
}

// New makes a group of components in the order in which they start. It panics on a component without name or Run, or a
// name given twice.
func New(o Options, components ...Component) *Group {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.StartLimit == 0 {
		o.StartLimit = DefaultStartLimit
	}
	if o.StopLimit == 0 {
		o.StopLimit = DefaultStopLimit
	}
	g := &Group{options: o, stop: make(chan struct{}), failed: make(chan *part, len(components))}
	seen := map[string]bool{}
	for _, c := range components {
		if c.Name == "" || c.Run == nil || seen[c.Name] {
			panic(fmt.Sprintf("server: component %q needs a name of its own and a Run", c.Name))
		}
		seen[c.Name] = true
		g.parts = append(g.parts, &part{Component: c, done: make(chan struct{})})
	}
	return g
}

// Run starts every component in order, and waits until ctx ends, Stop is called, or a component fails. Then it drains in
// reverse order, each before the one it may depend on. It returns nil after a clean stop, else the failure, joined with
// what went wrong in the drain. After StopLimit it gives up, naming what still runs. Run once.
func (g *Group) Run(ctx context.Context) error {
	if g.running.Swap(true) {
		return errors.New("server: the group was run before")
	}
	failure := g.start(ctx)
	if failure == nil {
		failure = g.wait(ctx)
	}
	g.draining.Store(true)
	if failure == nil {
		g.options.Log.InfoContext(ctx, "stopping")
		g.delay()
	} else {
		g.options.Log.ErrorContext(ctx, "stopping after a failure", "error", failure)
	}
	return g.drain(ctx, failure)
}

// Stop asks a running group to drain, or one not yet run to stop at once. It does not wait; calling it again is fine.
func (g *Group) Stop() { g.stopOnce.Do(func() { close(g.stop) }) }

func (g *Group) stopping(ctx context.Context) bool {
	select {
	case <-g.stop:
		return true
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

func (g *Group) start(ctx context.Context) error {
	for _, p := range g.parts {
		if g.stopping(ctx) {
			return nil
		}
		// A component outlives ctx until it is its turn to drain.
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		p.cancel = cancel
		p.started.Store(true)
		go g.run(own, p)
		if err := g.untilReady(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) run(ctx context.Context, p *part) {
	defer close(p.done)
	defer func() {
		if r := recover(); r != nil {
			p.err = fmt.Errorf("server: %s panicked: %v\n%s", p.Name, r, debug.Stack())
			g.failed <- p
		}
	}()
	err := p.Run(ctx)
	switch {
	case ctx.Err() != nil:
		if !errors.Is(err, context.Canceled) {
			p.err = named(p, err)
		}
	case err != nil:
		p.err = named(p, err)
		g.failed <- p
	case !p.Once:
		p.err = fmt.Errorf("server: %s ended though nobody stopped it", p.Name)
		g.failed <- p
	}
}

func named(p *part, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("server: %s: %w", p.Name, err)
}

// untilReady returns nil once p is ready or the group is asked to stop.
func (g *Group) untilReady(ctx context.Context, p *part) error {
	limit := time.NewTimer(g.options.StartLimit)
	defer limit.Stop()
	pause := 5 * time.Millisecond
	for {
		err := p.check(ctx)
		if err == nil {
			g.options.Log.InfoContext(ctx, "started", "component", p.Name)
			return nil
		}
		select {
		case failed := <-g.failed:
			<-failed.done
			return failed.err
		case <-g.stop:
			return nil
		case <-ctx.Done():
			return nil
		case <-limit.C:
			return fmt.Errorf("server: %s was not ready after %v: %w", p.Name, g.options.StartLimit, err)
		case <-p.onceDone():
		case <-time.After(pause):
			pause = min(2*pause, 250*time.Millisecond)
		}
	}
}

var errRunning = errors.New("has not finished yet")

// check asks a started component whether it is ready.
func (p *part) check(ctx context.Context) error {
	if p.Once {
		select {
		case <-p.done:
			return p.err
		default:
			return errRunning
		}
	}
	if p.Ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	return p.Ready(ctx)
}

// onceDone is closed when a component of one run has ended well; for any other it blocks for good.
func (p *part) onceDone() <-chan struct{} {
	if !p.Once {
		return nil
	}
	return p.done
}

func (g *Group) wait(ctx context.Context) error {
	g.options.Log.InfoContext(ctx, "ready")
	select {
	case <-ctx.Done():
	case <-g.stop:
	case failed := <-g.failed:
		<-failed.done
		return failed.err
	}
	return nil
}

// delay goes on serving for DrainDelay, or until something fails, which the drain then reports.
func (g *Group) delay() {
	if g.options.DrainDelay <= 0 {
		return
	}
	t := time.NewTimer(g.options.DrainDelay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.failed:
	}
}

// drain stops what was started, last first, and joins every error to failure. Its limit does not depend on ctx, which has
// ended already.
func (g *Group) drain(ctx context.Context, failure error) error {
	limit := time.NewTimer(g.options.StopLimit)
	defer limit.Stop()
	for i := len(g.parts) - 1; i >= 0; i-- {
		p := g.parts[i]
		if !p.started.Load() {
			continue
		}
		p.cancel()
		select {
		case <-p.done:
			g.options.Log.InfoContext(ctx, "stopped", "component", p.Name)
		case <-limit.C:
			return errors.Join(failure, g.abandon())
		}
		if p.err != nil && !errors.Is(failure, p.err) {
			failure = errors.Join(failure, p.err)
		}
	}
	return failure
}

// abandon cancels everything and names what has not ended.
func (g *Group) abandon() error {
	var left []string
	for _, p := range g.parts {
		if !p.started.Load() {
			continue
		}
		p.cancel()
		select {
		case <-p.done:
		default:
			left = append(left, p.Name)
		}
	}
	return fmt.Errorf("server: not stopped after %v: %s", g.options.StopLimit, strings.Join(left, ", "))
}
