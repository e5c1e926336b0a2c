package config_test

import (
	"os"
	"strings"
	"testing"

	"countersign.dev/pkg/config"
)

// The examples of README.md are files that load.
func TestReadme(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	tree := map[string]string{}
	for _, name := range []string{"profiles.yaml", "reminders.yaml", "escalations.yaml", "branding.yaml"} {
		_, section, ok := strings.Cut(string(text), "\n## "+name+"\n")
		if !ok {
			t.Fatalf("no section on %s", name)
		}
		_, example, _ := strings.Cut(section, "```yaml\n")
		example, _, _ = strings.Cut(example, "```")
		tree["acme/"+name] = example
	}
	c := load(t, tree)
	if p, ok := c.Profile("acme", "contract"); !ok || p.Assurance != 2 {
		t.Errorf("contract: %+v", p)
	}
	// The plan shown is the built-in one.
	shown, _ := c.Reminders("acme", "")
	built, _ := config.Default().Reminders("acme", "")
	if shown.MaxPerDay != built.MaxPerDay || shown.QuietHours != built.QuietHours || len(shown.Offsets) != len(built.Offsets) {
		t.Errorf("shown %+v, built in %+v", shown, built)
	}
}
