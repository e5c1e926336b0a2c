package simulation

import (
	"errors"
	"strings"
	"testing"
)

// TestChecksNotice takes one protection away at a time: the checks must notice, or they check nothing.
func TestChecksNotice(t *testing.T) {
	for broken, problem := range map[breakage]string{
		noExpectedSequence: "", // many promises at once
		noCommandIDs:       "was done twice",
		noAdmission:        "",
		noPatience:         "signed",
		noGeneration:       "carries a token",
		noSettling:         "sign",
		noCauseFirst:       "its cause at",
		noFolding:          "leaves of",
		noTimers:           "",
		noAlternates:       "was asked before",
	} {
		t.Run(string(broken), func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 40; seed++ {
				_, err := Run(Options{Seed: seed, Events: 30_000, broken: broken})
				var f *Failure
				if !errors.As(err, &f) {
					continue
				}
				if f.Seed != seed || f.Story == "" {
					t.Errorf("the failure does not tell its story: %v", f)
				}
				if !strings.Contains(f.Problem, problem) {
					t.Errorf("noticed %q, want %q", f.Problem, problem)
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
