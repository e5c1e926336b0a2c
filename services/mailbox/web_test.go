package mailbox_test

import (
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestPages(t *testing.T) {
	b := start(t, t.TempDir())
	var page string
	if b.get("/", &page); !strings.Contains(page, "No mail yet") || !strings.Contains(page, b.SMTP) || !strings.Contains(page, `http-equiv="refresh"`) {
		t.Errorf("empty mailbox: %s", page)
	}
	if err := b.send("sign@acme.test", []string{"jane@signer.test"}, rich); err != nil {
		t.Fatal(err)
	}
	if err := b.send("sign@acme.test", []string{"jane@signer.test"}, plain("jane@signer.test", "<b>\"x\"</b>", "<script>alert(1)</script>")); err != nil {
		t.Fatal(err)
	}
	all := b.Messages()
	for path, want := range map[string][]string{
		"/":                                      {"Acme München", "Kündigung", "2 mails, ", "&lt;b&gt;"},
		"/?find=":                                {`type="search"`, "2 mails, "},
		"/?query=nothing":                        {"Nothing found"},
		"/view/" + all[1].ID:                     {"Kündigung.pdf", `sandbox="allow-popups allow-popups-to-escape-sandbox"`, "/html"},
		"/view/" + all[1].ID + "?as=text":        {"Grüße"},
		"/view/" + all[1].ID + "?as=headers":     {"Message-ID", "dlv_1@acme.test"},
		"/view/" + all[1].ID + "?as=source":      {"boundary=m"},
		"/view/" + all[1].ID + "?as=phone":       {`class="phone"`},
		"/view/" + all[0].ID:                     {"&lt;script&gt;"},
		"/view/" + strings.Repeat("0", 20):       {"This mail is gone"},
		"/chaos":                                 {"Chaos", `value="451"`},
		"/style.css":                             {"--brand"},
		"/view/" + all[1].ID + "/html":           {`<base target="_blank">`, "/part/3", "<p>Hallo"},
		"/api/v1/message/" + all[1].ID + "/raw":  {"Delivered-To: jane@signer.test"},
		"/view/latest?as=bogus":                  {"<pre>"},
		"/api/v1/message/latest/headers":         {"Return-Path"},
		"/api/v1/message/" + all[1].ID + "/raw?": {"Return-Path: <sign@acme.test>"},
	} {
		r := b.get(path, &page)
		for _, text := range want {
			if !strings.Contains(page, text) {
				t.Errorf("%s: no %q in\n%s", path, text, page)
			}
		}
		csp := r.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "script-src") || r.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: policy %q", path, csp)
		}
		if strings.HasSuffix(path, "/html") != strings.HasPrefix(csp, "sandbox") {
			t.Errorf("%s: policy %q: the mail's own HTML, and only that, is sandboxed", path, csp)
		}
	}
}

func TestForms(t *testing.T) {
	b := start(t, t.TempDir())
	for _, subject := range []string{"one", "two", "three"} {
		if err := b.send("sign@acme.test", []string{"jane@signer.test"}, plain("jane@signer.test", subject, "x")); err != nil {
			t.Fatal(err)
		}
	}
	form := []string{"Content-Type", "application/x-www-form-urlencoded", "Origin", b.Web}
	foreign := []string{"Content-Type", "application/x-www-form-urlencoded", "Origin", "https://evil.test", "Sec-Fetch-Site", "cross-site"}
	if code, _ := b.do("POST", "/delete", "", foreign...); code != 403 || len(b.Messages()) != 3 {
		t.Errorf("another site's form: %d", code)
	}
	if code, _ := b.do("DELETE", "/api/v1/messages", "", foreign...); code != 403 || len(b.Messages()) != 3 {
		t.Errorf("another site's call: %d", code)
	}
	if code, _ := b.do("GET", "/", "", "Host", "rebound.evil.test"); code != 421 {
		t.Errorf("another host's name: %d", code)
	}
	if code, _ := b.do("GET", "/", "", "Host", "mail.localhost:8025"); code != 200 {
		t.Errorf("a name of this machine: %d", code)
	}
	if b.do("POST", "/view/"+b.Messages()[1].ID+"/delete", "", form...); len(b.Messages()) != 2 || b.Messages()[1].Subject != "one" {
		t.Errorf("delete one: %d left", len(b.Messages()))
	}
	values := url.Values{}
	for _, name := range []string{"sender", "recipient", "authentication"} {
		values.Set(name+"-code", "450")
		values.Set(name+"-probability", "25")
	}
	b.do("POST", "/chaos", values.Encode(), form...)
	if got := b.Chaos(); got.Recipient.ErrorCode != 450 || got.Recipient.Probability != 25 {
		t.Errorf("chaos %+v", got)
	}
	values.Set("sender-code", "200")
	if code, text := b.do("POST", "/chaos", values.Encode(), form...); code != 422 || !strings.Contains(text, "Not changed") {
		t.Errorf("wrong code: %d", code)
	}
	if b.do("POST", "/delete", "", form...); len(b.Messages()) != 0 {
		t.Errorf("delete all: %d left", len(b.Messages()))
	}
}

// TestLooks takes pictures of the pages for a person to look at: COUNTERSIGN_PICTURES=dir go test -run TestLooks.
func TestLooks(t *testing.T) {
	dir := os.Getenv("COUNTERSIGN_PICTURES")
	if dir == "" {
		t.Skip("COUNTERSIGN_PICTURES names no folder for pictures")
	}
	b := start(t, t.TempDir())
	for _, raw := range []string{
		rich,
		strings.ReplaceAll(plain("hr@example.test", "Jane signed the offer letter", "The offer letter is signed by all."), "sign@acme.test", "Nordwind GmbH <sign@nordwind.test>"),
		strings.ReplaceAll(plain("jane@signer.test", "Your code", "Your code is 482913. It is valid for ten minutes."), "sign@acme.test", "Lighthouse Rentals <no-reply@lighthouse.test>"),
	} {
		if err := b.send("sign@acme.test", []string{"jane@signer.test"}, raw); err != nil {
			t.Fatal(err)
		}
	}
	oldest := b.Messages()[2].ID
	if _, err := b.Message(oldest); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"list": "/", "mail": "/view/" + oldest, "chaos": "/chaos"} {
		for _, width := range []string{"390", "1100"} {
			picture := filepath.Join(dir, "mailbox-"+name+"-"+width+".png")
			cmd := exec.CommandContext(t.Context(), "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1",
				"--window-size="+width+",1000", "--screenshot="+picture, b.Web+path)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
}
