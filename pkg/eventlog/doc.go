// Package eventlog makes JetStream the record and the referee (architecture 1).
//
// Every aggregate is one subject. A transition is one message on it that holds the fact and the state it led to, published with
// the expected last sequence of that subject: of any number of concurrent transitions exactly one wins, and loading is one read.
//
// The package knows no product: an Aggregate is given the pure functions that decide and evolve.
package eventlog
