package smtp_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"countersign.dev/services/delivery/channel"
	"countersign.dev/services/delivery/channel/channeltest"
)

const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
myhostname = mx.countersign.test
mydestination = mx.countersign.test, signer.test
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access inline:{ {full@signer.test = 552 5.2.2 Mailbox full} {later@signer.test = 450 4.7.1 Greylisted, try again in 300 seconds} }
local_recipient_maps =
alias_maps =
alias_database =
transport_maps = inline:{ {bounces.test = smtp:[127.0.0.1]:%[2]d} }
relay_domains = bounces.test
default_transport = error:5.4.4 no route in this test
disable_dns_lookups = yes
message_size_limit = 60000
minimal_backoff_time = 2s
maximal_backoff_time = 4s
queue_run_delay = 2s
maillog_file = /dev/stdout
`

// startPostfix runs a real Postfix on loopback that bounces to the sink, and returns its address. It needs root.
func startPostfix(t *testing.T, sink string) string {
	t.Helper()
	if _, err := exec.LookPath("postfix"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("COUNTERSIGN_REQUIRE_TOOLS") != "" {
			t.Fatal("postfix, run as root, is required")
		}
		t.Skip("postfix is not installed, or we are not root")
	}
	// Postfix gives its privileges away, so its folder must be one that others can enter: t.TempDir's is not, nor is a private TMPDIR.
	dir, err := os.MkdirTemp("/tmp", "postfix") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	run := func(name string, args ...string) string {
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		t.Fatal(err)
	}
	master, err := os.ReadFile(filepath.Join(run("postconf", "-d", "-h", "config_directory"), "master.cf"))
	if err != nil {
		t.Fatal(err)
	}
	_, sinkPort, _ := net.SplitHostPort(sink)
	sinkNumber, err := strconv.Atoi(sinkPort)
	if err != nil {
		t.Fatal(err)
	}
	etc := filepath.Join(dir, "etc")
	err = errors.Join(
		os.Chmod(dir, 0o755), os.Mkdir(etc, 0o755), os.Mkdir(filepath.Join(dir, "spool"), 0o755), os.Mkdir(filepath.Join(dir, "data"), 0o755),
		os.Chown(filepath.Join(dir, "data"), uid, -1),
		os.WriteFile(filepath.Join(etc, "master.cf"), master, 0o644),
		os.WriteFile(filepath.Join(etc, "main.cf"), fmt.Appendf(nil, postfixMain, dir, sinkNumber), 0o644),
	)
	if err != nil {
		t.Fatal(err)
	}
	address := freePort(t)
	run("postconf", "-c", etc, "-F", "*/*/chroot = n")
	run("postconf", "-c", etc, "-MX", "smtp/inet")
	run("postconf", "-c", etc, "-M", address+"/inet="+address+" inet n - n - - smtpd")
	var log strings.Builder
	cmd := exec.CommandContext(context.Background(), "postfix", "-c", etc, "start-fg")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.CommandContext(context.Background(), "postfix", "-c", etc, "abort").Run()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	wait(t, "postfix greets", func() bool {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
	return address
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// wait polls until done, for at most 20 s.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(50*time.Millisecond), time.NewTimer(20*time.Second)
	defer tick.Stop()
	defer limit.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("still waiting: %s", what)
		}
	}
}

func TestPostfix(t *testing.T) {
	t.Parallel()
	sink := startRelay(t)
	sender := newSender(t, startPostfix(t, sink.Addr))
	message := func(n int, to string) channel.Message {
		m := channeltest.Message(n)
		m.To = channel.Address{Name: "Jane Roe", Email: to}
		m.ReturnPath = "ret+dlv1@bounces.test"
		m.HTML = "<p>Grüße</p>"
		return m
	}
	for name, tt := range map[string]struct {
		to        string
		temporary bool
		enhanced  string
		scope     channel.Scope
		wait      time.Duration
	}{
		"full":       {"full@signer.test", false, "5.2.2", channel.ScopeRecipient, 0},
		"greylisted": {"later@signer.test", true, "4.7.1", channel.ScopeProvider, 5 * time.Minute},
		"not ours":   {"someone@elsewhere.test", false, "5.7.1", channel.ScopeProvider, 0},
	} {
		_, err := sender.Send(t.Context(), message(1, tt.to))
		var f *channel.Failure
		if !errors.As(err, &f) || f.Temporary != tt.temporary || f.Enhanced != tt.enhanced || f.Scope != tt.scope || f.RetryAfter != tt.wait {
			t.Errorf("%s: %v, want %+v", name, err, tt)
		} else if strings.Contains(f.Diagnostic, "@") {
			t.Errorf("%s: address in %q", name, f.Diagnostic)
		}
	}
	big := message(2, "no-such-signer@signer.test")
	big.Attached = []channel.Attachment{{Name: "big.pdf", ContentType: "application/pdf", Content: make([]byte, 100_000)}}
	var f *channel.Failure
	if _, err := sender.Send(t.Context(), big); !errors.As(err, &f) || f.Temporary || f.Scope != channel.ScopeMessage {
		t.Errorf("too large: %v, want a permanent failure of the message", err)
	}

	receipt, err := sender.Send(t.Context(), message(3, "no-such-signer@signer.test"))
	if err != nil {
		t.Fatal(err)
	}
	if receipt.QueueID == "" {
		t.Errorf("no queue id in %q", receipt.Response)
	}
	wait(t, "the bounce", func() bool { return len(sink.envelopes()) > 0 })
	bounce := sink.envelopes()[0]
	for _, want := range []string{"Status: 5.1.1", "Action: failed", "<dlv_suite.3@acme.test>", "Auto-Submitted: auto-generated"} {
		if !strings.Contains(string(bounce.Raw), want) {
			t.Errorf("the bounce lacks %q:\n%s", want, bounce.Raw)
		}
	}
	if bounce.From != "" || bounce.To != "ret+dlv1@bounces.test" {
		t.Errorf("bounce from %q to %q", bounce.From, bounce.To)
	}
}
