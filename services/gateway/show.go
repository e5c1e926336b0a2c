package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	"countersign.dev/services/gateway/pages"
)

// maxForm is the most bytes a form may have: the longest has a name and a reason.
const maxForm = 64 << 10

// handler answers a request; what it returns is shown as the page of that failure.
type handler func(w http.ResponseWriter, r *http.Request) error

// page serves what a signer reads.
func (s *Service) page(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.keepLanguage(w, r)
		if err := h(w, r); err != nil {
			s.fail(w, r, err)
		}
	})
}

// form serves what a signer sends: from a page of ours, and no longer than a form of ours can be.
func (s *Service) form(h handler) http.Handler {
	return s.page(func(w http.ResponseWriter, r *http.Request) error {
		if err := s.sameSite(r); err != nil {
			return err
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			return failure.RequestUnreadable
		}
		return h(w, r)
	})
}

// show writes a page.
func show(w http.ResponseWriter, p pages.Page) error {
	if err := pages.Write(w, p, pages.Policy{}); err != nil {
		return fmt.Errorf("gateway: write a page: %w", err)
	}
	return nil
}

// named returns the failure of a code that another service told; nil for "".
func named(code string) (*failure.Error, error) {
	if code == "" {
		return nil, nil
	}
	if f := failure.Lookup(code); f != nil {
		return f, nil
	}
	return nil, fmt.Errorf("gateway: the unknown code %q was answered", code)
}

// refusal returns what to tell a signer about an error. An accident is logged, once and here, and told without its text.
func (s *Service) refusal(ctx context.Context, err error) *failure.Error {
	if f := failure.From(err); f != nil {
		return f
	}
	if errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled {
		return failure.Unavailable // nobody reads it
	}
	if c := status.Code(err); c == codes.Unavailable || c == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded) {
		s.h.Logger.WarnContext(ctx, "a request could not reach what it needs", "error", err)
		return failure.Unavailable
	}
	s.h.Logger.ErrorContext(ctx, "a request failed", "error", err)
	return failure.Internal
}

// fail shows a failure about which nothing more is known than the path says.
func (s *Service) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := s.refusal(r.Context(), err)
	s.countRefusal(r.Context(), f)
	at, placed := placeOf(r)
	p := pages.State{Frame: s.frame(r, at.tenant, &signingv1.Person{}), Failure: f}
	if f.Retryable || f.Next == "retry" {
		p.Remedies.Retry = again(r, at, placed)
	}
	if f.Code == failure.Internal.Code {
		if sc := trace.SpanContextFromContext(r.Context()); sc.IsValid() {
			p.Reference = sc.TraceID().String()
		}
	}
	if err := show(w, p); err != nil {
		s.h.Logger.ErrorContext(r.Context(), "the page of a failure failed", "error", err)
		lastResort(w)
	}
}

// again is the GET by which somebody can try the same once more: never one that would send a form again.
func again(r *http.Request, at place, placed bool) string {
	switch token := tokenOf(r); {
	case !token.IsZero():
		return tokenPrefix + token.Reveal()
	case !placed:
		return ""
	case r.URL.Path == at.goOn(), r.URL.Path == at.goOn()+"/code", r.URL.Path == at.goOn()+"/resend":
		return at.goOn()
	default:
		return at.sign()
	}
}

// refuse shows the state of a link that we may talk about: what happened, and the one way on (spec 2.7).
func (s *Service) refuse(w http.ResponseWriter, r *http.Request, v *visit, f *failure.Error) error {
	s.countRefusal(r.Context(), f)
	p := pages.State{Frame: v.frame, Failure: f, Sender: v.sender(), Remedies: s.remedies(r, v, f)}
	if v.holder.GetEmail() != "" {
		p.Recipient = pages.MaskEmail(v.holder.GetEmail())
	}
	p.Soft = f.Code == failure.LinkExpired.Code && s.now(v).Before(v.link.GetGraceEndsAt().AsTime())
	if p.Soft {
		p.Remedies = pages.Remedies{Verify: p.Remedies.Reissue}
	}
	return show(w, p)
}

// remedies are the ways on from a failure of a link. A new link, and the session in this browser, both begin with a code.
func (s *Service) remedies(r *http.Request, v *visit, f *failure.Error) pages.Remedies {
	switch f.Code {
	case failure.LinkExpired.Code, failure.LinkSuperseded.Code, failure.SessionExpired.Code:
		return pages.Remedies{Reissue: v.at.goOn()}
	case failure.LinkUsed.Code:
		return pages.Remedies{Verify: v.at.goOn()}
	}
	if f.Retryable || f.Next == "retry" {
		return pages.Remedies{Retry: again(r, v.at, true)}
	}
	return pages.Remedies{}
}

func (s *Service) countRefusal(ctx context.Context, f *failure.Error) {
	s.refusals.Add(ctx, 1, metric.WithAttributes(attribute.String("code", f.Code)))
}

// seeOther leads on by GET, so that a reload sends nothing again.
func seeOther(w http.ResponseWriter, path string) error {
	w.Header().Set("Location", path)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
