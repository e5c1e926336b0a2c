// Package proof tests the token service as a whole against models of what it promises: histories of several processes under faults,
// random steps over real servers, damaged records, and mutants that the tests must catch. It has no code of its own.
package proof
