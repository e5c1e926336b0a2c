//go:build mutants

// Package mutant names the promises that this build can break, one at a time.
package mutant

import (
	"crypto/rand"
	"os"
)

// Variable names the promise to break; empty breaks none.
const Variable = "COUNTERSIGN_MUTANT"

var chosen = os.Getenv(Variable)

// The promises.
var (
	NoExpectedSequence = chosen == "no-expected-sequence"
	CacheTrusted       = chosen == "redis-trusted-first"
	AnsweredFirst      = chosen == "acknowledged-before-the-record"
	LazySync           = chosen == "lazy-sync"
	ExpiryReversed     = chosen == "expiry-reversed"
	forgetful          = chosen == "limiter-that-forgets"
)

// Forget returns another key each time, so that nothing is remembered under it.
func Forget(key []byte) []byte {
	if forgetful {
		return []byte(rand.Text())
	}
	return key
}
