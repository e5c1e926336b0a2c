package gateway

import (
	"context"
	"net/http"
	"regexp"
	"time"

	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/secret"
	"countersign.dev/pkg/telemetry"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/gateway/pages"
)

// place is a link as it is named in paths. It opens nothing by itself.
type place struct{ tenant, link string }

func (p place) sign() string { return "/sign/" + p.tenant + "/" + p.link }
func (p place) goOn() string { return "/continue/" + p.tenant + "/" + p.link }

var (
	tenantForm   = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)
	linkForm     = regexp.MustCompile(`^lnk_[A-Za-z0-9_-]{1,60}$`)
	documentForm = regexp.MustCompile(`^doc_[A-Za-z0-9_-]{1,60}$`)
)

// placeOf reads the link that a path names.
func placeOf(r *http.Request) (place, bool) {
	p := place{r.PathValue("tenant"), r.PathValue("link")}
	return p, tenantForm.MatchString(p.tenant) && linkForm.MatchString(p.link)
}

// visit is one request by somebody about one link that we may talk about.
type visit struct {
	at      place
	browser secret.Secret // zero before the first POST
	link    *tokenv1.LinkView
	refusal *failure.Error    // why the session does not go on in this browser; nil = it does
	here    bool              // the session is, or was when the link came to its end, this browser's
	holder  *signingv1.Person // empty where it is not told, or erased
	frame   pages.Frame
}

// scope is what the form nonces of a visit's pages are for: one link in the hands of one holder.
func (v *visit) scope() string { return v.at.goOn() + "/" + v.link.GetHolderId() }

// sender is who asks for the signature.
func (v *visit) sender() string { return v.frame.Tenant.Name }

// newVisit is a visit of which nothing but token's answer is known.
func newVisit(link *tokenv1.LinkView, browser secret.Secret, refusal *failure.Error) *visit {
	return &visit{at: place{link.GetTenant(), link.GetLinkId()}, browser: browser, link: link, refusal: refusal, holder: &signingv1.Person{}}
}

// session asks token how the session of a link stands in a browser. Whether the browser may be told is the caller's to decide.
func (s *Service) session(r *http.Request, at place, browser secret.Secret) (*visit, error) {
	answer, err := s.links.GetSession(r.Context(), &tokenv1.GetSessionRequest{Tenant: at.tenant, LinkId: at.link, Browser: browser.Reveal()})
	if err != nil {
		return nil, err
	}
	refusal, err := named(answer.GetFailureCode())
	if err != nil {
		return nil, err
	}
	v := newVisit(answer.GetLink(), browser, refusal)
	v.here = answer.GetSessionHere()
	return v, nil
}

// enter meets a browser under /sign or /continue. To a browser that neither has the session nor ever showed a token of this
// link, every link is SESSION_UNKNOWN, whatever its state and whether or not it exists.
func (s *Service) enter(r *http.Request) (*http.Request, *visit, error) {
	at, ok := placeOf(r)
	browser := s.browserOf(r)
	if !ok || browser.IsZero() {
		return r, nil, failure.SessionUnknown
	}
	v, err := s.session(r, at, browser)
	if err != nil {
		return r, nil, err
	}
	if !v.here && !s.knows(r, v) {
		return r, nil, failure.SessionUnknown
	}
	r = s.meet(r, v)
	v.frame.Nonce, v.frame.Self = s.boundNonce(browser, v.scope()), at.sign()
	return r, v, nil
}

// enterForm is enter for what was sent from a page of this browser.
func (s *Service) enterForm(r *http.Request) (*http.Request, *visit, error) {
	r, v, err := s.enter(r)
	if err == nil && !s.isBound(r, v.browser, v.scope()) {
		return r, nil, failure.FormStale
	}
	return r, v, err
}

// replaced tells whether a link was taken from who had it: they learn nothing of who, or which address, came instead.
func replaced(f *failure.Error) bool {
	return f != nil && (f.Code == failure.LinkDelegated.Code || f.Code == failure.LinkReaddressed.Code)
}

// meet makes a visit ready for a page: it marks the request's span with the story it belongs to, and looks up who holds the
// link, for whose language and zone the page is. Without an answer to that it speaks the browser's.
func (s *Service) meet(r *http.Request, v *visit) *http.Request {
	ctx := telemetry.WithRequest(r.Context(), v.link.GetRequestId(), v.at.tenant)
	telemetry.LinkTo(ctx, v.link.GetTraceparent())
	if !replaced(v.refusal) {
		asking, cancel := context.WithTimeout(ctx, nameLimit)
		answer, err := s.directory.GetPerson(asking, &tokenv1.GetPersonRequest{Tenant: v.at.tenant, LinkId: v.link.GetLinkId(), PersonId: v.link.GetHolderId()})
		cancel()
		if err == nil {
			v.holder = answer.GetPerson()
		} else if failure.From(err) == nil {
			s.h.Logger.WarnContext(ctx, "the holder of a link was not found out", "error", err)
		}
	}
	r = r.WithContext(ctx)
	v.frame = s.frame(r, v.at.tenant, v.holder)
	return r
}

// frame is what is around a page for a holder; an empty one leaves the language to the browser.
func (s *Service) frame(r *http.Request, tenant string, holder *signingv1.Person) pages.Frame {
	brand := s.tenants.Branding(tenant)
	f := pages.Frame{
		// What somebody chooses on the page counts more than what the platform said about them.
		Locale: pages.Match(s.chosenLanguage(r), holder.GetLocale(), r.Header.Get("Accept-Language")),
		Tenant: pages.Tenant{
			Name: brand.Name, Accent: brand.Colour,
			Support: pages.Support{Email: brand.Support.Email, Phone: brand.Support.Phone, URL: brand.Support.URL},
		},
	}
	if zone, err := time.LoadLocation(holder.GetTimeZone()); err == nil && holder.GetTimeZone() != "Local" {
		f.Zone = zone
	}
	return f
}

// now is the time of a visit's tenant.
func (s *Service) now(v *visit) time.Time { return s.h.Clock.Now(v.at.tenant) }

// act is for what a signer sets off: it is finished even when the line drops meanwhile, within limit.
func act(r *http.Request, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), limit)
}
