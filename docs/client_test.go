package docs

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"countersign.dev/services/countersign/signer"
)

// TestClients runs what the contract shows of links: its calls by grpcurl, in their order, and the program in Go.
func TestClients(t *testing.T) {
	t.Parallel()
	var calls []string
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(read(t, "docs/contract.md"), -1) {
		if strings.Contains(m[1], "grpcurl") {
			calls = append(calls, m[1])
		}
	}
	if len(calls) != 3 {
		t.Fatalf("the contract shows %d calls by grpcurl", len(calls))
	}
	a := start(t)
	run := shell(t, a)
	run(commands(t, "README.md", "The first event, three ways")[2])
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// Once the mail is there the link is issued, and its message out.
	if _, err := signer.New("ada@example.com", a.Mailbox).Await(ctx, func(m signer.Mail) bool { return m.Link() != "" }, map[string]bool{}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{`"id": +"lnk_`, `"path": +"/s/cs1_`, `"type": +"LINK_EVENT_TYPE_ISSUED"`} {
		if out := run(calls[i]); !regexp.MustCompile(want).Match(out) {
			t.Errorf("%s\nanswered, without %s:\n%s", calls[i], want, out)
		}
	}
	first := runExample(ctx, t, a.GRPC)
	for _, want := range []string{`(?m)^letter/lnk_\S+/1: /s/cs1_\S+$`, `(?m)^minted lnk_\S+ generation 1$`} {
		if !regexp.MustCompile(want).MatchString(first) {
			t.Errorf("the program in Go printed\n%s\nwithout %s", first, want)
		}
	}
}

// runExample builds the program as a reader of the contract would, and runs it until something has happened.
func runExample(ctx context.Context, t *testing.T, server string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "links")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", program, "./examples/links").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, program, "-server", server, "-events", "1").CombinedOutput()
	if err != nil {
		t.Fatalf("run: %v\n%s", err, out)
	}
	return string(out)
}
