package failure

import (
	"sort"
	"time"

	"google.golang.org/grpc/codes"
)

var registry = map[string]*Error{}

// The registry (spec 9). A test fails where an entry lacks words in one of our languages.
var (
	RequestInvalid    = add(Error{Code: "REQUEST_INVALID", Kind: codes.InvalidArgument, HTTP: 422, Text: "Some fields of this request are not valid.", Next: "fix-fields"})
	RequestUnreadable = add(Error{Code: "REQUEST_UNREADABLE", Kind: codes.InvalidArgument, HTTP: 400, Text: "We could not read this request.", Next: "fix-format"})
	RequestConflict   = add(Error{Code: "REQUEST_CONFLICT", Kind: codes.AlreadyExists, HTTP: 409, Text: "This reference was used before for a request with other content.", Next: "new-reference"})
	// The name is that of the header, draft-ietf-httpapi-idempotency-key-header.
	IdempotencyConflict = add(Error{Code: "IDEMPOTENCY_CONFLICT", Kind: codes.AlreadyExists, HTTP: 409, Text: "This idempotency key was used before for a call with other content.", Next: "new-key"})
	RequestUnknown      = add(Error{Code: "REQUEST_UNKNOWN", Kind: codes.NotFound, HTTP: 404, Text: "We do not know this request.", Next: "check-address"})
	RequestClosed       = add(Error{Code: "REQUEST_CLOSED", Kind: codes.FailedPrecondition, HTTP: 409, Text: "This request is already finished.", Next: "none"})
	RequestExpired      = add(Error{Code: "REQUEST_EXPIRED", Kind: codes.FailedPrecondition, HTTP: 410, Text: "The sender's deadline for this document has passed.", Next: "ask-sender"})
	RequestOpen         = add(Error{Code: "REQUEST_OPEN", Kind: codes.FailedPrecondition, HTTP: 409, Text: "This request is still going on.", Next: "cancel-first"})
	RequestErased       = add(Error{Code: "REQUEST_ERASED", Kind: codes.FailedPrecondition, HTTP: 410, Text: "What this request held was erased.", Next: "none"})
	AmendTooLate        = add(Error{Code: "AMEND_TOO_LATE", Kind: codes.FailedPrecondition, HTTP: 409, Text: "This part of the request can no longer be changed.", Next: "fix-fields"})
	SignerUnknown       = add(Error{Code: "SIGNER_UNKNOWN", Kind: codes.NotFound, HTTP: 404, Text: "This request has no such signer.", Next: "check-address"})
	DocumentRefused     = add(Error{Code: "DOCUMENT_REFUSED", Kind: codes.InvalidArgument, HTTP: 422, Text: "This document cannot be signed safely.", Next: "other-document"})

	ProfileUnknown = add(Error{Code: "PROFILE_UNKNOWN", Kind: codes.NotFound, HTTP: 404, Text: "We do not know this expiration profile.", Next: "check-address"})
	ProfileChanged = add(Error{Code: "PROFILE_CHANGED", Kind: codes.Aborted, HTTP: 409, Text: "Somebody else has changed this meanwhile.", Next: "reload"})
	ProfileInUse   = add(Error{Code: "PROFILE_IN_USE", Kind: codes.FailedPrecondition, HTTP: 409, Text: "A rule still uses this expiration profile.", Next: "fix-fields"})

	LinkUnknown      = add(Error{Code: "LINK_UNKNOWN", Kind: codes.NotFound, HTTP: 404, Text: "We do not know this link.", Next: "check-address"})
	LinkNotYet       = add(Error{Code: "LINK_NOT_YET", Kind: codes.FailedPrecondition, HTTP: 409, Text: "It is not your turn to sign yet.", Next: "wait"})
	LinkExpired      = add(Error{Code: "LINK_EXPIRED", Kind: codes.FailedPrecondition, HTTP: 410, Text: "This link has expired.", Next: "reissue", Expected: time.Minute})
	LinkSuperseded   = add(Error{Code: "LINK_SUPERSEDED", Kind: codes.FailedPrecondition, HTTP: 410, Text: "A newer link has taken the place of this one.", Next: "reissue", Expected: time.Minute})
	LinkUsed         = add(Error{Code: "LINK_USED", Kind: codes.FailedPrecondition, HTTP: 409, Text: "This link is open in another browser.", Next: "verify", Expected: time.Minute})
	LinkRevoked      = add(Error{Code: "LINK_REVOKED", Kind: codes.FailedPrecondition, HTTP: 410, Text: "This link was withdrawn.", Next: "ask-sender"})
	LinkDelegated    = add(Error{Code: "LINK_DELEGATED", Kind: codes.FailedPrecondition, HTTP: 410, Text: "Somebody else signs in your place.", Next: "none"})
	LinkReaddressed  = add(Error{Code: "LINK_READDRESSED", Kind: codes.FailedPrecondition, HTTP: 410, Text: "The sender has changed the address that this link was sent to.", Next: "ask-sender"})
	LinkSigned       = add(Error{Code: "LINK_SIGNED", Kind: codes.FailedPrecondition, HTTP: 409, Text: "You have already signed.", Next: "none"})
	LinkDeclined     = add(Error{Code: "LINK_DECLINED", Kind: codes.FailedPrecondition, HTTP: 409, Text: "You have declined to sign.", Next: "ask-sender"})
	LinkCancelled    = add(Error{Code: "LINK_CANCELLED", Kind: codes.FailedPrecondition, HTTP: 410, Text: "The sender has cancelled this request.", Next: "ask-sender"})
	LinkBusy         = add(Error{Code: "LINK_BUSY", Kind: codes.Aborted, HTTP: 409, Text: "A signature is being made on this link right now.", Next: "retry", Expected: 2 * time.Minute, Retryable: true})
	LinkOnHold       = add(Error{Code: "LINK_ON_HOLD", Kind: codes.FailedPrecondition, HTTP: 409, Text: "This request is being looked into and cannot be signed right now.", Next: "wait", Expected: 24 * time.Hour, Retryable: true})
	LinkMintExceeded = add(Error{Code: "LINK_MINT_EXCEEDED", Kind: codes.ResourceExhausted, HTTP: 429, Text: "Too many messages were sent for this link.", Next: "reissue"})
	ReissueLimit     = add(Error{Code: "REISSUE_LIMIT", Kind: codes.ResourceExhausted, HTTP: 429, Text: "New links were asked for too often. The sender can send you one.", Next: "ask-sender", Expected: 24 * time.Hour})
	ReissueUnproved  = add(Error{Code: "REISSUE_UNPROVED", Kind: codes.PermissionDenied, HTTP: 403, Text: "Please confirm that this mailbox is yours before a new link is made.", Next: "verify", Expected: time.Minute})

	CursorGone = add(Error{Code: "CURSOR_GONE", Kind: codes.OutOfRange, HTTP: 410, Text: "The record no longer reaches back to this cursor.", Next: "reload"})

	SessionUnknown = add(Error{Code: "SESSION_UNKNOWN", Kind: codes.Unauthenticated, HTTP: 401, Text: "Please open the link in your message again.", Next: "check-address"})
	FormStale      = add(Error{Code: "FORM_STALE", Kind: codes.PermissionDenied, HTTP: 403, Text: "This page is no longer good for that. Please load it again.", Next: "retry"})
	SessionExpired = add(Error{Code: "SESSION_EXPIRED", Kind: codes.Unauthenticated, HTTP: 401, Text: "Your session has ended. What you did so far is kept.", Next: "reissue", Expected: time.Minute})

	CodeWrong        = add(Error{Code: "CODE_WRONG", Kind: codes.InvalidArgument, HTTP: 422, Text: "That code is not right.", Next: "retry", Retryable: true})
	CodeExpired      = add(Error{Code: "CODE_EXPIRED", Kind: codes.FailedPrecondition, HTTP: 410, Text: "That code is no longer valid.", Next: "new-code", Expected: time.Minute})
	CodeTooSoon      = add(Error{Code: "CODE_TOO_SOON", Kind: codes.ResourceExhausted, HTTP: 429, Text: "A code was sent a moment ago. Please wait before asking for another.", Next: "wait", Retryable: true})
	CodeLimit        = add(Error{Code: "CODE_LIMIT", Kind: codes.ResourceExhausted, HTTP: 429, Text: "Too many codes were sent. Please wait a while.", Next: "wait", Retryable: true})
	IdentityLocked   = add(Error{Code: "IDENTITY_LOCKED", Kind: codes.ResourceExhausted, HTTP: 429, Text: "Too many wrong codes. For your safety this is locked for a while.", Next: "wait", Expected: 15 * time.Minute, Retryable: true})
	IdentityRequired = add(Error{Code: "IDENTITY_REQUIRED", Kind: codes.PermissionDenied, HTTP: 403, Text: "Please confirm who you are first.", Next: "verify", Expected: time.Minute})

	ConsentRequired   = add(Error{Code: "CONSENT_REQUIRED", Kind: codes.FailedPrecondition, HTTP: 409, Text: "Please agree to sign electronically first.", Next: "consent"})
	SignatureInvalid  = add(Error{Code: "SIGNATURE_INVALID", Kind: codes.InvalidArgument, HTTP: 422, Text: "Please type your full name to sign.", Next: "retry"})
	DocumentNotReady  = add(Error{Code: "DOCUMENT_NOT_READY", Kind: codes.Unavailable, HTTP: 503, Text: "The document is still being prepared.", Next: "retry", Expected: time.Minute, Retryable: true})
	ProviderDown      = add(Error{Code: "PROVIDER_DOWN", Kind: codes.Unavailable, HTTP: 503, Text: "The service that takes your signature does not answer right now. Nothing is lost.", Next: "retry", Expected: 15 * time.Minute, Retryable: true})
	CertificateNotYet = add(Error{Code: "CERTIFICATE_NOT_YET", Kind: codes.Unavailable, HTTP: 503, Text: "The certificate is still being written.", Next: "retry", Expected: time.Minute, Retryable: true})

	PersonErased     = add(Error{Code: "PERSON_ERASED", Kind: codes.FailedPrecondition, HTTP: 410, Text: "This person's data was erased.", Next: "none"})
	RateLimited      = add(Error{Code: "RATE_LIMITED", Kind: codes.ResourceExhausted, HTTP: 429, Text: "Too many tries. Please wait a moment.", Next: "wait", Retryable: true})
	Unauthenticated  = add(Error{Code: "UNAUTHENTICATED", Kind: codes.Unauthenticated, HTTP: 401, Text: "This call carries no valid credentials.", Next: "credentials"})
	PermissionDenied = add(Error{Code: "PERMISSION_DENIED", Kind: codes.PermissionDenied, HTTP: 403, Text: "These credentials do not allow this.", Next: "credentials"})
	Unavailable      = add(Error{Code: "UNAVAILABLE", Kind: codes.Unavailable, HTTP: 503, Text: "We cannot do this right now. Nothing is lost; please try again in a minute.", Next: "retry", Expected: time.Minute, Retryable: true})
	Internal         = add(Error{Code: "INTERNAL", Kind: codes.Internal, HTTP: 500, Text: "Something went wrong on our side. Nothing is lost; please try again.", Next: "retry", Expected: time.Minute, Retryable: true})
)

func add(e Error) *Error {
	if _, taken := registry[e.Code]; taken {
		panic("failure: code registered twice: " + e.Code)
	}
	registry[e.Code] = &e
	return &e
}

// Lookup returns the entry with this code, or nil.
func Lookup(code string) *Error { return registry[code] }

// All returns every entry, ordered by code.
func All() []*Error {
	all := make([]*Error, 0, len(registry))
	for _, e := range registry {
		all = append(all, e)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Code < all[j].Code })
	return all
}
