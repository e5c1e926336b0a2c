package e2e

import (
	"fmt"
	"testing"
	"time"
)

// points are where the process is killed, and for which time it gets there: between publish, effect and acknowledgement of every
// kind of work (pkg/crash).
var points = []string{
	"append.before#1", "append.after#1", "record.stored#1", "consume.before#1", "consume.handled#1", "consume.acked#1",
	"append.before#4", "append.after#4", "record.stored#5", "consume.before#6", "consume.handled#5", "consume.acked#7",
	"outcome.before#1", "outcome.after#1", "delivery.send#1", "delivery.sent#1", "audit.append#2", "audit.appended#2", "audit.append#9", "audit.appended#8",
	"ceremony.consented#1", "ceremony.stored#1", "ceremony.signed#1", "append.after#9", "consume.handled#11", "record.stored#10",
	"timer.arm#1", "timer.armed#1", "delivery.send#2", "delivery.sent#2", "timer.fire#1", "consume.acked#15", "append.after#14", "consume.handled#20",
}

// settings of the tests across services: a link that outlives every restart, reminders within seconds.
const patientSettings = `
-- profiles.yaml --
profiles:
  patient:
    lifetime: 10m
    grace: 1m
    session: 10m
    idle: 10m
    reissue_limit: 20
    reissue_window: 1h
    assurance: 1
    reminders: quick
-- reminders.yaml --
plans:
  quick:
    offsets: [4s]
    partial_offsets: [4s]
    exhausted_after: 1h
    rotate_within: 1s
    quiet_hours: {from: "00:00", to: "00:00"}
    max_per_day: 100
`

// TestKilledAtEveryPoint kills the process once at each point and starts it again, while people sign. In the end everything is
// signed once, told once, and in the audit trail once.
func TestKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	in := newInstance(t, patientSettings, "--identity-cooldown", "0s", "--identity-short-sends", "60", "--identity-long-sends", "60", "--retry-base", "1s", "--retry-cap", "2s")
	ctx := within(t, 8*time.Minute)
	killed := 0
	next := func() string {
		if killed < len(points) {
			return points[killed]
		}
		return ""
	}
	in.revive = func() {
		killed++
		in.start(next())
	}
	in.start(next())
	requests := map[string]string{}
	for i := 0; killed < len(points); i++ {
		if i > 2*len(points) {
			t.Fatalf("only %d of %d points were ever reached; the next is %s", killed, len(points), next())
		}
		email := fmt.Sprintf("person%d@example.com", i)
		v, err := in.create(ctx, request(fmt.Sprintf("killed-%d", i), "patient", email))
		if err != nil {
			t.Fatalf("after %d kills: %v", killed, err)
		}
		if err := in.person(email).signs(ctx, v.ID, 1); err != nil {
			t.Fatalf("after %d kills, request %d: %v", killed, i, err)
		}
		in.completed(t, ctx, v.ID)
		requests[v.ID] = email
	}
	in.revive = nil
	o := in.oracle(t)
	o.quiet(ctx)
	o.nothingDead(ctx)
	for id, email := range requests {
		o.completedOnce(ctx, id, email, 1)
	}
	t.Logf("%d kills, %d requests", killed, len(requests))
	in.stop()
}
