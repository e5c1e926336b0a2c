package gateway_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/failure/words"
)

// expire ends the link of a world that nobody has opened.
func (w *world) expire() {
	w.peers.set(func() { w.peers.linkCode, w.peers.sessionCode = failure.LinkExpired.Code, failure.LinkExpired.Code })
	w.clock.Advance(80 * time.Hour)
}

func TestAnExpiredLinkIsRenewedInPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.expire()
	b := w.browser()
	page := b.get(openPath)
	w.wantTitle(page, failure.LinkExpired.HTTP, words.For("LINK_EXPIRED", "en").Title)
	if len(page.Cookies()) != 0 || w.peers.changes() != 0 {
		t.Error("looking at an expired link does something")
	}
	asked := b.submit(page, goOnPath) // the one click
	if asked.Header.Get("Location") != goOnPath || w.peers.count("StartChallenge") != 1 {
		t.Fatalf("the click: %d to %q", asked.StatusCode, asked.Header.Get("Location"))
	}
	page = b.follow(asked)
	w.wantTitle(page, http.StatusOK, "Enter your code")
	if again := b.get(goOnPath); again.title() != "Enter your code" || w.peers.count("StartChallenge") != 1 {
		t.Error("a reload asks for another code")
	}
	page = b.submit(page, goOnPath+"/code", "code", "1")
	if page.StatusCode != failure.CodeWrong.HTTP || w.peers.count("Continue") != 0 {
		t.Fatalf("a wrong code: %d", page.StatusCode)
	}
	done := b.submit(page, goOnPath+"/code", "code", rightCode)
	if done.Header.Get("Location") != signPath || w.peers.count("Continue") != 1 {
		t.Fatalf("the right code: %d to %q", done.StatusCode, done.Header.Get("Location"))
	}
	w.wantTitle(b.follow(done), http.StatusOK, "Offer letter") // the same proof serves for the document
	if w.peers.count("StartChallenge") != 1 {
		t.Error("a second code was asked for")
	}
	// The old token opens nothing any more but the way back to the session, here.
	w.wantTitle(w.browser().get(openPath), failure.LinkSuperseded.HTTP, words.For("LINK_SUPERSEDED", "en").Title)
	if back := b.get(openPath); back.Header.Get("Location") != signPath {
		t.Errorf("the old mail, in this browser: %d %q", back.StatusCode, back.title())
	}
	if back := b.get(goOnPath); back.Header.Get("Location") != signPath {
		t.Errorf("the back button: %d %q", back.StatusCode, back.title())
	}
}

func TestAnotherBrowserVerifiesAfresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, _ := w.proved()
	second := w.browser()
	page := second.get(openPath)
	w.wantTitle(page, failure.LinkUsed.HTTP, words.For("LINK_USED", "en").Title)
	page = second.follow(second.submit(page, goOnPath))
	if !page.shows("goes on in this browser") {
		t.Errorf("the page does not say what for:\n%s", page.body)
	}
	page = second.follow(second.submit(page, goOnPath+"/code", "code", rightCode))
	w.wantTitle(page, http.StatusOK, "Offer letter")
	// The first one is out, is told so, and may come back the same way.
	out := first.get(signPath)
	w.wantTitle(out, failure.LinkUsed.HTTP, words.For("LINK_USED", "en").Title)
	if got := first.get(signPath + "/document.pdf"); got.Header.Get("Location") != signPath {
		t.Errorf("the first browser still gets the document: %d", got.StatusCode)
	}
	back := first.follow(first.submit(out, goOnPath))
	w.wantTitle(back, http.StatusOK, "Enter your code")
}

func TestASessionThatEndedGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, page := w.proved()
	w.peers.set(func() { w.peers.sessionCode = failure.SessionExpired.Code })
	if got := b.submit(page, signPath+"/sign", "agree", "yes", "name", "Ada"); got.Header.Get("Location") != signPath || w.peers.count("Sign") != 0 {
		t.Fatalf("signing after the end: %d", got.StatusCode)
	}
	page = b.get(signPath)
	w.wantTitle(page, failure.SessionExpired.HTTP, words.For("SESSION_EXPIRED", "en").Title)
	page = b.follow(b.submit(page, goOnPath))
	w.wantTitle(b.follow(b.submit(page, goOnPath+"/code", "code", rightCode)), http.StatusOK, "Offer letter")
}

func TestGoingOnIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		continueErr error
		want        *failure.Error
	}{
		"too many new links":    {failure.ReissueLimit.After(3 * time.Hour), failure.ReissueLimit},
		"withdrawn meanwhile":   {failure.LinkRevoked, failure.LinkRevoked},
		"delegated meanwhile":   {failure.LinkDelegated, failure.LinkDelegated},
		"a signature under way": {failure.LinkBusy.After(time.Minute), failure.LinkBusy},
		"the record is away":    {failure.Unavailable, failure.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.expire()
			b := w.browser()
			page := b.follow(b.submit(b.get(openPath), goOnPath))
			w.peers.set(func() { w.peers.continueErr = tt.continueErr })
			got := b.submit(page, goOnPath+"/code", "code", rightCode)
			w.wantTitle(got, tt.want.HTTP, words.For(tt.want.Code, "en").Title)
			if _, ok := got.form(goOnPath); ok {
				t.Error("the page offers what was just refused")
			}
			if !tt.want.Retryable {
				return
			}
			// Nothing is lost: one press goes on, without another code.
			if !got.shows(`href="` + goOnPath + `"`) {
				t.Fatalf("no way to try again:\n%s", got.body)
			}
			w.peers.set(func() { w.peers.continueErr = nil })
			if done := b.submit(b.get(goOnPath), goOnPath); done.Header.Get("Location") != signPath {
				t.Errorf("trying again: %d %q", done.StatusCode, done.title())
			}
			if w.peers.count("StartChallenge") != 1 {
				t.Error("another code was sent")
			}
		})
	}
}

func TestACodeCannotBeHadAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.expire()
	w.peers.set(func() { w.peers.startErr = failure.CodeTooSoon.After(25 * time.Second) })
	b := w.browser()
	got := b.submit(b.get(openPath), goOnPath)
	if got.StatusCode != failure.CodeTooSoon.HTTP || !got.shows(words.For("CODE_TOO_SOON", "en").Title) {
		t.Fatalf("got %d\n%s", got.StatusCode, got.body)
	}
	w.peers.set(func() { w.peers.startErr = nil })
	w.wantTitle(b.follow(b.submit(got, goOnPath+"/resend")), http.StatusOK, "Enter your code")
}

// The sender had a new link sent; whoever had the old one may go on with a code as well.
func TestASupersededLinkThatNobodyOpened(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.peers.set(func() { w.peers.linkCode = failure.LinkSuperseded.Code })
	b := w.browser()
	page := b.follow(b.submit(b.get(openPath), goOnPath))
	w.wantTitle(page, http.StatusOK, "Enter your code")
	w.wantTitle(b.get(signPath), failure.LinkSuperseded.HTTP, words.For("LINK_SUPERSEDED", "en").Title)
	w.wantTitle(b.follow(b.submit(page, goOnPath+"/code", "code", rightCode)), http.StatusOK, "Offer letter")
}

// What came in by a form of ours, from nobody who was shown one, changes nothing (security.md 2.5).
func TestFormsThatAreNotOurs(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		path   string
		expire bool
	}{
		"redeem":          {openPath, false},
		"code":            {signPath + "/code", false},
		"resend":          {signPath + "/resend", false},
		"sign":            {signPath + "/sign", false},
		"decline":         {signPath + "/decline", false},
		"continue":        {goOnPath, true},
		"continue code":   {goOnPath + "/code", true},
		"continue resend": {goOnPath + "/resend", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			other, otherPage := w.proved() // somebody else's browser, with a session of its own before
			_ = other
			foreign, _ := otherPage.form(signPath + "/sign")
			w.peers.set(func() { w.peers.session = "" })
			var b *browser
			switch {
			case tt.expire:
				w.expire()
				b = w.browser()
				b.follow(b.submit(b.get(openPath), goOnPath))
			case tt.path == openPath:
				b = w.browser()
			default:
				b, _ = w.proved()
			}
			before := w.peers.changes()
			for how, nonce := range map[string]string{"none": "", "made up": "AAAAAAAAAAAAAAAAAAAAAA", "as long as a loose one": strings.Repeat("A", 43), "another browser's": foreign.Get("nonce"), "no base64": "%%"} {
				form := url.Values{"nonce": {nonce}, "code": {rightCode}, "agree": {"yes"}, "name": {"Ada"}, "email": {"eve@example.com"}}
				got := b.do(http.MethodPost, tt.path, form)
				if got.StatusCode != http.StatusForbidden || !got.shows(words.For("FORM_STALE", "en").Title) {
					t.Errorf("%s: %d %q", how, got.StatusCode, got.title())
				}
			}
			if w.peers.changes() != before {
				t.Errorf("something was changed: %v", w.peers.calls)
			}
		})
	}
}

func TestALooseFormEndsAfterADay(t *testing.T) {
	t.Parallel()
	for life, want := range map[time.Duration]int{11 * time.Hour: http.StatusSeeOther, 25 * time.Hour: http.StatusForbidden} {
		w := newWorld(t)
		b := w.browser()
		page := b.get(openPath)
		w.clock.Advance(life)
		if got := b.submit(page, openPath); got.StatusCode != want {
			t.Errorf("after %v: %d, want %d", life, got.StatusCode, want)
		}
	}
}

// A form that is sent twice, by a double tap or over a poor line, is one browser.
func TestADoubleTapIsOneBrowser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	page := w.browser().get(openPath)
	form, _ := page.form(openPath)
	third := w.browser()
	otherPage := third.get(openPath)
	var secrets []string
	for range 2 {
		b := w.browser() // the cookie of the first answer has not arrived
		got := b.do(http.MethodPost, openPath, form)
		if got.StatusCode != http.StatusSeeOther {
			t.Fatalf("got %d %q", got.StatusCode, got.title())
		}
		secrets = append(secrets, b.cookies()["cs"])
	}
	if len(secrets[0]) != 43 || secrets[0] != secrets[1] {
		t.Error("two taps were two browsers")
	}
	w.wantTitle(third.submit(otherPage, openPath), failure.LinkUsed.HTTP, words.For("LINK_USED", "en").Title)
	if third.cookies()["cs"] != "" || w.peers.session != secrets[0] {
		t.Error("another page's form is the same browser")
	}
}

// Whoever has not shown a token learns nothing about a link, not even that there is one (security.md 2.6, T12).
func TestStrangersLearnNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.proved()
	paths := []string{"", "/document.pdf", "/certificate.pdf", "/pages/" + documentID + "/1.720", "/read/" + documentID + "/1"}
	for _, code := range []string{"", "LINK_SIGNED", "LINK_EXPIRED", "LINK_REVOKED", "LINK_CANCELLED", "SESSION_EXPIRED"} {
		w.peers.set(func() { w.peers.sessionCode = code })
		for _, cookie := range []string{"", "cs=" + strings.Repeat("A", 43), "cs=" + strings.Repeat("A", 43) + "; cs-links=" + strings.Repeat("A", 64), "cs=x"} {
			b := w.browser()
			if cookie != "" {
				b.header.Set("Cookie", cookie)
			}
			for _, path := range paths {
				ours, nobodys := b.get(signPath+path), b.get("/sign/demo/lnk_AAAAAAAAAAAAAAAAAAAAAA"+path)
				if ours.StatusCode != http.StatusUnauthorized || ours.body != nobodys.body || ours.StatusCode != nobodys.StatusCode {
					t.Errorf("%s%s with %q: %d %q, a link that is not there: %d %q", code, path, cookie, ours.StatusCode, ours.title(), nobodys.StatusCode, nobodys.title())
				}
			}
			if got := b.get(goOnPath); got.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: /continue with %q: %d", code, cookie, got.StatusCode)
			}
			if got := b.do(http.MethodPost, goOnPath, url.Values{"nonce": {strings.Repeat("A", 43)}}); got.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s: POST /continue with %q: %d", code, cookie, got.StatusCode)
			}
		}
	}
}

// A former holder's browser knows nothing of who came instead.
func TestAFormerHolderIsAStranger(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, _ := w.proved()
	w.peers.set(func() {
		w.peers.session, w.peers.link.HolderId, w.peers.linkCode = "", "per_grace", failure.LinkDelegated.Code
	})
	for _, path := range []string{signPath, goOnPath} {
		if got := b.get(path); got.StatusCode != http.StatusUnauthorized || got.shows("@") {
			t.Errorf("%s: %d %q", path, got.StatusCode, got.title())
		}
	}
	page := b.get(openPath)
	w.wantTitle(page, failure.LinkDelegated.HTTP, words.For("LINK_DELEGATED", "en").Title)
	if page.shows("@example.com") {
		t.Error("the new holder is told")
	}
	// Not even where both use one browser, and the new holder's session is in it.
	w.peers.set(func() { w.peers.session = b.cookies()["cs"] })
	w.wantTitle(b.get(openPath), failure.LinkDelegated.HTTP, words.For("LINK_DELEGATED", "en").Title)
}
