//go:build !mutants

// Package mutant names the promises that a build with the tag mutants can break, one at a time, so that it is seen that the tests
// notice (decisions 30). In every other build a name is false and what it guards is not compiled.
package mutant

// The promises.
const (
	NoExpectedSequence = false // a fact is recorded whatever was recorded since its state was read
	CacheTrusted       = false // what Redis says decides
	AnsweredFirst      = false // a call is answered before its fact is recorded
	LazySync           = false // the record acknowledges before it syncs
	ExpiryReversed     = false // a link opens from its expiry on instead of until then
)

// Forget returns the key of a limit as it is.
func Forget(key []byte) []byte { return key }
