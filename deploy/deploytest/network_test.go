package deploytest

import (
	"slices"
	"testing"
)

type selector struct {
	Labels      map[string]string `yaml:"matchLabels"`
	Expressions []struct {
		Key      string   `yaml:"key"`
		Operator string   `yaml:"operator"`
		Values   []string `yaml:"values"`
	} `yaml:"matchExpressions"`
}

type traffic struct {
	From  []peer `yaml:"from"`
	To    []peer `yaml:"to"`
	Ports []struct {
		Port string `yaml:"port"`
	} `yaml:"ports"`
}

type peer struct {
	Pods       *selector `yaml:"podSelector"`
	Namespaces *selector `yaml:"namespaceSelector"`
}

// selects tells whether pods with these labels are meant. An operator that is not used here selects nothing.
func (s selector) selects(labels map[string]string) bool {
	for k, v := range s.Labels {
		if labels[k] != v {
			return false
		}
	}
	for _, e := range s.Expressions {
		if e.Operator != "In" || !slices.Contains(e.Values, labels[e.Key]) {
			return false
		}
	}
	return true
}

// passes tells whether one of these rules lets traffic with pods of these labels, in the same namespace, through on a port.
func passes(rules []traffic, labels map[string]string, port string) bool {
	for _, r := range rules {
		peers := slices.Concat(r.From, r.To)
		known := len(peers) == 0 || slices.ContainsFunc(peers, func(p peer) bool { return p.Namespaces == nil && p.Pods != nil && p.Pods.selects(labels) })
		open := len(r.Ports) == 0
		for _, p := range r.Ports {
			open = open || p.Port == port
		}
		if known && open {
			return true
		}
	}
	return false
}

// allowed tells whether the policies let pods of one workload reach a port of another's.
func (c cluster) allowed(from, to object, port string) bool {
	source, target := from.Spec.Template.Metadata.Labels, to.Spec.Template.Metadata.Labels
	out, in := false, false
	for _, o := range c {
		if o.Kind != "NetworkPolicy" {
			continue
		}
		if o.Spec.PodSelector.selects(source) && slices.Contains(o.Spec.PolicyTypes, "Egress") {
			out = out || passes(o.Spec.Egress, target, port)
		}
		if o.Spec.PodSelector.selects(target) && slices.Contains(o.Spec.PolicyTypes, "Ingress") {
			in = in || passes(o.Spec.Ingress, source, port)
		}
	}
	return out && in
}

func TestOnlyWhoAsksReachesWhoIsAsked(t *testing.T) {
	t.Parallel()
	asked := asks(t)
	each(t, func(t *testing.T, c cluster) {
		refusal, ok := c.find("NetworkPolicy", "refuse-everything")
		if !ok || len(refusal.Spec.PolicyTypes) != 2 || !refusal.Spec.PodSelector.selects(nil) {
			t.Error("what no policy speaks of is not refused")
		}
		for _, from := range services {
			source, _ := c.workload(from)
			for _, to := range services {
				target, _ := c.workload(to)
				if want := slices.Contains(asked[from], to); from != to && c.allowed(source, target, "9000") != want {
					t.Errorf("%s asks %s: %v; the policies say the opposite", from, to, want)
				}
			}
		}
	})
}

func TestTheRecordIsReachedInDevelopment(t *testing.T) {
	t.Parallel()
	c := render(t, overlay)
	for _, from := range slices.Concat(services, []string{"init"}) {
		source, _ := c.workload(from)
		for to, port := range map[string]string{"nats": "4222", "redis": "6379", "jaeger": "4317"} {
			target, _ := c.workload(to)
			if !c.allowed(source, target, port) {
				t.Errorf("%s does not reach %s", from, to)
			}
		}
		box, _ := c.workload("mailbox")
		if got := c.allowed(source, box, "1025"); got != (from == "delivery") {
			t.Errorf("%s reaches the mailbox: %v", from, got)
		}
	}
	source, _ := c.workload("init")
	if target, _ := c.workload("nats"); !c.allowed(source, target, "8222") {
		t.Error("init cannot ask NATS how it syncs")
	}
}
