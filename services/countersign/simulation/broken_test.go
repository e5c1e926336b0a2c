package simulation

import (
	"errors"
	"strings"
	"testing"
)

// TestChecksNotice takes one protection away at a time: the checks must notice, or they check nothing.
func TestChecksNotice(t *testing.T) {
	for broken, tt := range map[breakage]struct {
		problem string // as it is told; empty is any
		from    uint64 // a seed that shows it soon
	}{
		noExpectedSequence: {"", 1}, // many promises at once
		noCommandIDs:       {"was done twice", 2},
		noAdmission:        {"", 8},
		noPatience:         {"signed", 8},
		noGeneration:       {"carries a token", 22},
		noSettling:         {"sign", 1},
		noCauseFirst:       {"its cause at", 1},
		noFolding:          {"leaves of", 1},
		noTimers:           {"", 1},
		noGrace:            {"at work", 1},
		noAlternates:       {"was asked before", 1},
	} {
		t.Run(string(broken), func(t *testing.T) {
			t.Parallel()
			for seed := tt.from; seed < tt.from+40; seed++ {
				_, err := Run(Options{Seed: seed, Events: 30_000, broken: broken})
				var f *Failure
				if !errors.As(err, &f) {
					continue
				}
				if f.Seed != seed || f.Story == "" {
					t.Errorf("the failure does not tell its story: %v", f)
				}
				if !strings.Contains(f.Problem, tt.problem) {
					t.Errorf("noticed %q, want %q", f.Problem, tt.problem)
				}
				t.Logf("seed %d, step %d: %s", seed, f.Step, f.Problem)
				return
			}
			t.Error("nobody notices")
		})
	}
}

// TestReplay: the same seed plays the same world.
func TestReplay(t *testing.T) {
	var stories [2]string
	for i := range stories {
		_, err := Run(Options{Seed: 3, Events: 30_000, broken: noFolding})
		if err == nil {
			t.Fatal("nothing fails")
		}
		stories[i] = err.Error()
	}
	if stories[0] != stories[1] {
		t.Errorf("%s\n\nand then\n\n%s", stories[0], stories[1])
	}
}
