package simulation

import (
	"crypto/sha256"
	"fmt"

	"countersign.dev/pkg/failure"
	identityv1 "countersign.dev/proto/countersign/identity/v1"
	"countersign.dev/services/identity/rules"
)

var limits = rules.Defaults()

func verificationID(link string) string { return "vrf_" + link }

// codeOf derives the code of a challenge, as services/identity does.
func codeOf(challenge string) string {
	return rules.Code(func(round byte) []byte {
		sum := sha256.Sum256(append([]byte(challenge), round))
		return sum[:]
	})
}

// renderCode gives the code to the message that carries it, while it can still be used.
func (w *world) renderCode(r *request, link, challenge string) (string, error) {
	open := limits.Open(verifications.load(r, verificationID(link)), w.clock())
	if open == nil || open.GetId() != challenge {
		return "", failure.CodeExpired
	}
	return codeOf(challenge), nil
}

// proof is what a person has proved in a browser for an act; nil when that is not enough.
func (w *world) proof(r *request, link, holder string, browser []byte, act identityv1.Purpose) *identityv1.Evidence {
	return rules.Proof(verifications.load(r, verificationID(link)), holder, browser, act, 1, w.clock())
}

// challenge asks for a code.
func (w *world) challenge(r *request, link, holder string, browser []byte, act identityv1.Purpose) error {
	_, _, err := verifications.do(w, r, verificationID(link), rules.Start{
		Limits: limits, ID: fmt.Sprintf("chl_%x", w.rng.Uint64()), VerificationID: verificationID(link), Tenant: r.tenant, RequestID: r.id,
		LinkID: link, PersonID: holder, Purpose: act, Browser: browser,
	}, bySigner(holder))
	return err
}

// answer tries a code.
func (w *world) answer(r *request, link, holder string, browser []byte, challenge, code string) error {
	_, _, err := verifications.do(w, r, verificationID(link), rules.Answer{
		Limits: limits, ChallengeID: challenge, Browser: browser, Given: []byte(code), Expected: []byte(codeOf(challenge)),
	}, bySigner(holder))
	return err
}
