package deploytest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"go.yaml.in/yaml/v3"

	"countersign.dev/pkg/config"
	"countersign.dev/pkg/natsserver"
	"countersign.dev/services/countersign/stack"
)

// TestNATSIsAsSafeAsTheEmbeddedOne reads nats.conf with the server's own code.
func TestNATSIsAsSafeAsTheEmbeddedOne(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "/deploy/nats/nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key := strings.Repeat("ab", 32)
	for name, content := range map[string]string{"nats.conf": string(text), "key/store.conf": "key: \"" + key + "\"\n"} { // as `countersign keys make` writes it
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o, err := server.ProcessConfigFile(filepath.Join(dir, "nats.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if !o.JetStream || !o.SyncAlways {
		t.Error("a power cut would lose what was acknowledged")
	}
	if o.JetStreamCipher != server.AES || o.JetStreamKey != key {
		t.Error("the files are not encrypted under our key")
	}
	if o.MaxPayload != natsserver.MaxPayload {
		t.Errorf("max_payload is %d, embedded it is %d", o.MaxPayload, natsserver.MaxPayload)
	}
	if o.Port != 4222 || o.HTTPPort != 8222 || o.StoreDir != "/data" {
		t.Errorf("listens on %d and %d, keeps its files in %s", o.Port, o.HTTPPort, o.StoreDir)
	}
	const room = 4 << 30 // for streams that reserve nothing
	reserved := int64(0)
	for _, s := range stack.Topology().Streams {
		reserved += max(s.MaxBytes, 0)
	}
	if o.JetStreamMaxStore < reserved+room {
		t.Errorf("max_file_store is %d, streams reserve %d: init could not make them", o.JetStreamMaxStore, reserved)
	}
	nats, _ := render(t, overlay).workload("nats")
	var gibibytes int64
	if _, err := fmt.Sscanf(nats.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests["storage"], "%dGi", &gibibytes); err != nil {
		t.Fatal(err)
	}
	if o.JetStreamMaxStore >= gibibytes<<30 {
		t.Errorf("max_file_store is %d, the volume has %d GiB: it is full before writers are refused", o.JetStreamMaxStore, gibibytes)
	}
}

// TestTenantSettings loads the settings as a service does, and wants every file of every tenant in the ConfigMaps and mounted.
func TestTenantSettings(t *testing.T) {
	t.Parallel()
	const dir = root + "/deploy/settings/"
	if _, err := config.Load(dir + "tenants"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dir + "kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var k struct {
		ConfigMapGenerator []struct {
			Name  string   `yaml:"name"`
			Files []string `yaml:"files"`
		} `yaml:"configMapGenerator"`
	}
	if err := yaml.Unmarshal(text, &k); err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, g := range k.ConfigMapGenerator {
		listed = append(listed, g.Files...)
		tenant := strings.TrimPrefix(g.Name, "tenant-")
		w, _ := render(t, base).workload("token")
		if !slices.ContainsFunc(w.Spec.Template.Spec.Containers[0].VolumeMounts, func(m struct {
			Name string `yaml:"name"`
			Path string `yaml:"mountPath"`
		},
		) bool {
			return m.Path == "/etc/countersign/tenants/"+tenant
		}) {
			t.Errorf("the settings of %s are mounted nowhere", tenant)
		}
	}
	files, err := filepath.Glob(dir + "tenants/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := strings.TrimPrefix(filepath.ToSlash(f), dir); !slices.Contains(listed, name) {
			t.Errorf("%s is in no ConfigMap", name)
		}
	}
}

// TestTheDockerfileCopiesWhatIsThere wants every source of a COPY in the repository, and let through to the builder.
func TestTheDockerfileCopiesWhatIsThere(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(root + "/deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	ignore, err := os.ReadFile(root + "/deploy/Dockerfile.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	let := map[string]bool{}
	for line := range strings.Lines(string(ignore)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			let[name] = true
			exists(t, filepath.Join(root, name))
		}
	}
	if got := slices.Sorted(maps.Keys(let)); !slices.Equal(got, []string{"go.mod", "go.sum", "pkg", "proto", "services"}) {
		t.Errorf("the builder gets %v", got)
	}
	let["."] = true
	for _, m := range regexp.MustCompile(`(?m)^COPY ([^-].*)$`).FindAllStringSubmatch(string(text), -1) {
		words := strings.Fields(m[1])
		for _, source := range words[:len(words)-1] {
			exists(t, filepath.Join(root, source))
			if top, _, _ := strings.Cut(source, "/"); !let[top] {
				t.Errorf("%s is copied, and ignored", source)
			}
		}
	}
	mod, err := os.ReadFile(root + "/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)[1]
	if got := regexp.MustCompile(`(?m)^ARG GO=(.*)$`).FindSubmatch(text)[1]; string(got) != string(want) {
		t.Errorf("the image is built with Go %s, go.mod wants %s", got, want)
	}
	if !strings.Contains(string(text), "\nUSER 65532:65532\n") {
		t.Error("the image runs as root")
	}
}
