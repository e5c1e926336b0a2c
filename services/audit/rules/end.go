package rules

import (
	"slices"
	"strings"
)

// Ended returns which leaves of a request, by their places in the log, are about what had happened when it ended, in the order of
// time. Facts of different services that did not cause one another come into the log in any order (audit.md 1.5.1), so some of them
// may stand behind the end. It is false while the log lacks the end, or the verification that a signature names as what it rests on.
func Ended(leaves []Leaf) (places []int, ended bool) {
	end := slices.IndexFunc(leaves, func(l Leaf) bool { return l.Fin })
	if end < 0 {
		return nil, false
	}
	verified := map[string]bool{}
	for i, l := range leaves {
		// Stamps are of one form and in UTC: their order is that of time.
		if i > end && l.At > leaves[end].At {
			continue
		}
		places = append(places, i)
		if l.Type == types["VerificationPassed"] && l.Auth != nil {
			for _, id := range l.Auth.Ev {
				verified[id] = true
			}
		}
	}
	for _, i := range places {
		l := leaves[i]
		if l.Type == types["CeremonySigned"] && l.Auth != nil && slices.ContainsFunc(l.Auth.Ev, func(id string) bool { return !verified[id] }) {
			return nil, false
		}
	}
	slices.SortStableFunc(places, func(a, b int) int { return strings.Compare(leaves[a].At, leaves[b].At) })
	return places, true
}
