package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/redis/go-redis/v9"

	"countersign.dev/pkg/clock"
	"countersign.dev/pkg/eventlog"
	"countersign.dev/pkg/hot"
	"countersign.dev/pkg/hotstate"
	"countersign.dev/pkg/natsaccess"
	"countersign.dev/pkg/secret"
)

const (
	// stateTimeout is how long one call to Redis may take: nobody waits for a page here.
	stateTimeout = 10 * time.Second
	// bareFor is how long a rebuild reads the record once more, to say what its own rate is worth.
	bareFor = 2 * time.Second
)

// StateCmd is about what services keep in Redis.
type StateCmd struct {
	Rebuild StateRebuildCmd `cmd:"" help:"Fill Redis from the record. Services may serve meanwhile."`
	Verify  StateVerifyCmd  `cmd:"" help:"Compare everything in Redis with the record and name what differs. Services may serve meanwhile."`
}

// stateFlags say where record and Redis are.
type stateFlags struct {
	Tenant            string `help:"Only of this tenant." placeholder:"TENANT"`
	NATS              string `help:"NATS server that has the record." default:"nats://127.0.0.1:4222" env:"COUNTERSIGN_NATS" name:"nats" group:"Connection:"`
	Keys              string `help:"Directory of the deployment's keys, by which NATS knows its services; not needed where NATS takes everybody." env:"COUNTERSIGN_KEYS" placeholder:"DIR" group:"Connection:"`
	Redis             string `help:"Redis: host:port, several for a Cluster, or redis[s]://host:port?sentinel=NAME." default:"127.0.0.1:6379" env:"COUNTERSIGN_REDIS" group:"Connection:"`
	RedisPasswordFile string `help:"File that holds Redis's password." env:"COUNTERSIGN_REDIS_PASSWORD_FILE" name:"redis-password-file" placeholder:"FILE" group:"Connection:"`
	JSON              bool   `help:"Print JSON, one object a line." name:"json"`
}

// open connects to both and returns how to let go of them.
func (f stateFlags) open(ctx context.Context) (*nats.Conn, redis.UniversalClient, func(), error) {
	if f.Tenant != "" && !eventlog.ValidTenant(f.Tenant) {
		return nil, nil, nil, usage("a tenant is named by a-z, 0-9 and -, at most 32 of them", "%q is no tenant", f.Tenant)
	}
	ring, err := ringIn(f.Keys)
	if err != nil {
		return nil, nil, nil, err
	}
	var password secret.Secret
	if f.RedisPasswordFile != "" {
		text, err := os.ReadFile(f.RedisPasswordFile)
		if err != nil {
			return nil, nil, nil, usage("name the file that holds Redis's password", "cannot read the password: %v", err)
		}
		password = secret.New(strings.TrimSpace(string(text)))
	}
	rdb, err := hot.Connect(f.Redis, password)
	if err != nil {
		return nil, nil, nil, usage("give --redis HOST:PORT", "%v", err)
	}
	if err := rdb.Ping(ctx).Err(); err != nil {
		return nil, nil, nil, errors.Join(&problem{
			text: fmt.Sprintf("Redis at %s does not answer: %s", f.Redis, clean(err.Error())), exit: ExitUnreachable,
			next: "start it, or say where it is with --redis HOST:PORT (COUNTERSIGN_REDIS)",
		}, rdb.Close())
	}
	nc, err := natsaccess.Connect(f.NATS, ring, nats.Name("countersign state"))
	if err != nil {
		return nil, nil, nil, errors.Join(&problem{
			text: fmt.Sprintf("cannot connect to NATS at %s: %v", f.NATS, err), exit: ExitUnreachable,
			next: "start it, or say where it is with --nats nats://HOST:PORT (COUNTERSIGN_NATS)",
		}, rdb.Close())
	}
	return nc, rdb, func() { nc.Close(); _ = rdb.Close() }, nil
}

// each does something with every part, in order.
func (f stateFlags) each(ctx context.Context, io *IO, do func(*eventlog.Log, redis.UniversalClient, *hot.Store, hotstate.Part) error) error {
	nc, rdb, done, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer done()
	store := hot.New(rdb, stateTimeout)
	for _, part := range io.HotState {
		log, err := eventlog.OpenLog(ctx, nc, eventlog.FactsStream(part.Service))
		if err != nil {
			return err
		}
		if err := do(log, rdb, store, part); err != nil {
			return err
		}
	}
	return nil
}

// StateRebuildCmd fills Redis from the record.
type StateRebuildCmd struct {
	stateFlags `embed:""`
}

// Help teaches by examples.
func (c *StateRebuildCmd) Help() string {
	return `Nothing is lost with Redis: what it does not have is read from the record, one link at a time, when it is asked for. This command
reads all of it in one go, so that nobody waits. Run it after Redis was lost, emptied or failed over to a replica. What is in Redis
already and as new is left alone, so running it again is harmless.

The rate is shown beside that of a bare read of the record, which is the most that could be had.

Examples:
  countersign state rebuild --nats nats://nats.internal:4222 --redis redis.internal:6379
  countersign state rebuild --redis 'redis://sentinel-1:26379,sentinel-2:26379?sentinel=countersign'
  countersign state rebuild --tenant acme --json | jq .ratio`
}

// rebuilt is what a rebuild prints of one service.
type rebuilt struct {
	hotstate.Rebuilt

	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"messages_per_second"`
	Bare    float64 `json:"bare_messages_per_second"`
	Ratio   float64 `json:"ratio"` // of Rate to Bare
}

// Run fills.
func (c *StateRebuildCmd) Run(ctx context.Context, io *IO) error {
	return c.each(ctx, io, func(log *eventlog.Log, rdb redis.UniversalClient, store *hot.Store, part hotstate.Part) error {
		p := newProgress(io.Err, "messages")
		elapsed := clock.Stopwatch()
		done, err := hotstate.Rebuild(ctx, log, rdb, store, part, c.Tenant, p)
		took := elapsed()
		p.end()
		if err != nil {
			return unfinished(ctx, "the rebuild was cut short; run it again, it goes on from what is there", err)
		}
		r := rebuilt{Rebuilt: done, Seconds: took.Seconds(), Rate: float64(done.Messages) / took.Seconds()}
		if r.Bare, err = log.ReadRate(ctx, hotstate.Filter(part, c.Tenant), bareFor); err != nil {
			return err
		}
		if r.Bare > 0 {
			r.Ratio = r.Rate / r.Bare
		}
		if c.JSON {
			return io.object(r)
		}
		io.print("%s: %s of %s written, the rest was there; %s made\n", part.Service, number(done.Stored), count(int(done.Records), "record", "records"), count(done.Indexes, "list", "lists"))
		io.print("  %s read in %s, %s a second: %.2f of a bare read\n", count(int(done.Messages), "message", "messages"), took.Round(time.Millisecond), number(int64(r.Rate)), r.Ratio)
		return nil
	})
}

// StateVerifyCmd compares Redis with the record.
type StateVerifyCmd struct {
	stateFlags `embed:""`

	Repair bool `help:"Drop from Redis what differs: it is read from the record then, or made from it."`
}

// Help teaches by examples.
func (c *StateVerifyCmd) Help() string {
	return `Each state in Redis has the sequence of the message that it comes from. It is compared with the newest message of the record, and named
when it is older, newer, other at the same sequence, of nothing that was recorded, or unreadable; so is a request that a list lacks, or
lists without a record. What services are writing just then gets two seconds to settle. A state that is not in Redis is no difference:
it is read from the record.

"former run" is what was kept from before Redis was restarted or failed over. Services do not believe it; a rebuild writes it again.

The exit status is 1 when anything differs, 3 when record or Redis cannot be reached.

Examples:
  countersign state verify
  countersign state verify --tenant acme --json | jq -r 'select(.what)|.key'
  countersign state verify --repair`
}

// Run compares.
func (c *StateVerifyCmd) Run(ctx context.Context, io *IO) error {
	differences := 0
	err := c.each(ctx, io, func(log *eventlog.Log, rdb redis.UniversalClient, store *hot.Store, part hotstate.Part) error {
		p := newProgress(io.Err, "messages")
		var mu sync.Mutex
		var found []hotstate.Difference
		verified, err := hotstate.Verify(ctx, log, rdb, store, part, c.Tenant, p, func(d hotstate.Difference) error {
			mu.Lock()
			defer mu.Unlock()
			found = append(found, d)
			return nil
		})
		p.end()
		if err != nil {
			return unfinished(ctx, "the comparison was cut short; run it again", err)
		}
		differences += len(found)
		for _, d := range found {
			if err := c.tell(io, d); err != nil {
				return err
			}
			if c.Repair {
				if err := hotstate.Repair(ctx, rdb, store, part, d); err != nil {
					return err
				}
			}
		}
		if c.JSON {
			return io.object(verified)
		}
		io.print("%s: %s compared, %s; %d not in Redis, %d of a former run, %d on lists\n", part.Service,
			count(verified.Compared, "state", "states"), count(verified.Differences, "difference", "differences"), verified.Absent, verified.FormerRun, verified.Listed)
		return nil
	})
	switch {
	case err != nil:
		return err
	case differences == 0:
		return nil
	case c.Repair:
		return &problem{text: count(differences, "difference", "differences") + "; dropped from Redis", exit: ExitRefused}
	default:
		return &problem{text: count(differences, "difference", "differences"), next: "`countersign state verify --repair` drops them from Redis; `countersign state rebuild` writes what is older again", exit: ExitRefused}
	}
}

// tell prints a difference.
func (c *StateVerifyCmd) tell(io *IO, d hotstate.Difference) error {
	if c.JSON {
		return io.object(d)
	}
	text := fmt.Sprintf("%s  %s", clean(d.Key), d.What)
	switch d.What {
	case hotstate.NotListed, hotstate.ListedOnly:
		text += ": " + clean(d.ID)
	case hotstate.NoRecord:
		text += fmt.Sprintf(" (in Redis %d)", d.InRedis)
	case hotstate.Older, hotstate.Newer, hotstate.Altered:
		text += fmt.Sprintf(" (in Redis %d, in the record %d)", d.InRedis, d.InLog)
	}
	if d.FormerRun {
		text += ", of a former run"
	}
	io.print("%s\n", text)
	return nil
}

// unfinished is what went wrong on the way, and what to do about it.
func unfinished(ctx context.Context, next string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &problem{text: clean(err.Error()), next: next, exit: ExitUnreachable}
}
