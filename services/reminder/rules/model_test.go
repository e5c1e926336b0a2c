package rules_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/reminder/rules"
)

// TestPlanModel has random acts and timers, early, late and doubled, and checks each fact against the spec's words.
func TestPlanModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := rules.Defaults()
		policy.Quiet.Weekends = rapid.Bool().Draw(t, "weekends")
		z := zone(t, rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"}).Draw(t, "zone"))
		p, link, now := &reminderv1.Plan{}, openLink(), monday
		link.ExpiresAt = timestamppb.New(monday.Add(1000 * 24 * time.Hour))
		var over bool     // a final fact was stated
		var sent, due int // reminders in all, and since the plan began anew
		var last string   // day of the last reminder
		stated := func(t *rapid.T, c command) proto.Message {
			next, fact := apply(p, c, now)
			if over && fact != nil {
				t.Fatalf("%T after the end", fact)
			}
			p = next
			return fact
		}
		t.Repeat(map[string]func(*rapid.T){
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.Int64Range(1, int64(40*time.Hour)).Draw(t, "for")))
			},
			"to the deadline": func(*rapid.T) {
				if at := rules.Deadline(p); at.After(now) {
					now = at
				}
			},
			"begin": func(t *rapid.T) { stated(t, rules.Begin{Of: ada, Policy: policy, At: now}) },
			"act": func(t *rapid.T) {
				at := now.Add(-time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "heard late by")))
				if stated(t, rules.Act{Of: ada, Policy: policy, At: at}) != nil {
					due = 0
				}
			},
			"stop": func(t *rapid.T) {
				if rapid.IntRange(0, 20).Draw(t, "rarely") == 0 && stated(t, rules.Stop{Reason: "LinkSigned"}) != nil {
					over = true
				}
			},
			"signed unheard": func(t *rapid.T) {
				if rapid.IntRange(0, 20).Draw(t, "rarely") == 0 {
					link.Status = tokenv1.LinkStatus_LINK_STATUS_SIGNED
				}
			},
			"timer": func(t *rapid.T) {
				at := rules.Deadline(p)
				fact := stated(t, rules.Tick{Link: link, Zone: z})
				if fact != nil && now.Before(at) {
					t.Fatalf("%T before the deadline", fact)
				}
				switch f := fact.(type) {
				case *reminderv1.ReminderDue:
					sent, due = sent+1, due+1
					if day := now.In(z).Format(time.DateOnly); day == last {
						t.Fatalf("a second reminder on %s", day)
					} else {
						last = day
					}
					if int(f.GetOrdinal()) != sent || due > len(p.GetOffsets()) || link.GetStatus() != tokenv1.LinkStatus_LINK_STATUS_OPEN {
						t.Fatalf("reminder %d is the %dth, %d in this plan", f.GetOrdinal(), sent, due)
					}
					if rules.InQuietHours(p.GetQuiet(), now, z) || !rules.Deadline(p).After(now) {
						t.Fatalf("reminded at %s, next %s", now.In(z), rules.Deadline(p))
					}
				case *reminderv1.RemindersPostponed:
					if rules.InQuietHours(p.GetQuiet(), rules.Deadline(p), z) || !rules.Deadline(p).After(now) {
						t.Fatalf("moved from %s to %s", now.In(z), rules.Deadline(p).In(z))
					}
				case *reminderv1.RemindersExhausted:
					if over = true; due == 0 {
						t.Fatal("exhausted without one reminder")
					}
				case *reminderv1.RemindersStopped:
					over = true
				case nil:
					if !at.IsZero() && !now.Before(at) {
						t.Fatalf("nothing stated at %s, due %s", now, at)
					}
				}
			},
		})
	})
}
