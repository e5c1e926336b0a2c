// Package rules is what may happen to signing requests and links. It has no clock, no store and no network: the same state,
// command and time always give the same fact.
//
// The life of a request (spec 1.4):
//
//	-Accept-> in progress -SeatSigned-> in progress ... -SeatSigned-> completed
//	                      -SeatDeclined-> declined
//	                      -BeginCancel-> in progress (nothing is admitted) -Cancel-> cancelled
//	                                                                       -Expire-> expired (the deadline has passed)
//	                      -Amend-> in progress
//
// The life of a link, one signer position of a request (spec 2). A generation is what a reissue or a reroute makes:
//
//	-Issue-> open -Redeem-> redeemed -MarkSigned-> signed
//	         open, redeemed -Revoke-> revoked
//	         open, redeemed, revoked -Reissue, Reroute, Readdress-> open, next generation
//	         open, redeemed -Lapse-> lapsed; next generation where the profile replaces what lapses
//	         open, redeemed -Continue-> redeemed, in this browser; next generation when the lifetime is over
//	         anything not final -MarkDeclined-> declined, -Close-> closed
//	         open, redeemed -Reprofile-> the same, with the values of a newer version of its profile
//
// The expiration profiles of a tenant, which are one aggregate with the rules that choose among them (spec 2.3):
//
//	nothing -SetProfile, Publish-> set, version 1 -SetProfile, Publish-> set, next version
//	        set -RetireProfile, Publish-> retired -SetProfile, Publish-> set, next version
//
// For two minutes after a signature was admitted, or until it is made, everything that would rotate or end the link waits (decisions 8).
//
// Times are half-open: what ends at E is over at E (spec 2.4).
package rules
