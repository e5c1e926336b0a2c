package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"countersign.dev/pkg/failure"
)

// problem is an error in words for whoever typed the command: what is wrong, and the next step.
type problem struct {
	text string
	next string // "" where there is nothing to do
	exit int
}

// Error returns the words, the next step on a line of its own.
func (p *problem) Error() string {
	if p.next == "" {
		return p.text
	}
	return p.text + "\nnext: " + p.next
}

// usage says that the command line is wrong.
func usage(next, format string, args ...any) error {
	return &problem{text: fmt.Sprintf(format, args...), next: next, exit: ExitUsage}
}

// nextSteps are failures' next steps as somebody at a command line takes them.
var nextSteps = map[string]string{
	"fix-fields":     "mend these fields and send the request again",
	"fix-format":     "compare the request with the example of `countersign send --help`",
	"new-key":        "give another --idempotency-key if this is meant to be another call",
	"new-reference":  "give another --reference if this is meant to be another request; `countersign list` shows those that are there",
	"other-document": "make the PDF again without what it was refused for, for example by printing it to a PDF",
	"check-address":  "check the id; `countersign list` shows the requests of this tenant",
	"reissue":        "give the signer a new link: `countersign links reissue ID SIGNER`",
	"ask-sender":     "give the signer a new link: `countersign links reissue ID SIGNER`",
	"credentials":    "give a key of this tenant that has the scope for this, with --api-key-file FILE (COUNTERSIGN_API_KEY_FILE)",
	"retry":          "try again in a moment; `countersign doctor` says whether something is not well",
	"wait":           "wait, then ask again",
	"cancel-first":   "cancel it first: `countersign cancel ID`",
	"reload":         "look at it as it is now, and decide again",
}

// nextStep returns the next step of a failure.
func nextStep(f *failure.Error) string {
	switch {
	case f.Is(failure.SignerUnknown):
		return "name the signer by position, id or address; `countersign show ID` shows them"
	case f.Is(failure.LinkNotYet):
		return "wait until the signers before have signed; `countersign why ID` shows who is waited for"
	case f.Is(failure.ProfileUnknown):
		return "`countersign profiles list` shows those of this tenant, `countersign profiles versions NAME` what one was"
	case f.Is(failure.ProfileInUse):
		return "lead the rules elsewhere first: `countersign profiles rules`"
	case f.Is(failure.LinkUnknown):
		return "check the id; `countersign links list` shows the links of this tenant"
	case f.Is(failure.CursorGone):
		return "list the links anew with `countersign links list`, and watch without --after"
	case f.RetryAfter > 0 && f.RetryAfter < time.Second:
		return "ask again in a moment"
	case f.RetryAfter > 0:
		return fmt.Sprintf("ask again in %s", f.RetryAfter.Round(time.Second))
	}
	return nextSteps[f.Next]
}

// refusal puts a failure into words: code and text, every wrong field, the next step.
func refusal(f *failure.Error) *problem {
	text := f.Code + ": " + f.Text
	for _, field := range f.Fields {
		text += fmt.Sprintf("\n  %s: %s", clean(field.Path), clean(field.Problem))
	}
	return &problem{text: text, next: nextStep(f), exit: ExitRefused}
}

// explain puts what a call returned into words. A context that was ended by a signal stays as it is.
func (c Client) explain(err error) error {
	var known *problem
	switch {
	case err == nil || errors.As(err, &known) || errors.Is(err, context.Canceled):
		return err
	}
	if f := failure.From(err); f != nil {
		return refusal(f)
	}
	st, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch st.Code() {
	case codes.Canceled:
		return context.Canceled
	case codes.Unavailable:
		return &problem{
			text: fmt.Sprintf("cannot reach Countersign at %s%s", c.Server, hint(st.Message())), exit: ExitUnreachable,
			next: "is it running? start it with `countersign up`, or say where it is with --server HOST:PORT (COUNTERSIGN_SERVER)",
		}
	case codes.DeadlineExceeded:
		return &problem{
			text: fmt.Sprintf("Countersign at %s did not answer within %s", c.Server, c.Timeout), exit: ExitUnreachable,
			next: "`countersign doctor` says what is not well; --timeout allows more",
		}
	case codes.Unimplemented:
		return &problem{
			text: fmt.Sprintf("what answers at %s does not know this call", c.Server), exit: ExitRefused,
			next: "check that --server is the gRPC address of a Countersign of this release",
		}
	case codes.ResourceExhausted:
		return &problem{text: "the request is too large to send: " + clean(st.Message()), next: "documents may have 5 MiB", exit: ExitRefused}
	default:
		return &problem{text: fmt.Sprintf("%s: %s", st.Code(), clean(st.Message())), next: nextSteps["retry"], exit: ExitRefused}
	}
}

// hint picks what helps out of gRPC's words about a connection.
func hint(message string) string {
	for _, known := range []string{"connection refused", "no such host", "certificate", "tls:", "i/o timeout", "network is unreachable"} {
		if i := strings.Index(message, known); i >= 0 {
			return ": " + strings.Trim(clean(message[i:]), `"`)
		}
	}
	return ""
}
