package gateway_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/failure/words"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/gateway/pages"
)

// opened is a browser that has redeemed the link and sits in front of the code.
func (w *world) opened() (*browser, answer) {
	w.t.Helper()
	b := w.browser()
	page := b.submit(b.get(openPath), openPath)
	return b, b.follow(page)
}

// proved is one that has entered the code, and sees the document.
func (w *world) proved() (*browser, answer) {
	w.t.Helper()
	b, page := w.opened()
	return b, b.follow(b.submit(page, signPath+"/code", "code", rightCode))
}

func TestASignerGoesTheWholeWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.browser()

	page := b.get(openPath)
	w.wantTitle(page, http.StatusOK, "You have a document to sign")
	if !page.shows("Offer letter") || !page.shows(pages.MaskEmail("ada@example.com")) || page.shows("ada@example.com") || len(page.Cookies()) != 0 {
		t.Errorf("the page of a good link: cookies %v\n%s", page.Cookies(), page.body)
	}
	if w.peers.changes() != 0 {
		t.Error("looking at the link changed something")
	}

	redeemed := b.submit(page, openPath)
	if redeemed.Header.Get("Location") != signPath {
		t.Fatalf("redeemed: %d to %q", redeemed.StatusCode, redeemed.Header.Get("Location"))
	}
	page = b.follow(redeemed)
	w.wantTitle(page, http.StatusOK, "Enter your code")
	if w.peers.count("StartChallenge") != 1 {
		t.Error("the first code was not asked for with the redeem")
	}

	page = b.submit(page, signPath+"/code", "code", "000000")
	if page.StatusCode != failure.CodeWrong.HTTP || !page.shows("4 ") || w.peers.count("Answer") != 1 {
		t.Errorf("a wrong code: %d\n%s", page.StatusCode, page.body)
	}
	page = b.follow(b.submit(page, signPath+"/code", "code", rightCode))
	w.wantTitle(page, http.StatusOK, "Offer letter")
	if head := b.do(http.MethodHead, signPath, nil); head.StatusCode != http.StatusOK || head.body != "" {
		t.Errorf("HEAD: %d %q", head.StatusCode, head.body)
	}
	if w.peers.count("Show") != 1 || !page.shows("Words of page 2") {
		t.Errorf("the document was shown %d times:\n%s", w.peers.count("Show"), page.body)
	}

	image := b.get(signPath + "/pages/" + documentID + "/2.1080")
	if image.body != "picture "+documentID+" 2 1080" || image.Header.Get("Content-Type") != "image/png" || image.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("a page's picture: %d %q %v", image.StatusCode, image.body, image.Header)
	}
	file := b.get(signPath + "/document.pdf")
	if file.body != "%PDF-REVISION_CURRENT" || !strings.Contains(file.Header.Get("Content-Disposition"), "attachment") {
		t.Errorf("the PDF: %d %q %v", file.StatusCode, file.body, file.Header)
	}

	page = b.follow(b.submit(page, signPath+"/sign", "agree", "yes", "name", "A. King, née Byron"))
	w.wantTitle(page, http.StatusOK, "Thank you, you have signed")
	if !page.shows("A. King, née Byron") || page.shows("certificate.pdf") {
		t.Errorf("after the signature:\n%s", page.body)
	}
	signed := w.peers.signed
	disclosure, intent := pages.Disclosure("en"), pages.Intent("en")
	if signed.GetName() != "A. King, née Byron" || signed.GetConsent().GetLocale() != "en" || signed.GetConsent().GetVersion() != disclosure.Version ||
		len(signed.GetConsent().GetTextSha256()) != 32 || len(signed.GetIntentSha256()) != 32 || intent.SHA256 == "" ||
		signed.GetNetworkAddress() != "127.0.0.1" || signed.GetUserAgent() != "Telltale/1.0" || string(signed.GetPresentedSha256()) != string(w.peers.ceremony.GetDocuments()[0].GetPresentedSha256()) {
		t.Errorf("ceremony was asked for %v", signed)
	}

	// A browser that knows the link as well, and has no session.
	second := w.browser()
	second.submit(second.get(openPath), goOnPath)

	// Token hears of it a moment later, and then everybody has signed.
	w.peers.set(func() {
		w.peers.sessionCode, w.peers.linkCode = failure.LinkSigned.Code, failure.LinkSigned.Code
		w.peers.request.Request.Status = signingv1.RequestStatus_REQUEST_STATUS_COMPLETED
		w.peers.request.Request.Seats = []*tokenv1.Seat{{LinkId: linkID, Status: tokenv1.SeatStatus_SEAT_STATUS_SIGNED}}
	})
	page = b.follow(b.get(openPath)) // the link in the mail leads back
	w.wantTitle(page, http.StatusOK, "Thank you, you have signed")
	if copied := b.get(signPath + "/document.pdf"); copied.body != "%PDF-REVISION_CURRENT" {
		t.Errorf("the signed copy: %d %q", copied.StatusCode, copied.body)
	}
	if proof := b.get(signPath + "/certificate.pdf"); proof.body != "%PDF-certificate" || proof.Header.Get("Content-Type") != "application/pdf" {
		t.Errorf("the certificate: %d %q", proof.StatusCode, proof.body)
	}
	w.peers.set(func() { w.peers.certificate = nil })
	if proof := b.get(signPath + "/certificate.pdf"); proof.StatusCode != failure.CertificateNotYet.HTTP || !proof.shows(`href="`+signPath+`"`) {
		t.Errorf("a certificate that is not there yet: %d\n%s", proof.StatusCode, proof.body)
	}

	// The second browser is told how things stand, and gets neither; one that never had the link is told nothing.
	for path, status := range map[string]int{signPath: failure.LinkSigned.HTTP, signPath + "/document.pdf": http.StatusSeeOther, signPath + "/certificate.pdf": http.StatusSeeOther} {
		if a := second.get(path); a.StatusCode != status || strings.Contains(a.body, "%PDF") || a.shows("née Byron") {
			t.Errorf("%s to a browser that knows the link: %d %q", path, a.StatusCode, a.title())
		}
	}
	stranger := w.browser()
	for _, path := range []string{signPath + "/document.pdf", signPath + "/certificate.pdf", signPath} {
		if a := stranger.get(path); a.StatusCode != http.StatusUnauthorized || strings.Contains(a.body, "%PDF") {
			t.Errorf("%s to a stranger: %d %q", path, a.StatusCode, a.body)
		}
	}
	w.wantTitle(stranger.get(openPath), failure.LinkSigned.HTTP, words.For("LINK_SIGNED", "en").Title)
}

// TestEveryStateHasItsPage holds spec 2.7, for looking and for pressing the button.
func TestEveryStateHasItsPage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		failure *failure.Error
		leads   string // where the one action posts to; "" is nowhere here
		told    bool   // whether sender and masked recipient are shown
	}{
		{failure.LinkExpired, goOnPath, true},
		{failure.LinkSuperseded, goOnPath, true},
		{failure.LinkUsed, goOnPath, true},
		{failure.SessionExpired, goOnPath, true},
		{failure.LinkRevoked, "", true},
		{failure.LinkDelegated, "", false},
		{failure.LinkSigned, "", true},
		{failure.LinkDeclined, "", true},
		{failure.LinkCancelled, "", true},
		{failure.LinkNotYet, "", true},
		{failure.LinkOnHold, "", true},
		{failure.LinkBusy, "", true},
	} {
		t.Run(tt.failure.Code, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b := w.browser()
			form := b.get(openPath)
			w.peers.set(func() {
				w.peers.linkCode, w.peers.redeemErr = tt.failure.Code, tt.failure
				w.peers.link.ExpiresAt, w.peers.link.GraceEndsAt = w.peers.link.GetSessionEndsAt(), w.peers.link.GetSessionEndsAt()
			})
			w.clock.Advance(2 * time.Hour)
			w.peers.calls = nil
			for how, page := range map[string]answer{"GET": b.get(openPath), "POST": b.submit(form, openPath)} {
				w.wantTitle(page, tt.failure.HTTP, words.For(tt.failure.Code, "en").Title)
				if tt.failure.Retryable && how == "POST" {
					continue // nothing is known of the link after that
				}
				if _, ok := page.form(goOnPath); ok != (tt.leads != "") {
					t.Errorf("%s: leads on: %v, want %q\n%s", how, ok, tt.leads, page.body)
				}
				if told := page.shows(pages.MaskEmail("ada@example.com")); told != tt.told {
					t.Errorf("%s: the recipient is told: %v\n%s", how, told, page.body)
				}
			}
			if w.peers.count("Continue", "StartChallenge", "Show") != 0 {
				t.Errorf("calls %v", w.peers.calls)
			}
		})
	}
}

func TestASoftExpiryIsSaidSoftly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.peers.set(func() { w.peers.linkCode = failure.LinkExpired.Code })
	page := w.browser().get(openPath)
	w.wantTitle(page, failure.LinkExpired.HTTP, "This link has just expired")
	if _, ok := page.form(goOnPath); !ok {
		t.Errorf("no way on:\n%s", page.body)
	}
}

func TestTheFormOfTheDocument(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		typed   []string
		signErr error
		want    *failure.Error
		calls   int
	}{
		"no consent":             {[]string{"name", "Ada"}, nil, failure.ConsentRequired, 0},
		"words of another page":  {[]string{"agree", "yes", "name", "Ada", "consent", strings.Repeat("0", 64)}, nil, failure.ConsentRequired, 0},
		"intent of another page": {[]string{"agree", "yes", "name", "Ada", "intent", strings.Repeat("0", 64)}, nil, failure.ConsentRequired, 0},
		"no name":                {[]string{"agree", "yes", "name", " \u202e "}, nil, failure.SignatureInvalid, 0},
		"a name too long":        {[]string{"agree", "yes", "name", strings.Repeat("ä", 201)}, nil, failure.SignatureInvalid, 0},
		"no document":            {[]string{"agree", "yes", "name", "Ada", "presented", "zz"}, nil, failure.FormStale, 0},
		"ceremony wants a name":  {[]string{"agree", "yes", "name", "4"}, failure.SignatureInvalid, failure.SignatureInvalid, 1},
		"a signature under way":  {[]string{"agree", "yes", "name", "Ada"}, failure.LinkBusy.After(90 * time.Second), failure.LinkBusy, 1},
		"withdrawn meanwhile":    {[]string{"agree", "yes", "name", "Ada"}, failure.LinkRevoked, failure.LinkRevoked, 1},
		"moved meanwhile":        {[]string{"agree", "yes", "name", "Ada"}, failure.LinkUsed, failure.LinkUsed, 1},
		"provider down":          {[]string{"agree", "yes", "name", "Ada"}, failure.ProviderDown, failure.ProviderDown, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b, page := w.proved()
			w.peers.set(func() { w.peers.signErr = tt.signErr })
			got := b.submit(page, signPath+"/sign", tt.typed...)
			if got.StatusCode != tt.want.HTTP || !got.shows(words.For(tt.want.Code, "en").Title) {
				t.Fatalf("got %d %q, want %s\n%s", got.StatusCode, got.title(), tt.want.Code, got.body)
			}
			if w.peers.count("Sign") != tt.calls || w.peers.signed != nil {
				t.Errorf("ceremony was asked %d times", w.peers.count("Sign"))
			}
			if inPlace := tt.want.Code == failure.ConsentRequired.Code || tt.want.Code == failure.SignatureInvalid.Code; inPlace {
				if form, ok := got.form(signPath + "/sign"); !ok || form.Get("nonce") == "" {
					t.Error("the form is not there any more")
				}
			}
		})
	}
}

func TestASignerDeclines(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, page := w.proved()
	page = b.follow(b.submit(page, signPath+"/decline", "reason", "Too \x00 dear.\r\n"+strings.Repeat("é", 600)))
	w.wantTitle(page, http.StatusOK, "You have declined to sign")
	if reason := w.peers.declined.GetReason(); !strings.HasPrefix(reason, "Too dear.\né") || len([]rune(reason)) > 500 {
		t.Errorf("the reason is %q", reason)
	}
	w.peers.set(func() { w.peers.sessionCode, w.peers.linkCode = failure.LinkDeclined.Code, failure.LinkDeclined.Code })
	w.wantTitle(b.follow(b.get(openPath)), http.StatusOK, "You have declined to sign")
}

func TestTheSignersLanguageAndZone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.peers.set(func() { w.peers.person.Locale = "de-AT" })
	b := w.browser() // which asks for English
	page := b.get(openPath)
	if page.Header.Get("Content-Language") != "de" || !page.shows("5. Dezember 2026, 13:00 Uhr (CET)") {
		t.Errorf("the language and zone on record are not kept:\n%s", page.body)
	}
	// Whoever chooses on the page knows better than the platform, and chooses once.
	chosen := b.get(openPath + "?lang=en")
	next := b.follow(b.submit(chosen, openPath))
	if chosen.Header.Get("Content-Language") != "en" || next.Header.Get("Content-Language") != "en" {
		t.Errorf("the chosen language is %q, then %q", chosen.Header.Get("Content-Language"), next.Header.Get("Content-Language"))
	}
	if odd := b.get(openPath + "?lang=%22%3E%3Cscript%3E"); odd.shows("<script>") || len(odd.Cookies()) != 0 {
		t.Errorf("a made-up language is kept: %v", odd.Cookies())
	}
}

func TestCodes(t *testing.T) {
	t.Parallel()
	soon := failure.CodeTooSoon.After(20 * time.Second)
	for name, tt := range map[string]struct {
		arrange func(p *peers)
		act     func(b *browser, page answer) answer
		status  int
		shows   string
		wait    string
	}{
		"asked for again too soon": {
			func(p *peers) { p.startErr = soon },
			func(b *browser, page answer) answer { return b.submit(page, signPath+"/resend") },
			http.StatusTooManyRequests, words.For("CODE_TOO_SOON", "en").Title, "20",
		},
		"asked for too often": {
			func(p *peers) { p.startErr = failure.CodeLimit.After(time.Hour) },
			func(b *browser, page answer) answer { return b.submit(page, signPath+"/resend") },
			http.StatusTooManyRequests, words.For("CODE_LIMIT", "en").Title, "3600",
		},
		"asked for again": {
			func(*peers) {},
			func(b *browser, page answer) answer { return b.follow(b.submit(page, signPath+"/resend")) },
			http.StatusOK, "Enter your code", "",
		},
		"locked": {
			func(p *peers) { p.lockedUntil = noon.Add(15 * time.Minute) },
			func(b *browser, _ answer) answer { return b.get(signPath) },
			http.StatusTooManyRequests, words.For("IDENTITY_LOCKED", "en").Title, "900",
		},
		"the last try was wrong": {
			func(p *peers) { p.triesLeft = 1 },
			func(b *browser, page answer) answer { return b.submit(page, signPath+"/code", "code", "1") },
			failure.CodeExpired.HTTP, words.For("CODE_EXPIRED", "en").Title, "",
		},
		"far too long": {
			func(*peers) {},
			func(b *browser, page answer) answer {
				return b.submit(page, signPath+"/code", "code", strings.Repeat("7", 500))
			},
			failure.CodeWrong.HTTP, words.For("CODE_WRONG", "en").Title, "",
		},
		"no way of verifying reaches the level": {
			func(p *peers) { p.noMethod = true },
			func(b *browser, _ answer) answer { return b.get(signPath) },
			failure.IdentityRequired.HTTP, words.For("IDENTITY_REQUIRED", "en").Title, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b, page := w.opened()
			w.peers.set(func() { tt.arrange(w.peers) })
			got := tt.act(b, page)
			if got.StatusCode != tt.status || !got.shows(tt.shows) || got.Header.Get("Retry-After") != tt.wait {
				t.Errorf("got %d, Retry-After %q, want %d %q\n%s", got.StatusCode, got.Header.Get("Retry-After"), tt.status, tt.wait, got.body)
			}
			if got := b.get(signPath + "/pages/" + documentID + "/1.720"); got.StatusCode != http.StatusForbidden {
				t.Errorf("a page was shown before the code: %d", got.StatusCode)
			}
			for _, path := range []string{"/document.pdf", "/certificate.pdf", "/read/" + documentID + "/1"} {
				if got := b.get(signPath + path); got.StatusCode != http.StatusSeeOther || got.Header.Get("Location") != signPath {
					t.Errorf("%s before the code: %d", path, got.StatusCode)
				}
			}
			if w.peers.count("GetPage", "GetDocument", "GetText", "Show") != 0 {
				t.Error("the document was touched before the code")
			}
		})
	}
}

func TestARightCodeSentTwicePassesOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, page := w.opened()
	for range 2 {
		if got := b.submit(page, signPath+"/code", "code", rightCode); got.StatusCode != http.StatusSeeOther {
			t.Fatalf("got %d", got.StatusCode)
		}
	}
	if w.peers.count("Answer") != 1 {
		t.Error("the second was judged too")
	}
}

func TestInGraceTheEndIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, _ := w.proved()
	w.peers.set(func() { w.peers.link.ExpiresAt = w.peers.link.GetSessionEndsAt() })
	w.clock.Set(noon.Add(time.Hour))
	if page := b.get(signPath); !page.shows("14:00 (CET)") {
		t.Errorf("grace is not told:\n%s", page.body)
	}
}

func TestALongDocumentFitsOnItsPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.peers.set(func() {
		d := w.peers.ceremony.GetDocuments()[0]
		for len(d.GetPages()) < 300 {
			d.Pages = append(d.Pages, &ceremonyv1.Page{Width: 200, Height: 900})
		}
	})
	b, page := w.proved()
	w.wantTitle(page, http.StatusOK, "Offer letter")
	if !page.shows(signPath+"/read/"+documentID+"/1") || page.shows("Words of page") {
		t.Error("a long document does not lead to its reading pages")
	}
	last := b.get(signPath + "/read/" + documentID + "/300")
	if last.StatusCode != http.StatusOK || !last.shows("Words of page 300") || !last.shows(`width="320" height="1440"`) {
		t.Errorf("the last page: %d\n%s", last.StatusCode, last.body)
	}
	for _, path := range []string{"/read/" + documentID + "/301", "/read/doc_none/1", "/read/" + documentID + "/01", "/pages/" + documentID + "/1.999", "/pages/x/1.720", "/pages/" + documentID + "/521.720"} {
		if got := b.get(signPath + path); got.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", path, got.StatusCode)
		}
	}
}

func TestAnErasedSigner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.peers.set(func() { w.peers.personErr = failure.PersonErased })
	w.wantTitle(w.browser().get(openPath), failure.PersonErased.HTTP, words.For("PERSON_ERASED", "en").Title)
}
