package deploytest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	// starlark-go: the language of the Tiltfile as Tilt itself runs it, without Tilt.
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"
)

// tilt records what a Tiltfile asks for. Its functions have the parameters of Tilt's own that we use; any other is refused.
type tilt struct {
	dir       string
	modules   map[string]starlark.StringDict
	builtins  starlark.StringDict
	kustomize []string
	applied   int
	images    map[string]image
	resources map[string]resource
}

type image struct {
	context, dockerfile, service string
	only                         []string
}

type resource struct {
	local    bool
	command  string
	dir      string
	paths    []string
	forwards [][2]int
	needs    []string
}

// evaluate runs the Tiltfile.
func evaluate(t *testing.T) *tilt {
	t.Helper()
	dir, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	w := &tilt{dir: dir, modules: map[string]starlark.StringDict{}, images: map[string]image{}, resources: map[string]resource{}}
	w.builtins = starlark.StringDict{
		"config":              starlarkstruct.FromStringDict(starlark.String("config"), starlark.StringDict{"main_dir": starlark.String(dir)}),
		"TRIGGER_MODE_MANUAL": starlark.String("manual"),
	}
	for name, f := range map[string]func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error){
		"kustomize": w.kustomizeCall, "k8s_yaml": w.k8sYAML, "docker_build": w.dockerBuild, "k8s_resource": w.k8sResource,
		"local_resource": w.localResource, "port_forward": portForward, "link": link,
	} {
		w.builtins[name] = starlark.NewBuiltin(name, f)
	}
	if _, err := w.load(nil, "Tiltfile"); err != nil {
		t.Fatal(err)
	}
	return w
}

// load executes a file once. Paths begin at the repository, where the Tiltfile is, or at the file that loads.
func (w *tilt) load(thread *starlark.Thread, path string) (starlark.StringDict, error) {
	if thread != nil {
		path = filepath.Join(filepath.Dir(thread.CallFrame(0).Pos.Filename()), path)
	}
	if m, done := w.modules[path]; done {
		return m, nil
	}
	child := &starlark.Thread{Name: path, Load: w.load}
	options := &syntax.FileOptions{TopLevelControl: true, GlobalReassign: true, Set: true}
	text, err := os.ReadFile(filepath.Join(w.dir, path))
	if err != nil {
		return nil, err
	}
	m, err := starlark.ExecFileOptions(options, child, path, text, w.builtins)
	w.modules[path] = m
	return m, err
}

func (w *tilt) kustomizeCall(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kw []starlark.Tuple) (starlark.Value, error) {
	var path string
	if err := starlark.UnpackArgs(b.Name(), args, kw, "paths", &path); err != nil {
		return nil, err
	}
	w.kustomize = append(w.kustomize, path)
	return starlark.String(path), nil
}

func (w *tilt) k8sYAML(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kw []starlark.Tuple) (starlark.Value, error) {
	var yaml starlark.Value
	w.applied++
	return starlark.None, starlark.UnpackArgs(b.Name(), args, kw, "yaml", &yaml)
}

func (w *tilt) dockerBuild(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kw []starlark.Tuple) (starlark.Value, error) {
	var ref, context, dockerfile string
	buildArgs, only, ignore := &starlark.Dict{}, &starlark.List{}, &starlark.List{}
	if err := starlark.UnpackArgs(b.Name(), args, kw, "ref", &ref, "context", &context, "build_args?", &buildArgs, "dockerfile?", &dockerfile, "only?", &only, "ignore?", &ignore); err != nil {
		return nil, err
	}
	if _, twice := w.images[ref]; twice {
		return nil, fmt.Errorf("image %s is built twice", ref)
	}
	service, _, _ := buildArgs.Get(starlark.String("SERVICE"))
	name, _ := starlark.AsString(service)
	w.images[ref] = image{context, dockerfile, name, texts(only)}
	return starlark.None, nil
}

func (w *tilt) k8sResource(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kw []starlark.Tuple) (starlark.Value, error) {
	var name string
	forwards, needs, labels, links := &starlark.List{}, &starlark.List{}, &starlark.List{}, &starlark.List{}
	if err := starlark.UnpackArgs(b.Name(), args, kw, "workload", &name, "port_forwards?", &forwards, "resource_deps?", &needs, "labels?", &labels, "links?", &links); err != nil {
		return nil, err
	}
	r := resource{needs: texts(needs)}
	for v := range forwards.Elements() {
		var local, remote int
		pair, ok := v.(starlark.Tuple)
		if !ok || starlark.AsInt(pair[0], &local) != nil || starlark.AsInt(pair[1], &remote) != nil {
			return nil, fmt.Errorf("%s: %v is no port_forward", name, v)
		}
		r.forwards = append(r.forwards, [2]int{local, remote})
	}
	return starlark.None, w.add(name, r)
}

func (w *tilt) localResource(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kw []starlark.Tuple) (starlark.Value, error) {
	var name string
	r := resource{local: true}
	auto, mode := true, ""
	deps, ignore, labels, needs, env := &starlark.List{}, &starlark.List{}, &starlark.List{}, &starlark.List{}, &starlark.Dict{}
	if err := starlark.UnpackArgs(b.Name(), args, kw, "name", &name, "cmd?", &r.command, "deps?", &deps, "trigger_mode?", &mode, "resource_deps?", &needs,
		"ignore?", &ignore, "auto_init?", &auto, "env?", &env, "dir?", &r.dir, "labels?", &labels); err != nil {
		return nil, err
	}
	r.paths, r.needs = texts(deps), texts(needs)
	return starlark.None, w.add(name, r)
}

func (w *tilt) add(name string, r resource) error {
	if _, twice := w.resources[name]; twice {
		return fmt.Errorf("resource %s stands twice", name)
	}
	w.resources[name] = r
	return nil
}

func portForward(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kw []starlark.Tuple) (starlark.Value, error) {
	var local, remote int
	var name string
	err := starlark.UnpackArgs(b.Name(), args, kw, "local_port", &local, "container_port", &remote, "name?", &name)
	return starlark.Tuple{starlark.MakeInt(local), starlark.MakeInt(remote)}, err
}

func link(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kw []starlark.Tuple) (starlark.Value, error) {
	var url, name string
	return starlark.String(url), starlark.UnpackArgs(b.Name(), args, kw, "url", &url, "name?", &name)
}

func texts(l *starlark.List) []string {
	var all []string
	for v := range l.Elements() {
		s, _ := starlark.AsString(v)
		all = append(all, s)
	}
	return all
}

func TestTiltBuildsWhatTheOverlayRuns(t *testing.T) {
	t.Parallel()
	w := evaluate(t)
	if !slices.Equal(w.kustomize, []string{overlay}) || w.applied != 1 {
		t.Fatalf("Tilt deploys %v", w.kustomize)
	}
	c := render(t, overlay)
	run := map[string]bool{}
	for _, o := range c.workloads() {
		if _, ok := w.resources[o.Metadata.Name]; !ok {
			t.Errorf("Tilt does not speak of %s", o.Metadata.Name)
		}
		for _, k := range o.Spec.Template.Spec.Containers {
			if ref, _, _ := strings.Cut(k.Image, ":"); strings.HasPrefix(ref, "countersign/") {
				run[ref] = true
			}
		}
	}
	for ref, i := range w.images {
		if !run[ref] {
			t.Errorf("%s is built, and runs nowhere", ref)
		}
		delete(run, ref)
		exists(t, i.dockerfile)
		exists(t, filepath.Join(i.context, "services", i.service, "cmd", i.service, "main.go"))
		if ref != "countersign/"+i.service {
			t.Errorf("%s is made of %s", ref, i.service)
		}
		for _, source := range i.only {
			exists(t, filepath.Join(i.context, source))
		}
		if need := []string{"go.mod", "go.sum", "pkg", "proto", "services"}; !slices.Equal(i.only, need) {
			t.Errorf("%s is made of %v, the Dockerfile copies %v", ref, i.only, need)
		}
	}
	for ref := range run {
		t.Errorf("%s runs, and nobody builds it", ref)
	}
}

func TestTiltRefersToWhatIsThere(t *testing.T) {
	t.Parallel()
	w := evaluate(t)
	c := render(t, overlay)
	makefile, err := os.ReadFile(root + "/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	local := map[int]string{}
	for name, r := range w.resources {
		for _, need := range r.needs {
			if _, ok := w.resources[need]; !ok {
				t.Errorf("%s waits for %s, which is no resource", name, need)
			}
		}
		for _, p := range r.paths {
			exists(t, p)
		}
		if r.local {
			w.command(t, name, r, string(makefile))
			continue
		}
		o, ok := c.workload(name)
		if !ok {
			t.Errorf("%s is no workload of the overlay", name)
			continue
		}
		for _, f := range r.forwards {
			if other := local[f[0]]; other != "" {
				t.Errorf("%s and %s both want port %d", name, other, f[0])
			}
			local[f[0]] = name
			if !slices.ContainsFunc(o.Spec.Template.Spec.Containers[0].Ports, func(p struct {
				Name string `yaml:"name"`
				Port string `yaml:"containerPort"`
			},
			) bool {
				return p.Port == fmt.Sprint(f[1])
			}) {
				t.Errorf("%s does not listen on %d", name, f[1])
			}
		}
	}
	site, _ := c.find("ConfigMap", c.named(t, "countersign-site"))
	if local[8080] != "gateway" || site.Data["COUNTERSIGN_PUBLIC_URL"] != "http://localhost:8080" {
		t.Error("links in messages do not lead to the forwarded gateway")
	}
}

// command checks that what a local resource runs is there: a target of make, a program of the repository, or go.
func (w *tilt) command(t *testing.T, name string, r resource, makefile string) {
	t.Helper()
	word := strings.Fields(r.command)
	switch {
	case len(word) == 0 || r.dir != w.dir:
		t.Errorf("%s runs %q in %q", name, r.command, r.dir)
	case word[0] == "make":
		if !regexp.MustCompile(`(?m)^` + word[1] + `:`).MatchString(makefile) {
			t.Errorf("%s: make has no target %s", name, word[1])
		}
	case strings.Contains(word[0], "/"):
		if info, err := os.Stat(filepath.Join(w.dir, word[0])); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%s: %s is no program", name, word[0])
		}
	case word[0] != "go":
		t.Errorf("%s runs %q", name, r.command)
	}
}
