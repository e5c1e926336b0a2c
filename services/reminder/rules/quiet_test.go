package rules_test

import (
	"testing"
	"time"
	_ "time/tzdata" // the zones of the tables, on every machine the same

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	reminderv1 "countersign.dev/proto/countersign/reminder/v1"
	"countersign.dev/services/reminder/rules"
)

func quiet(from, until time.Duration, weekends bool) *reminderv1.Quiet {
	return &reminderv1.Quiet{From: durationpb.New(from), Until: durationpb.New(until), Weekends: weekends}
}

func zone(t rapid.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return z
}

func TestQuietEnd(t *testing.T) {
	night := quiet(21*time.Hour, 8*time.Hour, false)
	weekends := quiet(21*time.Hour, 8*time.Hour, true)
	for name, tt := range map[string]struct {
		quiet     *reminderv1.Quiet
		zone      string
		now, want string // in UTC
	}{
		"in the day":                         {night, "Europe/Berlin", "2026-03-02T12:00:00Z", "2026-03-02T12:00:00Z"},
		"the last moment of the day":         {night, "Europe/Berlin", "2026-03-02T19:59:59Z", "2026-03-02T19:59:59Z"},
		"nine in the evening":                {night, "Europe/Berlin", "2026-03-02T20:00:00Z", "2026-03-03T07:00:00Z"},
		"after midnight":                     {night, "Europe/Berlin", "2026-03-02T23:30:00Z", "2026-03-03T07:00:00Z"},
		"one second before eight":            {night, "Europe/Berlin", "2026-03-03T06:59:59Z", "2026-03-03T07:00:00Z"},
		"eight":                              {night, "Europe/Berlin", "2026-03-03T07:00:00Z", "2026-03-03T07:00:00Z"},
		"another zone's day":                 {night, "America/New_York", "2026-03-02T23:30:00Z", "2026-03-02T23:30:00Z"},
		"a half hour's zone":                 {night, "Asia/Kolkata", "2026-03-02T16:00:00Z", "2026-03-03T02:30:00Z"},
		"the night clocks go forward":        {night, "Europe/Berlin", "2026-03-28T20:00:00Z", "2026-03-29T06:00:00Z"},
		"the night clocks go back":           {night, "Europe/Berlin", "2026-10-24T19:00:00Z", "2026-10-25T07:00:00Z"},
		"end in the skipped hour":            {quiet(21*time.Hour, 150*time.Minute, false), "Europe/Berlin", "2026-03-28T22:00:00Z", "2026-03-29T01:30:00Z"},
		"end in the doubled hour":            {quiet(21*time.Hour, 150*time.Minute, false), "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T01:30:00Z"},
		"end at a midnight that is skipped":  {quiet(20*time.Hour, 0, false), "Africa/Cairo", "2026-04-23T20:00:00Z", "2026-04-23T22:00:00Z"},
		"never":                              {quiet(0, 0, false), "UTC", "2026-03-02T23:00:00Z", "2026-03-02T23:00:00Z"},
		"within one day":                     {quiet(12*time.Hour, 14*time.Hour, false), "UTC", "2026-03-02T12:30:00Z", "2026-03-02T14:00:00Z"},
		"Friday night before a weekend":      {weekends, "Europe/Berlin", "2026-03-06T21:00:00Z", "2026-03-09T07:00:00Z"},
		"Saturday noon":                      {weekends, "Europe/Berlin", "2026-03-07T11:00:00Z", "2026-03-09T07:00:00Z"},
		"Sunday without quiet weekends":      {night, "Europe/Berlin", "2026-03-08T11:00:00Z", "2026-03-08T11:00:00Z"},
		"a weekend without quiet nights":     {quiet(0, 0, true), "Europe/Berlin", "2026-03-07T11:00:00Z", "2026-03-08T23:00:00Z"},
		"a weekend in which clocks go ahead": {weekends, "Europe/Berlin", "2026-03-28T11:00:00Z", "2026-03-30T06:00:00Z"},
	} {
		t.Run(name, func(t *testing.T) {
			now, _ := time.Parse(time.RFC3339, tt.now)
			if got := rules.QuietEnd(tt.quiet, now, zone(t, tt.zone)).UTC().Format(time.RFC3339); got != tt.want {
				t.Errorf("at %s quiet until %s, want %s", tt.now, got, tt.want)
			}
		})
	}
}

// Wherever and whenever: the end is not quiet, not before now, and within four days.
func TestQuietEndAnywhere(t *testing.T) {
	zones := []string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kathmandu", "Pacific/Apia", "America/Asuncion"}
	rapid.Check(t, func(t *rapid.T) {
		z := zone(t, rapid.SampledFrom(zones).Draw(t, "zone"))
		from := time.Duration(rapid.IntRange(0, 24*60).Draw(t, "from")) * time.Minute
		gap := time.Duration(rapid.IntRange(60, 23*60).Draw(t, "gap")) * time.Minute
		until := (from + 24*time.Hour - gap) % (24 * time.Hour)
		q := quiet(from, until, rapid.Bool().Draw(t, "weekends"))
		now := time.Unix(rapid.Int64Range(1_700_000_000, 1_900_000_000).Draw(t, "now"), 0).UTC()
		end := rules.QuietEnd(q, now, z)
		if end.Before(now) || end.Sub(now) > 96*time.Hour || rules.InQuietHours(q, end, z) {
			t.Fatalf("from %s until %s in %s: quiet at %s until %s", from, until, z, now, end)
		}
		if !rules.InQuietHours(q, now, z) && !end.Equal(now) {
			t.Fatalf("moved without need from %s to %s", now, end)
		}
	})
}
