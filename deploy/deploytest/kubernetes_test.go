package deploytest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"
)

// object is any object of Kubernetes, as far as it is looked at here.
type object struct {
	APIVersion string            `yaml:"apiVersion"`
	Kind       string            `yaml:"kind"`
	Metadata   metadata          `yaml:"metadata"`
	Data       map[string]string `yaml:"data"`
	Spec       spec              `yaml:"spec"`
	Automount  *bool             `yaml:"automountServiceAccountToken"`
}

type metadata struct {
	Name      string            `yaml:"name"`
	Namespace string            `yaml:"namespace"`
	Labels    map[string]string `yaml:"labels"`
}

type spec struct {
	Replicas    *int      `yaml:"replicas"`
	MinReplicas int       `yaml:"minReplicas"`
	ServiceName string    `yaml:"serviceName"`
	Selector    yaml.Node `yaml:"selector"` // labels of a Service, a selector elsewhere
	Ports       []struct {
		Name       string `yaml:"name"`
		Port       string `yaml:"port"`
		TargetPort string `yaml:"targetPort"`
	} `yaml:"ports"`
	Template struct {
		Metadata metadata `yaml:"metadata"`
		Spec     pod      `yaml:"spec"`
	} `yaml:"template"`
	VolumeClaimTemplates []object `yaml:"volumeClaimTemplates"`
	Resources            struct {
		Requests map[string]string `yaml:"requests"`
	} `yaml:"resources"` // of a claim
	ScaleTargetRef struct {
		Kind string `yaml:"kind"`
		Name string `yaml:"name"`
	} `yaml:"scaleTargetRef"`
	MaxUnavailable int       `yaml:"maxUnavailable"`
	PodSelector    selector  `yaml:"podSelector"`
	PolicyTypes    []string  `yaml:"policyTypes"`
	Ingress        []traffic `yaml:"ingress"`
	Egress         []traffic `yaml:"egress"`
}

type pod struct {
	ServiceAccountName string      `yaml:"serviceAccountName"`
	Automount          *bool       `yaml:"automountServiceAccountToken"`
	ServiceLinks       *bool       `yaml:"enableServiceLinks"`
	Grace              int         `yaml:"terminationGracePeriodSeconds"`
	Security           security    `yaml:"securityContext"`
	Containers         []container `yaml:"containers"`
	Volumes            []volume    `yaml:"volumes"`
}

type security struct {
	RunAsNonRoot bool  `yaml:"runAsNonRoot"`
	RunAsUser    int   `yaml:"runAsUser"`
	Escalation   *bool `yaml:"allowPrivilegeEscalation"`
	ReadOnly     bool  `yaml:"readOnlyRootFilesystem"`
	Capabilities struct {
		Drop []string `yaml:"drop"`
	} `yaml:"capabilities"`
	Seccomp struct {
		Type string `yaml:"type"`
	} `yaml:"seccompProfile"`
}

type container struct {
	Name    string `yaml:"name"`
	Image   string `yaml:"image"`
	EnvFrom []struct {
		ConfigMapRef struct {
			Name string `yaml:"name"`
		} `yaml:"configMapRef"`
	} `yaml:"envFrom"`
	Env []struct {
		Name      string `yaml:"name"`
		Value     string `yaml:"value"`
		ValueFrom struct {
			ConfigMap reference `yaml:"configMapKeyRef"`
			Secret    reference `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	} `yaml:"env"`
	Ports []struct {
		Name string `yaml:"name"`
		Port string `yaml:"containerPort"`
	} `yaml:"ports"`
	Liveness  probe `yaml:"livenessProbe"`
	Readiness probe `yaml:"readinessProbe"`
	Resources struct {
		Requests map[string]string `yaml:"requests"`
		Limits   map[string]string `yaml:"limits"`
	} `yaml:"resources"`
	Security     security `yaml:"securityContext"`
	VolumeMounts []struct {
		Name string `yaml:"name"`
		Path string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

type reference struct {
	Name string `yaml:"name"`
	Key  string `yaml:"key"`
}

type probe struct {
	HTTP struct {
		Path string `yaml:"path"`
		Port string `yaml:"port"`
	} `yaml:"httpGet"`
}

type volume struct {
	Name   string `yaml:"name"`
	Secret struct {
		Name string `yaml:"secretName"`
	} `yaml:"secret"`
	ConfigMap reference `yaml:"configMap"`
	Claim     struct {
		Name string `yaml:"claimName"`
	} `yaml:"persistentVolumeClaim"`
	Empty *struct {
		SizeLimit string `yaml:"sizeLimit"`
	} `yaml:"emptyDir"`
	Projected struct {
		Sources []struct {
			ConfigMap reference `yaml:"configMap"`
			Secret    reference `yaml:"secret"`
		} `yaml:"sources"`
	} `yaml:"projected"`
}

// cluster is what a kustomization renders.
type cluster []object

var rendered sync.Map // by directory: what render found, so that each is rendered once

// render runs kustomize: kubectl's where it is installed, else the pinned one.
func render(t *testing.T, dir string) cluster {
	t.Helper()
	do, _ := rendered.LoadOrStore(dir, sync.OnceValues(func() (cluster, error) { return kustomize(dir) }))
	c, err := do.(func() (cluster, error))()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func kustomize(dir string) (cluster, error) {
	command := []string{"go", "tool", "-modfile=tools.mod", "kustomize", "build"}
	if _, err := exec.LookPath("kubectl"); err == nil {
		command = []string{"kubectl", "kustomize"}
	} else if _, err := os.Stat(root + "/bin/kustomize"); err == nil {
		command = []string{"bin/kustomize", "build"}
	}
	var out, problems bytes.Buffer
	cmd := exec.Command(command[0], append(command[1:], dir)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = root, &out, &problems, append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if err := cmd.Run(); err != nil {
		return nil, errors.New(dir + ": " + err.Error() + ": " + problems.String())
	}
	var c cluster
	for d := yaml.NewDecoder(&out); ; {
		var o object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return c, nil
		} else if err != nil {
			return nil, err
		}
		c = append(c, o)
	}
}

const (
	base    = "deploy/kubernetes/base"
	overlay = "deploy/kubernetes/overlays/dev"
)

// each runs a test on both kustomizations.
func each(t *testing.T, test func(t *testing.T, c cluster)) {
	t.Helper()
	for _, dir := range []string{base, overlay} {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			test(t, render(t, dir))
		})
	}
}

func (c cluster) find(kind, name string) (object, bool) {
	for _, o := range c {
		if o.Kind == kind && o.Metadata.Name == name {
			return o, true
		}
	}
	return object{}, false
}

// workloads are the objects that make pods.
func (c cluster) workloads() []object {
	var all []object
	for _, o := range c {
		if slices.Contains([]string{"Deployment", "StatefulSet", "Job"}, o.Kind) {
			all = append(all, o)
		}
	}
	return all
}

func (c cluster) workload(name string) (object, bool) {
	for _, o := range c.workloads() {
		if o.Metadata.Name == name {
			return o, true
		}
	}
	return object{}, false
}

func (o object) program() string {
	name, _, _ := strings.Cut(strings.TrimPrefix(o.Spec.Template.Spec.Containers[0].Image, "countersign/"), ":")
	return name
}

// environment returns what a container's environment will be. A secret's value is "secret".
func (c cluster) environment(t *testing.T, k container) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, from := range k.EnvFrom {
		m, ok := c.find("ConfigMap", from.ConfigMapRef.Name)
		if !ok {
			t.Errorf("%s: no ConfigMap %s", k.Image, from.ConfigMapRef.Name)
		}
		for name, value := range m.Data {
			env[name] = value
		}
	}
	for _, e := range k.Env {
		switch from := e.ValueFrom; {
		case from.ConfigMap.Name != "":
			m, _ := c.find("ConfigMap", from.ConfigMap.Name)
			value, ok := m.Data[from.ConfigMap.Key]
			if !ok {
				t.Errorf("%s: no %s in ConfigMap %s", k.Image, from.ConfigMap.Key, from.ConfigMap.Name)
			}
			env[e.Name] = value
		case from.Secret.Name != "":
			env[e.Name] = "secret"
		default:
			env[e.Name] = e.Value
		}
	}
	return env
}

// labels returns the labels that a Service, a budget or a workload selects pods by.
func (o object) labels(t *testing.T) map[string]string {
	t.Helper()
	var plain map[string]string
	var s selector
	if o.Kind == "Service" {
		if err := o.Spec.Selector.Decode(&plain); err != nil {
			t.Fatal(err)
		}
		return plain
	}
	if err := o.Spec.Selector.Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s.Labels
}
