package limit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/keys"
	"countersign.dev/pkg/redisserver/redistest"
)

// A fleet is what decides in production: several processes with many callers each, and one Redis.
const (
	fleetChild     = "COUNTERSIGN_LIMIT_CHILD" // makes the test's own program a process of the fleet: its number and Redis's address
	fleetProcesses = 8
	fleetCallers   = 64 // of each process
)

// kind is one sort of call that a caller makes at each tick. Callers of one group make the very same call, so that the answers a
// group gets at one instant are the model's, whatever order they came in.
type kind struct {
	name   string
	groups int
	limits func(group int) []Limit
}

// kinds are the sorts of limits that spec 3 has: of a client, several decided in one trip, and one that shapes.
var kinds = []kind{
	{"client", 1, func(int) []Limit {
		return []Limit{{Name: "api-client", Key: "acme/csk_1", Count: 100, Period: time.Second, Burst: 200, WhenDown: FailOpen}}
	}},
	{"three", 32, func(g int) []Limit {
		// Which of the three refuses changes from group to group, and within one over time.
		return []Limit{
			{Name: "code-short", Key: fmt.Sprint("p", g), Count: 3 + g%5, Period: 10 * time.Minute, WhenDown: FailClosed},
			{Name: "code-long", Key: fmt.Sprint("p", g), Count: 10, Period: 24 * time.Hour, WhenDown: FailClosed},
			{Name: "address", Key: fmt.Sprint("a", g), Count: 20, Period: time.Minute, Burst: 2 + g%9, WhenDown: FailOpen},
		}
	}},
	{"shaped", 4, func(g int) []Limit {
		return []Limit{{Name: "domain", Key: fmt.Sprint("d", g), Count: 50, Period: time.Second, Burst: 5, MaxWait: 2 * time.Second, WhenDown: FailOpen}}
	}},
}

// groupOf puts a caller of the fleet into a group of a kind.
func (k kind) groupOf(process, caller int) int { return (process*fleetCallers + caller) % k.groups }

// answers counts how often each decision was given, by kind and group.
type answers map[string]map[string]int

func (a answers) add(k kind, group int, d Decision) {
	a.merge(answers{fmt.Sprint(k.name, " ", group): {fmt.Sprintf("%+v", d): 1}})
}

func (a answers) merge(other answers) {
	for name, counts := range other {
		if a[name] == nil {
			a[name] = map[string]int{}
		}
		for d, n := range counts {
			a[name][d] += n
		}
	}
}

func TestMain(m *testing.M) {
	if asked := os.Getenv(fleetChild); asked != "" {
		serveFleet(asked, os.Stdin, os.Stdout)
		return
	}
	os.Exit(m.Run())
}

// serveFleet is one process of the fleet: for each line, an instant in microseconds, all its callers call at once.
func serveFleet(asked string, in io.Reader, out io.Writer) {
	var process int
	var addr string
	if _, err := fmt.Sscanf(asked, "%d %s", &process, &addr); err != nil {
		panic(err)
	}
	rdb := redis.NewClient(&redis.Options{Addr: addr, PoolSize: fleetCallers, ContextTimeoutEnabled: true})
	defer rdb.Close()                                                //nolint:errcheck // the process ends
	r, err := keys.NewRing(bytes.Repeat([]byte{1}, keys.MasterSize)) // as the test has
	if err != nil {
		panic(err)
	}
	var now int64
	limiter := New(rdb, r, Options{Timeout: patient, Now: func() time.Time { return time.UnixMicro(now) }})
	ticks := bufio.NewScanner(in)
	for ticks.Scan() {
		var err error
		if now, err = strconv.ParseInt(ticks.Text(), 10, 64); err != nil {
			panic(err)
		}
		got, mu := answers{}, sync.Mutex{}
		var all sync.WaitGroup
		for caller := range fleetCallers {
			all.Go(func() {
				for _, k := range kinds {
					group := k.groupOf(process, caller)
					d, err := limiter.Allow(context.Background(), k.limits(group)...)
					if err != nil {
						panic(err)
					}
					mu.Lock()
					got.add(k, group, d)
					mu.Unlock()
				}
			})
		}
		all.Wait()
		line, err := json.Marshal(got)
		if err != nil {
			panic(err)
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return // the test has ended
		}
	}
}

// member is a process of the fleet as the test sees it.
type member struct {
	in      io.WriteCloser
	answers *bufio.Scanner
}

func startFleet(t *testing.T, addr string) []member {
	t.Helper()
	var fleet []member
	for process := range fleetProcesses {
		command := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this very program
		command.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", fleetChild, process, addr))
		command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		command.Stderr = os.Stderr
		in, err := command.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = in.Close()
			_ = command.Wait()
		})
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		fleet = append(fleet, member{in, lines})
	}
	return fleet
}

// TestAFleetDecidesAsTheModelDoes has 8 processes with 64 callers each decide in one Redis, on a clock that stands still while they
// do, then moves. Every answer is the model's: who is let through, who refuses, and for how long to the microsecond.
func TestAFleetDecidesAsTheModelDoes(t *testing.T) {
	rdb := redistest.Real(t)
	now := start
	warm := Limit{Name: "warm", Key: "up", Count: 1, Period: time.Second, WhenDown: FailOpen}
	if _, err := at(t, rdb, &now).Allow(t.Context(), warm); err != nil { // loads the script
		t.Fatal(err)
	}
	before := scripts(t, rdb)
	fleet := startFleet(t, rdb.Options().Addr)
	model := newModel()
	steps := []time.Duration{0, 7 * time.Millisecond, 0, time.Second, 700 * time.Millisecond, -300 * time.Millisecond, 3 * time.Minute, 20 * time.Minute, 9 * time.Hour, 40 * time.Millisecond}
	for tick, step := range steps {
		now += step.Microseconds()
		want := model.tick(now)
		for _, m := range fleet {
			if _, err := fmt.Fprintln(m.in, now); err != nil {
				t.Fatal(err)
			}
		}
		got := answers{}
		for i, m := range fleet {
			if !m.answers.Scan() {
				t.Fatalf("process %d ended: %v", i, m.answers.Err())
			}
			var part answers
			if err := json.Unmarshal(m.answers.Bytes(), &part); err != nil {
				t.Fatal(err)
			}
			got.merge(part)
		}
		for name := range want {
			if !maps.Equal(got[name], want[name]) {
				t.Errorf("tick %d, %s: got\n%v, the model says\n%v", tick, name, got[name], want[name])
			}
		}
	}
	calls := len(steps) * fleetProcesses * fleetCallers * len(kinds)
	if made := scripts(t, rdb) - before; made != calls {
		t.Errorf("%d decisions took %d scripts", calls, made)
	}
	model.compareKept(t, rdb, at(t, rdb, &now))
	t.Logf("%d decisions of %d processes with %d callers, each by one script", calls, fleetProcesses, fleetCallers)
}

// scripts is how many scripts Redis was asked to run.
func scripts(t *testing.T, rdb *redis.Client) int {
	t.Helper()
	m := regexp.MustCompile(`cmdstat_evalsha:calls=(\d+)`).FindStringSubmatch(rdb.Info(t.Context(), "commandstats").Val())
	if m == nil {
		t.Fatal("Redis does not count its commands")
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// model is the fleet in one thread, without Redis.
type model struct {
	tats map[string][]int64 // by kind and group
}

func newModel() *model { return &model{tats: map[string][]int64{}} }

// tick is what everybody is answered at an instant.
func (m *model) tick(now int64) answers {
	want := answers{}
	for process := range fleetProcesses {
		for caller := range fleetCallers {
			for _, k := range kinds {
				group := k.groupOf(process, caller)
				limits := k.limits(group)
				bounds := make([]bound, len(limits))
				for i, l := range limits {
					bounds[i] = l.bound()
				}
				name := fmt.Sprint(k.name, " ", group)
				tats := m.tats[name]
				if tats == nil {
					tats = make([]int64, len(limits))
				}
				d, after := decide(now, tats, bounds)
				if d.Limited >= 0 {
					d.Name = limits[d.Limited].Name
				}
				m.tats[name] = after
				want.add(k, group, d)
			}
		}
	}
	return want
}

// compareKept looks at what Redis has in the end: nothing was spent but by whom all limits let through.
func (m *model) compareKept(t *testing.T, rdb *redis.Client, l *Limiter) {
	t.Helper()
	for _, k := range kinds {
		for group := range k.groups {
			for i, one := range k.limits(group) {
				want := m.tats[fmt.Sprint(k.name, " ", group)][i]
				if got := rdb.Get(t.Context(), l.key(one)).Val(); got != strconv.FormatInt(want, 10) {
					t.Errorf("%s of group %d is kept as %q, the model has %d", one.Name, group, got, want)
				}
			}
		}
	}
}
