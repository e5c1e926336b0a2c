package deploytest

import (
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestClusterHasEveryService(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c cluster) {
		for _, name := range services {
			w, ok := c.workload(name)
			if !ok {
				t.Errorf("%s is missing", name)
				continue
			}
			pods := w.Spec.Template.Metadata.Labels
			if w.program() != name || pods["app.kubernetes.io/component"] != "service" || w.Spec.Template.Spec.ServiceAccountName != name {
				t.Errorf("%s runs %s as %s with labels %v", name, w.program(), w.Spec.Template.Spec.ServiceAccountName, pods)
			}
			if want := map[bool]string{true: "Deployment", false: "StatefulSet"}[name == "gateway"]; w.Kind != want {
				t.Errorf("%s is a %s: who keeps a record keeps a mark, in a volume a replica", name, w.Kind)
			}
			for _, kind := range []string{"Service", "PodDisruptionBudget"} {
				o, ok := c.find(kind, name)
				if !ok {
					t.Errorf("%s has no %s", name, kind)
					continue
				}
				for k, v := range o.labels(t) {
					if pods[k] != v {
						t.Errorf("%s %s selects %s=%s, the pods have %s", kind, name, k, v, pods[k])
					}
				}
			}
			a, ok := c.find("ServiceAccount", name)
			if !ok || a.Automount == nil || *a.Automount {
				t.Errorf("%s has no account of its own without a token", name)
			}
			scaled, ok := c.find("HorizontalPodAutoscaler", name)
			if ok && (scaled.Spec.ScaleTargetRef.Kind != w.Kind || scaled.Spec.ScaleTargetRef.Name != name) {
				t.Errorf("the autoscaler of %s scales %v", name, scaled.Spec.ScaleTargetRef)
			}
			if !ok && w.Spec.Replicas == nil {
				t.Errorf("%s says neither how many it is, nor who decides", name)
			}
		}
		if a, _ := c.workload("audit"); a.Spec.Replicas == nil || *a.Spec.Replicas != 1 {
			t.Error("audit folds facts in one at a time, in order: it is one")
		}
	})
}

func TestPodsMayDoWhatTheyNeed(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c cluster) {
		for _, w := range c.workloads() {
			p := w.Spec.Template.Spec
			if !p.Security.RunAsNonRoot || p.Security.RunAsUser == 0 || p.Security.Seccomp.Type != "RuntimeDefault" || p.Automount == nil || *p.Automount ||
				p.ServiceLinks == nil || *p.ServiceLinks {
				t.Errorf("%s: pod may do too much: %+v", w.Metadata.Name, p.Security)
			}
			for _, v := range p.Volumes {
				if v.Empty != nil && v.Empty.SizeLimit == "" {
					t.Errorf("%s: volume %s may fill the node", w.Metadata.Name, v.Name)
				}
			}
			for _, k := range p.Containers {
				s := k.Security
				if s.Escalation == nil || *s.Escalation || !s.ReadOnly || !slices.Equal(s.Capabilities.Drop, []string{"ALL"}) {
					t.Errorf("%s: container may do too much: %+v", w.Metadata.Name, s)
				}
				if k.Resources.Requests["cpu"] == "" || k.Resources.Requests["memory"] == "" || k.Resources.Limits["memory"] == "" {
					t.Errorf("%s: resources %+v", w.Metadata.Name, k.Resources)
				}
				if _, tag, ok := strings.Cut(k.Image, ":"); !ok || tag == "latest" {
					t.Errorf("%s: image %s is not pinned", w.Metadata.Name, k.Image)
				}
				if name, ours := strings.CutPrefix(k.Image, "countersign/"); ours {
					name, _, _ = strings.Cut(name, ":")
					exists(t, root+"/services/"+name+"/cmd/"+name+"/main.go")
				}
			}
		}
	})
}

func TestServicesAreProbedAndDrained(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c cluster) {
		for _, name := range services {
			w, _ := c.workload(name)
			p := w.Spec.Template.Spec
			k := p.Containers[0]
			if k.Liveness.HTTP.Path != "/livez" || k.Readiness.HTTP.Path != "/readyz" || k.Liveness.HTTP.Port != "metrics" || k.Readiness.HTTP.Port != "metrics" {
				t.Errorf("%s: probes %+v %+v", name, k.Liveness, k.Readiness)
			}
			if p.Grace < 40 {
				t.Errorf("%s is killed while it drains", name)
			}
		}
	})
}

// TestPortsAreThoseOfTheSettings compares what a container says it listens on with what its environment makes it listen on.
func TestPortsAreThoseOfTheSettings(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, c cluster) {
		for _, w := range c.workloads() {
			k := w.Spec.Template.Spec.Containers[0]
			if w.Kind == "Job" || !strings.HasPrefix(k.Image, "countersign/") {
				continue
			}
			names := map[string]string{
				"COUNTERSIGN_LISTEN": "grpc", "COUNTERSIGN_METRICS": "metrics", "COUNTERSIGN_GRPC": "platforms", "COUNTERSIGN_HTTP": "http",
				"COUNTERSIGN_MAILBOX": "http", "COUNTERSIGN_MAILBOX_SMTP": "smtp",
			}
			want, got := map[string]string{}, map[string]string{}
			for env, value := range c.environment(t, k) {
				if host, port, err := net.SplitHostPort(value); err == nil && host == "0.0.0.0" {
					want[names[env]] = port
				}
			}
			for _, p := range k.Ports {
				got[p.Name] = p.Port
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s: ports %v, its settings say %v", w.Metadata.Name, got, want)
			}
		}
		for _, o := range c {
			if o.Kind != "Service" {
				continue
			}
			w, _ := c.workload(o.Metadata.Name)
			for _, p := range o.Spec.Ports {
				if !slices.ContainsFunc(w.Spec.Template.Spec.Containers, func(k container) bool { return k.port(p.TargetPort) != "" }) {
					t.Errorf("Service %s: nobody listens on %s", o.Metadata.Name, p.TargetPort)
				}
			}
		}
	})
}

func (k container) port(name string) string {
	for _, p := range k.Ports {
		if p.Name == name {
			return p.Port
		}
	}
	return ""
}

func TestClusterSettings(t *testing.T) {
	t.Parallel()
	asked := asks(t)
	each(t, func(t *testing.T, c cluster) {
		site, _ := c.find("ConfigMap", c.named(t, "countersign-site"))
		others := slices.Sorted(maps.Keys(site.Data)) // the site's settings go to all services
		listens := map[string]string{}
		for _, name := range services {
			listens[name] = name + ":9000"
		}
		for _, name := range services {
			w, _ := c.workload(name)
			k := w.Spec.Template.Spec.Containers[0]
			env := c.environment(t, k)
			settings(t, name, env, others...)
			peers(t, name, env["COUNTERSIGN_PEERS"], asked[name], listens)
			for setting, value := range env {
				keepsNone := name == "gateway" && setting == "COUNTERSIGN_MARKS"
				if strings.HasPrefix(value, "/") && !k.mounts(value) && !keepsNone {
					t.Errorf("%s: %s=%s is on no volume", name, setting, value)
				}
			}
			for peer := range listens {
				if o, ok := c.find("Service", peer); slices.Contains(asked[name], peer) && (!ok || !o.serves("9000")) {
					t.Errorf("%s asks %s, which no Service serves on 9000", name, peer)
				}
			}
		}
	})
}

// named returns the name of a generated ConfigMap, which ends in a hash.
func (c cluster) named(t *testing.T, name string) string {
	t.Helper()
	for _, o := range c {
		if o.Kind == "ConfigMap" && strings.HasPrefix(o.Metadata.Name, name+"-") {
			return o.Metadata.Name
		}
	}
	t.Fatalf("no ConfigMap %s", name)
	return ""
}

// mounts tells whether a path is on a volume, or below a folder that one is mounted in.
func (k container) mounts(path string) bool {
	for _, m := range k.VolumeMounts {
		if path == m.Path || strings.HasPrefix(path, m.Path+"/") || strings.HasPrefix(m.Path, path+"/") {
			return true
		}
	}
	return false
}

func (o object) serves(port string) bool {
	for _, p := range o.Spec.Ports {
		if p.Port == port {
			return true
		}
	}
	return false
}

func TestTheOverlayHasItsServers(t *testing.T) {
	t.Parallel()
	c := render(t, overlay)
	site, _ := c.find("ConfigMap", c.named(t, "countersign-site"))
	for _, setting := range []string{"COUNTERSIGN_NATS", "COUNTERSIGN_NATS_MONITOR", "COUNTERSIGN_REDIS", "COUNTERSIGN_SMTP", "COUNTERSIGN_OTLP"} {
		address := site.Data[setting]
		if u, err := url.Parse(address); err == nil && u.Host != "" {
			address = u.Host
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Errorf("%s: %v", setting, err)
			continue
		}
		if o, ok := c.find("Service", host); !ok || !o.serves(port) {
			t.Errorf("%s is %s; no Service serves it", setting, site.Data[setting])
		}
	}
	if site.Data["COUNTERSIGN_REPLICAS"] != "1" {
		t.Error("one NATS server holds no three copies")
	}
}

// TestSecretsAreReferredToAlone wants no secret's content anywhere, and every secret that pods refer to in the README.
func TestSecretsAreReferredToAlone(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile(root + "/deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	development, err := os.ReadFile(root + "/deploy/dev-secrets")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{base, overlay} {
		c := render(t, dir)
		for _, o := range c {
			if o.Kind == "Secret" {
				t.Errorf("%s: Secret %s is content, not a reference", dir, o.Metadata.Name)
			}
		}
		for _, name := range c.secrets() {
			if !strings.Contains(string(readme), name) {
				t.Errorf("README.md does not say how to make the secret %s", name)
			}
			if dir == overlay && !strings.Contains(string(development), "secret "+name+" ") {
				t.Errorf("dev-secrets does not make %s", name)
			}
		}
		for _, w := range c.workloads() {
			for _, v := range w.Spec.Template.Spec.Volumes {
				if _, ok := c.find("ConfigMap", v.ConfigMap.Name); v.ConfigMap.Name != "" && !ok {
					t.Errorf("%s: no ConfigMap %s", w.Metadata.Name, v.ConfigMap.Name)
				}
				if _, ok := c.find("PersistentVolumeClaim", v.Claim.Name); v.Claim.Name != "" && !ok {
					t.Errorf("%s: no claim %s", w.Metadata.Name, v.Claim.Name)
				}
			}
		}
	}
}

// secrets are the names of all that pods refer to.
func (c cluster) secrets() []string {
	found := map[string]bool{}
	for _, w := range c.workloads() {
		p := w.Spec.Template.Spec
		for _, v := range p.Volumes {
			found[v.Secret.Name] = true
			for _, s := range v.Projected.Sources {
				found[s.Secret.Name] = true
			}
		}
		for _, k := range p.Containers {
			for _, e := range k.Env {
				found[e.ValueFrom.Secret.Name] = true
			}
		}
	}
	delete(found, "")
	return slices.Sorted(maps.Keys(found))
}
