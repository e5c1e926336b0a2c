package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp" // drives a real browser over its own protocol
	"github.com/chromedp/chromedp/device"

	"countersign.dev/services/countersign/signer"
)

// phone is a Chromium that pretends to be a phone.
type phone struct {
	t   *testing.T
	ctx context.Context
}

func newPhone(t *testing.T, scripts bool) *phone {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("COUNTERSIGN_REQUIRE_TOOLS") != "" {
			t.Fatal("chromium is not installed (scripts/install-test-tools installs it)")
		}
		t.Skip("chromium is not installed")
	}
	deadline := within(t, 3*time.Minute)
	alloc, stop := chromedp.NewExecAllocator(deadline, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.UserDataDir(t.TempDir()))...)
	t.Cleanup(stop)
	ctx, end := chromedp.NewContext(alloc)
	t.Cleanup(end)
	p := &phone{t: t, ctx: ctx}
	p.do(chromedp.Emulate(device.IPhone13))
	if !scripts {
		if _, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *phone) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.picture("failed")
		p.t.Fatal(err)
	}
}

// sees waits for a part of the page and returns the page's heading.
func (p *phone) sees(selector string) string {
	p.t.Helper()
	p.do(chromedp.WaitVisible(chromedp.CSS(selector)))
	heading, err := chromedp.Run(p.ctx, chromedp.Text(chromedp.CSS("h1")))
	if err != nil {
		p.t.Fatal(err)
	}
	return heading
}

// presses clicks a button; the page that follows is waited for by what it shows.
func (p *phone) presses(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

func (p *phone) types(selector, text string) {
	p.t.Helper()
	p.do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

// seesPictures looks at every page of the document until its picture is there: they load as the reader comes to them.
func (p *phone) seesPictures() {
	p.t.Helper()
	if _, err := chromedp.Run(p.ctx, chromedp.Poll[bool](`(() => {
		const pages = [...document.querySelectorAll("ol.sheets img")];
		const waiting = pages.find(i => !i.complete || i.naturalWidth === 0);
		if (waiting) waiting.scrollIntoView();
		return pages.length > 0 && !waiting;
	})()`)); err != nil {
		p.picture("failed")
		p.t.Fatalf("the pictures of the pages do not load: %v", err)
	}
}

// picture keeps a screenshot where COUNTERSIGN_PICTURES names a directory, for people to look at.
func (p *phone) picture(name string) {
	dir := os.Getenv("COUNTERSIGN_PICTURES")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(90))
	if err != nil {
		return
	}
	name = strings.ReplaceAll(p.t.Name(), "/", "-") + "-" + name + ".jpg"
	if err := os.WriteFile(filepath.Join(dir, name), png, 0o600); err != nil {
		p.t.Error(err)
	}
}

const browserSettings = `
-- profiles.yaml --
profiles:
  blink:
    lifetime: 2s
    grace: 10m
    session: 10m
    idle: 10m
    reissue_limit: 5
    reissue_window: 1h
    assurance: 1
`

// TestPhone has people sign on a phone, with and without script, over a link that is good and over one that has expired.
func TestPhone(t *testing.T) {
	in := newInstance(t, browserSettings)
	in.start("")
	for name, tt := range map[string]struct {
		profile string
		scripts bool
	}{
		"a good link":                    {"standard", true},
		"a good link without script":     {"standard", false},
		"an expired link":                {"blink", true},
		"an expired link without script": {"blink", false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := within(t, 2*time.Minute)
			email := strings.ReplaceAll(name, " ", ".") + "@example.com"
			v, err := in.create(ctx, request(name, tt.profile, email))
			if err != nil {
				t.Fatal(err)
			}
			person, seen := signer.New(email, in.Addresses.Mailbox), map[string]bool{}
			mail, err := person.Await(ctx, func(m signer.Mail) bool { return m.Link() != "" }, seen)
			if err != nil {
				t.Fatal(err)
			}
			p := newPhone(t, tt.scripts)
			if tt.profile == "blink" {
				awaitGone(t, ctx, person, mail.Link())
			}
			p.do(chromedp.Navigate(mail.Link()))
			p.sees("form button.primary")
			p.picture("1-link")
			p.presses("form button.primary")
			p.sees("input[name=code]")
			p.picture("2-code")
			code, err := person.Await(ctx, func(m signer.Mail) bool { return m.Code() != "" }, seen)
			if err != nil {
				t.Fatal(err)
			}
			p.types("input[name=code]", code.Code())
			p.presses("form button.primary")
			p.sees("input[name=name]")
			if tt.scripts {
				p.seesPictures()
			}
			p.presses("label[for=agreed]")
			p.types("input[name=name]", "Testperson Nr1")
			p.picture("3-document")
			p.presses("form.consent button.primary")
			p.sees("main h1")
			in.completed(t, ctx, v.ID)
			p.do(chromedp.Navigate(mail.Link()))
			p.sees("main h1")
			p.picture("4-afterwards")
			in.oracle(t).completedOnce(ctx, v.ID, email, 1)
		})
	}
	in.stop()
}

// awaitGone looks at a link until it has expired; looking changes nothing.
func awaitGone(t *testing.T, ctx context.Context, person *signer.Signer, link string) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		page, err := person.Open(ctx, link)
		if err != nil {
			t.Fatal(err)
		}
		if page.Status == http.StatusGone {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the link did not expire")
		}
	}
}
