// Package failure is how Countersign says no: a code that never changes, plain words, the next step.
//
// The same codes appear in gRPC error details, REST problems, signer pages, messages, facts and metrics (spec 9).
package failure

import (
	"errors"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the `domain` of every errdetails.ErrorInfo we send.
const Domain = "countersign"

// Error is a refusal its reader can act on. Return it unwrapped: a wrapped one loses its text on the wire.
type Error struct {
	Code      string        // never changes once released; upper snake case
	Kind      codes.Code    // what a gRPC client switches on first
	HTTP      int           // status of the REST problem and of the signer's page
	Text      string        // plain English words, fit to show a signer; other languages stand in words/
	Next      string        // the one action that helps now: a key of the pages' actions
	Expected  time.Duration // how long the remedy usually takes; 0 = at once
	Retryable bool          // whether the same call may succeed later unchanged

	RetryAfter time.Duration // how long to wait before the same call can succeed; 0 = not known
	Fields     []Field       // what is wrong with the input, if that is the matter
}

// Field is one wrong field of a request. Problem never repeats the value (it may be personal).
type Field struct {
	Path    string // as in the JSON of the request, e.g. signers[0].email
	Problem string // what is wrong and what is accepted
}

// Error returns the code and the plain words.
func (e *Error) Error() string {
	text := e.Code + ": " + e.Text
	for _, f := range e.Fields {
		text += " [" + f.Path + ": " + f.Problem + "]"
	}
	return text
}

// Is reports whether target is the same entry of the registry, whatever its fields or wait.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && e != nil && t != nil && t.Code == e.Code // From returns a nil *Error for an accident
}

// WithFields returns a copy that names the wrong fields.
func (e *Error) WithFields(fields ...Field) *Error {
	c := *e
	c.Fields = fields
	return &c
}

// After returns a copy that says how long to wait.
func (e *Error) After(wait time.Duration) *Error {
	c := *e
	c.RetryAfter = wait
	return &c
}

// GRPCStatus makes the failure a gRPC status with ErrorInfo (code and next step), BadRequest and RetryInfo details.
func (e *Error) GRPCStatus() *status.Status {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: e.Code, Domain: Domain, Metadata: map[string]string{"next": e.Next}}}
	if len(e.Fields) > 0 {
		bad := &errdetails.BadRequest{}
		for _, f := range e.Fields {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: f.Path, Description: f.Problem})
		}
		details = append(details, bad)
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	st := status.New(e.Kind, e.Text)
	if with, err := st.WithDetails(details...); err == nil {
		return with
	}
	return st
}

// From finds the failure in err: one of ours, or one that came back from a gRPC call. It returns nil for an accident.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	st, ok := status.FromError(err)
	if !ok || st.Code() == codes.OK {
		return nil
	}
	var found *Error
	var fields []Field
	var wait time.Duration
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == Domain {
				found = Lookup(d.GetReason())
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				fields = append(fields, Field{Path: v.GetField(), Problem: v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			wait = d.GetRetryDelay().AsDuration()
		}
	}
	if found == nil {
		return nil
	}
	c := *found
	c.Fields, c.RetryAfter = fields, wait
	return &c
}
