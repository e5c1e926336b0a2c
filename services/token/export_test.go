package token

import "time"

// BeatEvery has watches that begin from now on say something this often.
func (s *Service) BeatEvery(d time.Duration) { s.beat = d }

// CursorAt returns the cursor of a watch behind a sequence.
func (s *Service) CursorAt(tenant string, sequence uint64) string {
	return s.sealWatch(tenant, sequence)
}

// LinkID is the link of a signer position.
func (s *Service) LinkID(requestID string, position uint32) string {
	return s.linkID(requestID, position)
}

// LinesAtOnce is how many lines of a batch are in hand at most.
const LinesAtOnce = linesAtOnce

// WatchesPerTenant is how many watches a tenant may have.
const WatchesPerTenant = watchesPerTenant

// Covers is covers.
func Covers(first, last, after uint64) bool { return covers(first, last, after) }
