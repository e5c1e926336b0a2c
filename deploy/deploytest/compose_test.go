package deploytest

import (
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type composeFile struct {
	Services map[string]composeService `yaml:"services"`
	Volumes  map[string]any            `yaml:"volumes"`
}

type composeService struct {
	Image string `yaml:"image"`
	Build struct {
		Context    string            `yaml:"context"`
		Dockerfile string            `yaml:"dockerfile"`
		Args       map[string]string `yaml:"args"`
	} `yaml:"build"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Ports       []string          `yaml:"ports"`
	Volumes     []string          `yaml:"volumes"`
	Restart     string            `yaml:"restart"`
	ReadOnly    bool              `yaml:"read_only"`
	CapDrop     []string          `yaml:"cap_drop"`
	SecurityOpt []string          `yaml:"security_opt"`
	Tmpfs       []string          `yaml:"tmpfs"`
	Healthcheck struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
}

// ours tells whether it runs one of our programs.
func (s composeService) ours() bool { return strings.HasPrefix(s.Image, "countersign/") }

// program is which one.
func (s composeService) program() string {
	name, _, _ := strings.Cut(strings.TrimPrefix(s.Image, "countersign/"), ":")
	return name
}

// listens are the ports it listens on: ours by their settings, others as their documentation says.
func (s composeService) listens(name string) []string {
	if !s.ours() {
		return map[string][]string{"nats": {"4222", "8222"}, "redis": {"6379"}, "jaeger": {"4317", "16686"}}[name]
	}
	var ports []string
	for _, value := range s.Environment {
		if host, port, err := net.SplitHostPort(value); err == nil && host == "0.0.0.0" {
			ports = append(ports, port)
		}
	}
	return ports
}

func compose(t *testing.T) composeFile {
	t.Helper()
	text, err := os.ReadFile(root + "/deploy/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var c composeFile
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestComposeRunsEveryService(t *testing.T) {
	t.Parallel()
	c := compose(t)
	for _, name := range slices.Concat(services, []string{"mailbox"}) {
		if s, ok := c.Services[name]; !ok || s.program() != name {
			t.Errorf("%s is missing, or runs %q", name, s.Image)
		}
	}
	built := map[string]bool{}
	for name, s := range c.Services {
		if !s.ours() {
			if _, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "latest" {
				t.Errorf("%s: image %s is not pinned", name, s.Image)
			}
			continue
		}
		if s.Build.Context == "" {
			continue
		}
		built[s.Image] = true
		context := filepath.Join(root, "deploy", s.Build.Context)
		exists(t, filepath.Join(context, "go.mod"))
		exists(t, filepath.Join(context, s.Build.Dockerfile))
		program := s.Build.Args["SERVICE"]
		exists(t, filepath.Join(context, "services", program, "cmd", program, "main.go"))
		if program != s.program() {
			t.Errorf("%s: image %s is made of %s", name, s.Image, program)
		}
	}
	for name, s := range c.Services {
		if s.ours() && !built[s.Image] {
			t.Errorf("%s: nobody builds %s", name, s.Image)
		}
	}
}

func TestComposePublishesOnLoopbackAlone(t *testing.T) {
	t.Parallel()
	published := map[string]string{}
	for name, s := range compose(t).Services {
		for _, p := range s.Ports {
			part := strings.Split(p, ":")
			if len(part) != 3 || part[0] != "127.0.0.1" {
				t.Errorf("%s publishes %s beyond this machine", name, p)
				continue
			}
			if other := published[part[1]]; other != "" {
				t.Errorf("%s and %s both publish %s", name, other, part[1])
			}
			published[part[1]] = name
			if !slices.Contains(s.listens(name), part[2]) {
				t.Errorf("%s publishes %s, and listens on %v", name, part[2], s.listens(name))
			}
		}
	}
	if published["8080"] != "gateway" || published["4222"] != "nats" || published["9090"] != "token" || published["8025"] != "mailbox" {
		t.Errorf("published: %v", published)
	}
}

func TestComposeSettings(t *testing.T) {
	t.Parallel()
	c := compose(t)
	asked := asks(t)
	listens := map[string]string{}
	for _, name := range services {
		_, port, err := net.SplitHostPort(c.Services[name].Environment["COUNTERSIGN_LISTEN"])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		listens[name] = name + ":" + port
	}
	for name, s := range c.Services {
		if !s.ours() || s.program() == "countersign" {
			continue
		}
		settings(t, s.program(), s.Environment)
		for env, value := range s.Environment {
			keepsNone := name == "gateway" && env == "COUNTERSIGN_MARKS" // it has no record to watch over
			if strings.HasPrefix(value, "/") && !s.mounts(value) && !keepsNone {
				t.Errorf("%s: %s=%s is on no volume", name, env, value)
			}
		}
		if name == "mailbox" {
			continue
		}
		peers(t, name, s.Environment["COUNTERSIGN_PEERS"], asked[name], listens)
		for _, env := range []string{"COUNTERSIGN_NATS", "COUNTERSIGN_REDIS", "COUNTERSIGN_OTLP", "COUNTERSIGN_SMTP"} {
			if address, set := s.Environment[env]; set {
				c.reachable(t, name, env, address)
			}
		}
	}
	if a, b := c.Services["gateway"].Environment["COUNTERSIGN_PUBLIC_URL"], c.Services["delivery"].Environment["COUNTERSIGN_PUBLIC_URL"]; a != b || a == "" {
		t.Errorf("links in messages lead to %s, the gateway takes itself for %s", b, a)
	}
}

// reachable checks that some service listens at an address.
func (c composeFile) reachable(t *testing.T, name, setting, address string) {
	t.Helper()
	hostport := address
	if u, err := url.Parse(address); err == nil && u.Host != "" {
		hostport = u.Host
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		t.Errorf("%s: %s: %v", name, setting, err)
		return
	}
	if s, ok := c.Services[host]; !ok || !slices.Contains(s.listens(host), port) {
		t.Errorf("%s: %s is %s; nobody listens there", name, setting, address)
	}
}

// mounts tells whether a path is on a volume.
func (s composeService) mounts(path string) bool {
	return slices.ContainsFunc(s.Volumes, func(v string) bool {
		target := strings.Split(v, ":")[1]
		return path == target || strings.HasPrefix(path, target+"/")
	})
}

// volumeFolders are the folders that the image has for volumes, which take their owner from them.
func volumeFolders(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(root + "/deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`for folder in ([a-z -]+);`).FindSubmatch(text)
	if m == nil {
		t.Fatal("the Dockerfile makes no folders for volumes")
	}
	return strings.Fields(string(m[1]))
}

func TestComposeVolumes(t *testing.T) {
	t.Parallel()
	c := compose(t)
	used := map[string]bool{}
	for name, s := range c.Services {
		for _, v := range s.Volumes {
			part := strings.Split(v, ":")
			if strings.HasPrefix(part[0], ".") {
				exists(t, filepath.Join(root, "deploy", part[0]))
				continue
			}
			used[part[0]] = true
			if _, ok := c.Volumes[part[0]]; !ok {
				t.Errorf("%s: no volume %s", name, part[0])
			}
			folder, ok := strings.CutPrefix(part[1], "/var/lib/countersign/")
			if s.ours() && (!ok || !slices.Contains(volumeFolders(t), folder)) {
				t.Errorf("%s: the image has no folder of its user's for %s", name, part[1])
			}
		}
	}
	for v := range c.Volumes {
		if !used[v] {
			t.Errorf("volume %s is not used", v)
		}
	}
	// Whoever mounts the volume of NATS first gives it its owner; NATS waits for keys.
	if !slices.Contains(c.Services["keys"].Volumes, "nats:/var/lib/countersign/nats") || c.Services["nats"].DependsOn["keys"].Condition != "service_completed_successfully" {
		t.Error("the volume of NATS would belong to root")
	}
}

func TestComposeStartsInOrder(t *testing.T) {
	t.Parallel()
	c := compose(t)
	for name, s := range c.Services {
		for other, d := range s.DependsOn {
			o, ok := c.Services[other]
			switch {
			case !ok:
				t.Errorf("%s waits for %s, which is not there", name, other)
			case d.Condition == "service_healthy" && len(o.Healthcheck.Test) == 0:
				t.Errorf("%s waits for the health of %s, which nobody checks", name, other)
			case d.Condition == "service_completed_successfully" && o.Restart != "no":
				t.Errorf("%s waits for the end of %s, which is started again", name, other)
			}
		}
		if !s.ours() {
			continue
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") || !slices.Contains(s.Tmpfs, "/tmp") {
			t.Errorf("%s may do more than it needs", name)
		}
		if s.program() == "countersign" {
			continue
		}
		if _, ok := s.DependsOn["init"]; !ok && name != "mailbox" {
			t.Errorf("%s does not wait for the streams", name)
		}
		k, _ := parser(t, s.program())
		probe := s.Healthcheck.Test
		if len(probe) != 3 || probe[0] != "CMD" || probe[1] != "/program" {
			t.Errorf("%s: health check %v", name, probe)
		} else if _, err := k.Parse(append(probe[2:], required(s.program())...)); err != nil {
			t.Errorf("%s: health check %v: %v", name, probe, err)
		}
	}
	if d := slices.Sorted(maps.Keys(c.Services["init"].DependsOn)); !slices.Equal(d, []string{"nats"}) {
		t.Errorf("init waits for %v", d)
	}
}

// required are the settings without which a program does not start; in a container they are in its environment.
func required(program string) []string {
	if program == "delivery" {
		return []string{"--smtp=mailbox:1025"}
	}
	return nil
}
