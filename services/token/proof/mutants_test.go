package proof

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// mutants are the promises that a build with the tag mutants can break, by the name that chooses each, and the test that notices.
var mutants = map[string]struct{ pkg, test string }{
	"no-expected-sequence":           {"pkg/eventlog", "TestOneOfManyWins"},
	"redis-trusted-first":            {"pkg/eventlog", "TestAnOldCacheDecidesNothing"},
	"acknowledged-before-the-record": {"pkg/eventlog", "TestNothingIsAnsweredBeforeItIsRecorded"},
	"lazy-sync":                      {"pkg/natsserver", "TestWhatIsAcknowledgedSurvivesAPowerCut"},
	"expiry-reversed":                {"services/token/rules", "TestRedeem"},
	"limiter-that-forgets":           {"pkg/limit", "TestSpentExactly"},
}

// TestMutants builds the tests once with the tag mutants. Each test passes as long as nothing is broken, and fails when the promise is
// that it is there for.
func TestMutants(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	args := []string{"test", "-c", "-vet=off", "-ldflags=-s -w", "-tags", "mutants", "-o", dir + string(filepath.Separator)}
	packages := map[string]bool{}
	for _, m := range mutants {
		if !packages[m.pkg] {
			args = append(args, "countersign.dev/"+m.pkg)
			packages[m.pkg] = true
		}
	}
	if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var all errgroup.Group
	all.SetLimit(2)
	for name, m := range mutants {
		run := func(mutant string) (string, error) {
			command := exec.CommandContext(t.Context(), filepath.Join(dir, filepath.Base(m.pkg)+".test"), "-test.run", "^"+m.test+"$", "-test.v") //nolint:gosec // built here
			command.Env = append(os.Environ(), "COUNTERSIGN_MUTANT="+mutant)
			out, err := command.CombinedOutput()
			return string(out), err
		}
		all.Go(func() error {
			out, err := run("")
			switch {
			case strings.Contains(out, "--- SKIP: "+m.test):
				t.Logf("%s: %s cannot be run here: %s", name, m.test, out)
				return nil
			case err != nil || !strings.Contains(out, "--- PASS: "+m.test):
				t.Errorf("%s fails with nothing broken: %v\n%s", m.test, err, out)
				return nil
			}
			if out, err := run(name); err == nil || !strings.Contains(out, "--- FAIL: "+m.test) {
				t.Errorf("%s lives: %s does not notice: %v\n%s", name, m.test, err, out)
			}
			return nil
		})
	}
	_ = all.Wait() // each has told what it found
}
