package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"countersign.dev/services/countersign/signer"
	"countersign.dev/services/countersign/stack"
)

// patience is how long the whole test may take; the first start on a machine compiles the page renderer.
const patience = 3 * time.Minute

// commands are the shell commands under a heading of a page.
func commands(t *testing.T, page, heading string) []string {
	t.Helper()
	_, under, found := strings.Cut(read(t, page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no heading %q", page, heading)
	}
	under, _, _ = strings.Cut(under, "\n## ")
	var out []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(under, -1) {
		out = append(out, m[1])
	}
	return out
}

// start runs all of Countersign as `countersign up` does, on free ports.
func start(t *testing.T) stack.Addresses {
	t.Helper()
	var c stack.Config
	parser, err := kong.New(&c, kong.Name("up"))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--data", filepath.Join(t.TempDir(), "data"), "--log-level", "error"}
	for _, name := range []string{"http", "grpc", "metrics", "mailbox", "mailbox-smtp", "nats-listen", "redis-listen"} {
		args = append(args, "--"+name, "127.0.0.1:0")
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan stack.Addresses, 1), make(chan struct{})
	go func() {
		defer close(ended)
		if err := stack.Run(ctx, c, os.Stderr, func(r stack.Running) { ready <- r.Addresses }); err != nil {
			t.Errorf("up: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case a := <-ready:
		return a
	case <-ended:
		t.FailNow()
	case <-time.After(patience):
		t.Fatal("not ready in time")
	}
	return stack.Addresses{}
}

// shell returns what runs a page's command against a running instance: at its addresses, with stand-ins for what is not installed.
func shell(t *testing.T, a stack.Addresses) func(command string) []byte {
	t.Helper()
	tools, err := filepath.Abs(filepath.Join(root, "bin")) // made by scripts/install-tools
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bash", "curl", "jq", "sha256sum", "grpcurl"} {
		if _, err := exec.LookPath(name); err != nil && !there(filepath.Join(tools, name)) {
			if os.Getenv("COUNTERSIGN_REQUIRE_TOOLS") != "" {
				t.Fatalf("%s is required and not installed", name)
			}
			t.Skipf("%s is not installed", name)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name := range standIns {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	at := strings.NewReplacer("http://127.0.0.1:8080", a.HTTP, "127.0.0.1:9090", a.GRPC)
	return func(command string) []byte {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		run := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", at.Replace(command))
		run.Dir = root
		run.Env = append(os.Environ(), "NATS_URL="+a.NATS, "PATH="+dir+":"+os.Getenv("PATH")+":"+tools)
		var errs bytes.Buffer
		run.Stderr = &errs
		out, err := run.Output()
		if err != nil {
			t.Fatalf("%s\n%v\n%s%s", command, err, out, errs.String())
		}
		return out
	}
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestFirstEvent does what README says, in its order: three ways, one request, one mail.
func TestFirstEvent(t *testing.T) {
	t.Parallel()
	three := commands(t, "README.md", "The first event, three ways")
	if len(three) != 3 {
		t.Fatalf("README shows %d ways, not three", len(three))
	}
	a := start(t)
	run := shell(t, a)
	run(three[0])
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ada := signer.New("ada@example.com", a.Mailbox)
	if _, err := ada.Await(ctx, func(m signer.Mail) bool { return m.Link() != "" }, map[string]bool{}); err != nil {
		t.Fatal(err)
	}
	var listed struct {
		Requests []struct{ ID, Title string }
	}
	get(t, a.HTTP+"/v1/requests", &listed)
	if len(listed.Requests) != 1 || listed.Requests[0].Title != "Offer letter" {
		t.Fatalf("after NATS the list is %+v", listed)
	}
	id := listed.Requests[0].ID
	for _, command := range three[1:] {
		if out := run(command); !strings.Contains(string(out), `"`+id+`"`) {
			t.Errorf("%s\nanswered another request than %s:\n%s", command, id, out)
		}
	}
	get(t, a.HTTP+"/v1/requests", &listed)
	if mails, err := ada.Mails(ctx); err != nil || len(mails) != 1 || len(listed.Requests) != 1 {
		t.Errorf("three ways made %d requests and %d mails, %v", len(listed.Requests), len(mails), err)
	}
	checkTrail(t, a, run, id)
}

// checkTrail follows the audit page's way to check a trail by hand.
func checkTrail(t *testing.T, a stack.Addresses, run func(string) []byte, id string) {
	t.Helper()
	_, page, _ := strings.Cut(read(t, "services/audit/README.md"), "```sh\n")
	command, _, _ := strings.Cut(page, "```")
	// The two are asked for one after the other: the trail may have grown meanwhile.
	hashes := strings.Fields(string(run("ID=" + id + "\n" + command)))
	var trail struct {
		Events []struct {
			Leaf string
			Hash string `json:"leaf_hash"`
		}
	}
	get(t, a.HTTP+"/v1/requests/"+id+"/events", &trail)
	n := len(hashes) / 2 // sha256sum writes a hyphen behind each
	if n < 4 || n > len(trail.Events) {
		t.Fatalf("%d hashes of %d leaves", n, len(trail.Events))
	}
	for i := range n {
		var leaf struct{ Prev string }
		if err := json.Unmarshal([]byte(trail.Events[i].Leaf), &leaf); err != nil {
			t.Fatal(err)
		}
		if hashes[2*i] != trail.Events[i].Hash || i > 0 && leaf.Prev != hashes[2*(i-1)] {
			t.Errorf("leaf %d: by hand %s, told %s; it follows %s", i+1, hashes[2*i], trail.Events[i].Hash, leaf.Prev)
		}
	}
}

func get(t *testing.T, url string, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s answered %d, %v", url, resp.StatusCode, err)
	}
}

// TestExample holds the two forms of the example together.
func TestExample(t *testing.T) {
	t.Parallel()
	var request struct {
		Documents []struct{ Content []byte }
	}
	if err := json.Unmarshal([]byte(read(t, "docs/examples/request.json")), &request); err != nil {
		t.Fatal(err)
	}
	if len(request.Documents) != 1 || string(request.Documents[0].Content) != read(t, "docs/examples/offer.pdf") {
		t.Error("the document in request.json is not offer.pdf")
	}
}
