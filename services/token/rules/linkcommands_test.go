package rules_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

func TestIssue(t *testing.T) {
	issue := rules.Issue{LinkID: "lnk_1", Tenant: "acme", RequestID: "req_1", HolderID: "per_ada", Position: 1, Profile: profile()}
	decide(t, map[string]decision{
		"once":                         {given: nil, when: issue, at: noon, then: issued()},
		"not again":                    {given: facts{issued()}, when: issue, at: noon.Add(day)},
		"not once the request is over": {given: facts{&tokenv1.LinkClosed{}}, when: issue, at: noon},
		"not once it was withdrawn":    {given: out(&tokenv1.LinkRevoked{}), when: issue, at: noon},
	})
}

// TestMint is spec 2.6 and decisions 9: the lifetime runs from when the message is out.
func TestMint(t *testing.T) {
	mint := rules.Mint{Generation: 1, Hash: first, DeliveryID: "dlv_1"}
	later := noon.Add(40 * time.Minute)
	full := facts{issued()}
	for i := range rules.LiveTokens {
		full = append(full, minted(1, []byte{byte(i)}, expiry))
	}
	decide(t, map[string]decision{
		"at once": {given: facts{issued()}, when: mint, at: noon, then: minted(1, first, expiry)},
		"a later message has its lifetime in full": {given: facts{issued()}, when: mint, at: later, then: minted(1, first, later.Add(lifetime))},
		"even after the first would have expired":  {given: facts{issued(), minted(1, second, expiry)}, when: mint, at: expiry.Add(day), then: minted(1, first, expiry.Add(day+lifetime))},
		"once it is out the expiry stands":         {given: out(), when: mint, at: later, then: minted(1, first, expiry)},
		"to the last":                              {given: out(), when: mint, at: expiry.Add(-ms), then: minted(1, first, expiry)},
		"and not from expiry on":                   {given: out(), when: mint, at: expiry, refused: failure.LinkExpired},
		"while somebody is at it":                  {given: out(redeemed(ada, noon)), when: mint, at: later, then: minted(1, first, expiry)},
		"an opened message is out, heard or not":   {given: facts{issued(), minted(1, first, expiry), redeemed(ada, noon)}, when: mint, at: later, then: minted(1, first, expiry)},
		"and expires":                              {given: facts{issued(), minted(1, first, expiry), redeemed(ada, noon)}, when: mint, at: expiry, refused: failure.LinkExpired},
		"of a former generation":                   {given: out(reissued(1, noon)), when: mint, at: noon, refused: failure.LinkSuperseded},
		"of one to come":                           {given: out(), when: rules.Mint{Generation: 2, Hash: second}, at: noon, refused: failure.LinkSuperseded},
		"of a new one, from its own message on":    {given: out(reissued(1, noon)), when: rules.Mint{Generation: 2, Hash: second, DeliveryID: "dlv_1"}, at: later, then: minted(2, second, later.Add(lifetime))},
		"too many":                                 {given: full, when: mint, at: noon, refused: failure.LinkMintExceeded},
		"not too many":                             {given: full[:rules.LiveTokens], when: mint, at: noon, then: minted(1, first, expiry)},
		"former generations do not count":          {given: append(full, reissued(1, noon)), when: rules.Mint{Generation: 2, Hash: second, DeliveryID: "dlv_1"}, at: noon, then: minted(2, second, expiry)},
		"never issued":                             {when: mint, at: noon, refused: failure.LinkUnknown},
		"withdrawn":                                {given: out(&tokenv1.LinkRevoked{}), when: mint, at: noon, refused: failure.LinkRevoked},
		"signed":                                   {given: out(&tokenv1.LinkSigned{}), when: mint, at: noon, refused: failure.LinkSigned},
		"declined":                                 {given: out(&tokenv1.LinkDeclined{}), when: mint, at: noon, refused: failure.LinkDeclined},
		"cancelled":                                {given: out(&tokenv1.LinkClosed{}), when: mint, at: noon, refused: failure.LinkCancelled},
	})
}

func TestStartClock(t *testing.T) {
	start := rules.StartClock{Generation: 1}
	decide(t, map[string]decision{
		"the message is out":         {given: facts{issued(), minted(1, first, expiry)}, when: start, at: noon, then: started(1)},
		"heard long after":           {given: facts{issued(), minted(1, first, expiry)}, when: start, at: noon.Add(day), then: started(1)},
		"after it was opened":        {given: facts{issued(), minted(1, first, expiry), redeemed(ada, noon)}, when: start, at: noon, then: started(1)},
		"heard twice":                {given: out(), when: start, at: noon},
		"of a former generation":     {given: out(reissued(1, noon)), when: start, at: noon},
		"of one that is over":        {given: facts{issued(), &tokenv1.LinkClosed{}}, when: start, at: noon},
		"of a link that never began": {when: start, at: noon},
	})
}

func TestRedeem(t *testing.T) {
	redeem := func(hash, browser []byte) rules.Redeem {
		return rules.Redeem{Hash: hash, Browser: browser, SessionID: "ses_1"}
	}
	begun := out(redeemed(ada, noon))
	lastMinute := expiry.Add(-ms)
	decide(t, map[string]decision{
		"once":                         {given: out(), when: redeem(first, ada), at: noon, then: redeemed(ada, noon)},
		"before it is heard to be out": {given: facts{issued(), minted(1, first, expiry)}, when: redeem(first, ada), at: noon, then: redeemed(ada, noon)},
		"at the last instant":          {given: out(), when: redeem(first, ada), at: lastMinute, then: redeemed(ada, lastMinute)},
		"not at expiry":                {given: out(), when: redeem(first, ada), at: expiry, refused: failure.LinkExpired},
		"not in grace":                 {given: out(), when: redeem(first, ada), at: expiry.Add(grace - ms), refused: failure.LinkExpired},
		"same browser comes back":      {given: begun, when: redeem(first, ada), at: noon.Add(session - ms)},
		"by another token of it":       {given: append(begun, minted(1, second, expiry)), when: redeem(second, ada), at: noon},
		"another browser does not":     {given: begun, when: redeem(first, bob), at: noon, refused: failure.LinkUsed},
		"nor by another token":         {given: append(begun, minted(1, second, expiry)), when: redeem(second, bob), at: noon, refused: failure.LinkUsed},
		"nor when the session is over": {given: begun, when: redeem(first, bob), at: noon.Add(session), refused: failure.LinkUsed},
		"the session is over":          {given: begun, when: redeem(first, ada), at: noon.Add(session), refused: failure.SessionExpired},
		"the former generation":        {given: out(reissued(1, noon)), when: redeem(first, ada), at: noon, refused: failure.LinkSuperseded},
		"who was replaced":             {given: out(rerouted(1, noon)), when: redeem(first, ada), at: noon, refused: failure.LinkDelegated},
		"withdrawn":                    {given: out(&tokenv1.LinkRevoked{}), when: redeem(first, ada), at: noon, refused: failure.LinkRevoked},
		"signed":                       {given: out(&tokenv1.LinkSigned{}), when: redeem(first, ada), at: noon, refused: failure.LinkSigned},
		"a guess":                      {given: out(), when: redeem(second, ada), at: noon, refused: failure.LinkUnknown},
		"never issued":                 {when: redeem(first, ada), at: noon, refused: failure.LinkUnknown},
	})
}

// TestContinue is spec 2.4 and 2.5: who was verified goes on, here.
func TestContinue(t *testing.T) {
	goOn := func(browser []byte) rules.Continue {
		return rules.Continue{Browser: browser, SessionID: "ses_2", VerificationID: "evd_1", HolderID: "per_ada"}
	}
	resumed := func(by time.Time) proto.Message {
		return &tokenv1.LinkResumed{Generation: 1, Session: sessionOf("ses_2", bob, by), VerificationId: "evd_1"}
	}
	inPlace := func(from uint32, by time.Time) proto.Message {
		return &tokenv1.LinkReissued{
			FromGeneration: from, Generation: from + 1, Reason: tokenv1.ReissueReason_REISSUE_REASON_SIGNER, At: at(by),
			ExpiresAt: at(by.Add(lifetime)), Session: sessionOf("ses_2", bob, by), VerificationId: "evd_1",
		}
	}
	begun := out(redeemed(ada, noon))
	thrice := out(inPlace(1, expiry), inPlace(2, expiry.Add(2*time.Hour)), inPlace(3, expiry.Add(4*time.Hour)))
	again := expiry.Add(6 * time.Hour)
	none := link(out())
	none.Profile.ReissueLimit = 0
	decide(t, map[string]decision{
		"here already":                             {given: begun, when: goOn(ada), at: noon},
		"the session moves":                        {given: begun, when: goOn(bob), at: noon, then: resumed(noon)},
		"to a browser without the link":            {given: out(), when: goOn(bob), at: noon, then: resumed(noon)},
		"and once it is over it begins anew":       {given: begun, when: goOn(bob), at: expiry.Add(-ms), then: resumed(expiry.Add(-ms))},
		"after expiry a new link takes its place":  {given: out(), when: goOn(bob), at: expiry, then: inPlace(1, expiry)},
		"also in grace, where somebody is at work": {given: out(redeemed(ada, expiry.Add(-ms))), when: goOn(bob), at: expiry, then: inPlace(1, expiry)},
		"but who is at work in grace goes on":      {given: out(redeemed(bob, expiry.Add(-ms))), when: goOn(bob), at: expiry.Add(grace - ms)},
		"until grace ends":                         {given: out(redeemed(bob, expiry.Add(-ms))), when: goOn(bob), at: expiry.Add(grace), then: inPlace(1, expiry.Add(grace))},
		"the third new link of a day":              {given: thrice[:len(thrice)-1], when: goOn(bob), at: again, then: inPlace(3, again)},
		"the fourth":                               {given: thrice, when: goOn(bob), at: again, refused: failure.ReissueLimit, wait: expiry.Add(day).Sub(again)},
		"the fourth, just before the day is over":  {given: thrice, when: goOn(bob), at: expiry.Add(day - ms), refused: failure.ReissueLimit, wait: ms},
		"the fourth, when the day is over":         {given: thrice, when: goOn(bob), at: expiry.Add(day), then: inPlace(4, expiry.Add(day))},
		"the limit does not keep a session away":   {given: thrice, when: goOn(ada), at: expiry.Add(4*time.Hour + session), then: &tokenv1.LinkResumed{Generation: 4, Session: sessionOf("ses_2", ada, expiry.Add(4*time.Hour+session)), VerificationId: "evd_1"}},
		"platforms' links do not count":            {given: append(out(inPlace(1, expiry)), reissued(2, expiry), reissued(3, expiry), reissued(4, expiry)), when: goOn(bob), at: again, then: inPlace(5, again)},
		"while a signature is made elsewhere":      {given: append(begun, admitted(noon)), when: goOn(bob), at: noon.Add(rules.AdmissionHold - ms), refused: failure.LinkBusy, wait: ms},
		"and when it was not made":                 {given: append(begun, admitted(noon)), when: goOn(bob), at: noon.Add(rules.AdmissionHold), then: resumed(noon.Add(rules.AdmissionHold))},
		"somebody who holds it no more":            {given: out(rerouted(1, noon)), when: goOn(bob), at: noon, refused: failure.LinkDelegated},
		"withdrawn":                                {given: out(&tokenv1.LinkRevoked{}), when: goOn(bob), at: noon, refused: failure.LinkRevoked},
		"signed":                                   {given: append(begun, &tokenv1.LinkSigned{}), when: goOn(bob), at: noon, refused: failure.LinkSigned},
		"cancelled":                                {given: append(begun, &tokenv1.LinkClosed{}), when: goOn(bob), at: noon, refused: failure.LinkCancelled},
		"never issued":                             {when: goOn(bob), at: noon, refused: failure.LinkUnknown},
	})
	_, err := goOn(bob).Decide(none, expiry)
	refusedAs(t, err, failure.ReissueLimit, day)
}

// everyEnd is a link in each of its ends.
var everyEnd = map[string]proto.Message{"signed": &tokenv1.LinkSigned{}, "declined": &tokenv1.LinkDeclined{}, "closed": &tokenv1.LinkClosed{}}

func TestReissue(t *testing.T) {
	reissue := rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_PLATFORM}
	begun := out(redeemed(ada, noon))
	remind := rules.Reissue{Reason: tokenv1.ReissueReason_REISSUE_REASON_REMINDER, Generation: 1}
	reminded := func(by time.Time) proto.Message {
		f := reissued(1, by).(*tokenv1.LinkReissued)
		f.Reason = remind.Reason
		return f
	}
	table := map[string]decision{
		"by a reminder":                     {given: out(), when: remind, at: noon, then: reminded(noon)},
		"by a reminder, not who is at work": {given: begun, when: remind, at: noon.Add(session - ms)},
		"by a reminder, who has stopped":    {given: begun, when: remind, at: noon.Add(session), then: reminded(noon.Add(session))},
		"before it was opened":              {given: out(), when: reissue, at: noon, then: reissued(1, noon)},
		"in the midst of a session":         {given: begun, when: reissue, at: noon, then: reissued(1, noon)},
		"once it expired":                   {given: out(), when: reissue, at: expiry.Add(day), then: reissued(1, expiry.Add(day))},
		"once it lapsed":                    {given: out(&tokenv1.LinkLapsed{}), when: reissue, at: expiry, then: reissued(1, expiry)},
		"once it was withdrawn":             {given: out(&tokenv1.LinkRevoked{}), when: reissue, at: noon, then: reissued(1, noon)},
		"of the generation that was meant":  {given: out(), when: rules.Reissue{Reason: reissue.Reason, Generation: 1}, at: noon, then: reissued(1, noon)},
		"which has gone":                    {given: out(reissued(1, noon)), when: rules.Reissue{Reason: reissue.Reason, Generation: 1}, at: noon},
		"while a signature is made":         {given: append(begun, admitted(noon)), when: reissue, at: noon.Add(rules.AdmissionHold - ms), refused: failure.LinkBusy, wait: ms},
		"when it was not made":              {given: append(begun, admitted(noon)), when: reissue, at: noon.Add(rules.AdmissionHold), then: reissued(1, noon.Add(rules.AdmissionHold))},
		"never issued":                      {when: reissue, at: noon, refused: failure.LinkUnknown},
	}
	refusals := map[string]*failure.Error{"signed": failure.LinkSigned, "declined": failure.LinkDeclined, "closed": failure.LinkCancelled}
	for end, fact := range everyEnd {
		table[end] = decision{given: out(fact), when: reissue, at: noon, refused: refusals[end]}
	}
	decide(t, table)
}

func TestReroute(t *testing.T) {
	reroute := rules.Reroute{HolderID: "per_grace", EscalationID: "esc_1", Generation: 1}
	begun := out(redeemed(ada, noon))
	table := map[string]decision{
		"to the alternate":           {given: out(), when: reroute, at: expiry, then: rerouted(1, expiry)},
		"of a withdrawn link":        {given: out(&tokenv1.LinkRevoked{}), when: reroute, at: noon, then: rerouted(1, noon)},
		"heard twice":                {given: out(rerouted(1, noon)), when: reroute, at: noon},
		"who holds it already":       {given: out(), when: rules.Reroute{HolderID: "per_ada", Generation: 1}, at: noon},
		"the signer got a new link":  {given: out(reissued(1, noon)), when: reroute, at: noon},
		"while a signature is made":  {given: append(begun, admitted(noon)), when: reroute, at: noon.Add(rules.AdmissionHold - ms), refused: failure.LinkBusy, wait: ms},
		"when it was not made":       {given: append(begun, admitted(noon)), when: reroute, at: noon.Add(rules.AdmissionHold), then: rerouted(1, noon.Add(rules.AdmissionHold))},
		"of a link that never began": {when: rules.Reroute{HolderID: "per_grace"}, at: noon},
	}
	for end, fact := range everyEnd {
		table[end] = decision{given: out(fact), when: reroute, at: noon}
	}
	decide(t, table)
	l := link(out(rerouted(1, noon)))
	if l.GetHolderId() != "per_grace" || len(l.GetFormerHolderIds()) != 1 || l.GetFormerHolderIds()[0] != "per_ada" || len(l.GetSignerReissues()) != 0 {
		t.Errorf("rerouted to %v", l)
	}
}

// TestAdmit is decisions 8.
func TestAdmit(t *testing.T) {
	admit := func(id string, browser []byte) rules.Admit { return rules.Admit{Browser: browser, AdmissionID: id} }
	fact := func(by time.Time, inGrace bool) proto.Message {
		f := admitted(by).(*tokenv1.LinkAdmitted)
		f.Grace = inGrace
		return f
	}
	begun := out(redeemed(ada, noon))
	late := out(redeemed(ada, expiry.Add(-ms)))
	end := expiry.Add(grace)
	decide(t, map[string]decision{
		"in the session":                      {given: begun, when: admit("adm_1", ada), at: noon, then: fact(noon, false)},
		"at its last instant":                 {given: begun, when: admit("adm_1", ada), at: noon.Add(session - ms), then: fact(noon.Add(session-ms), false)},
		"not at its end":                      {given: begun, when: admit("adm_1", ada), at: noon.Add(session), refused: failure.SessionExpired},
		"in grace":                            {given: late, when: admit("adm_1", ada), at: expiry, then: fact(expiry, true)},
		"at the last instant of grace":        {given: late, when: admit("adm_1", ada), at: end.Add(-ms), then: fact(end.Add(-ms), true)},
		"not at the end of grace":             {given: late, when: admit("adm_1", ada), at: end, refused: failure.LinkExpired},
		"another browser":                     {given: begun, when: admit("adm_1", bob), at: noon, refused: failure.LinkUsed},
		"without a session":                   {given: out(), when: admit("adm_1", ada), at: noon, refused: failure.SessionUnknown},
		"asked again":                         {given: append(begun, admitted(noon)), when: admit("adm_1", ada), at: noon.Add(rules.AdmissionHold - ms)},
		"asked again after the session's end": {given: append(late, admitted(end.Add(-ms))), when: admit("adm_1", ada), at: end},
		"asked again by somebody else":        {given: append(begun, admitted(noon)), when: admit("adm_1", bob), at: noon, refused: failure.LinkUsed},
		"a second signature":                  {given: append(begun, admitted(noon)), when: admit("adm_2", ada), at: noon.Add(ms), refused: failure.LinkBusy, wait: rules.AdmissionHold - ms},
		"once the first was not made":         {given: append(begun, admitted(noon)), when: admit("adm_1", ada), at: noon.Add(rules.AdmissionHold), then: fact(noon.Add(rules.AdmissionHold), false)},
		"withdrawn":                           {given: append(begun, &tokenv1.LinkRevoked{}), when: admit("adm_1", ada), at: noon, refused: failure.LinkRevoked},
		"signed already":                      {given: append(begun, admitted(noon), &tokenv1.LinkSigned{}), when: admit("adm_1", ada), at: noon, refused: failure.LinkSigned},
		"never issued":                        {when: admit("", nil), at: noon, refused: failure.LinkUnknown},
	})
}

// TestEnds: an act that was made is believed, whatever the link's state, unless it has ended.
func TestEnds(t *testing.T) {
	signed, declined := &tokenv1.LinkSigned{Generation: 1}, &tokenv1.LinkDeclined{Generation: 1, ReasonId: "not_1"}
	table := map[string]decision{
		"signed":                       {given: out(redeemed(ada, noon), admitted(noon)), when: rules.MarkSigned{}, at: noon, then: signed},
		"signed, heard after grace":    {given: out(redeemed(ada, noon), admitted(noon)), when: rules.MarkSigned{}, at: expiry.Add(day), then: signed},
		"declined":                     {given: out(redeemed(ada, noon)), when: rules.MarkDeclined{ReasonID: "not_1"}, at: noon, then: declined},
		"declined on a withdrawn link": {given: out(redeemed(ada, noon), &tokenv1.LinkRevoked{}), when: rules.MarkDeclined{ReasonID: "not_1"}, at: noon, then: declined},
		"signed of what never began":   {when: rules.MarkSigned{}, at: noon},
		"declined of what never began": {when: rules.MarkDeclined{}, at: noon},
	}
	for end, fact := range everyEnd {
		table["signed after "+end] = decision{given: out(fact), when: rules.MarkSigned{}, at: noon}
		table["declined after "+end] = decision{given: out(fact), when: rules.MarkDeclined{}, at: noon}
	}
	decide(t, table)
	if l := link(out(redeemed(ada, noon), admitted(noon), signed)); l.GetAdmission() != nil || l.GetSession().GetId() != "ses_1" {
		t.Errorf("signed leaves %v", l)
	}
}

func TestRevoke(t *testing.T) {
	revoke := rules.Revoke{Reason: tokenv1.EndReason_END_REASON_PLATFORM}
	revoked := &tokenv1.LinkRevoked{Reason: tokenv1.EndReason_END_REASON_PLATFORM}
	begun := out(redeemed(ada, noon))
	decide(t, map[string]decision{
		"an open link":              {given: out(), when: revoke, at: noon, then: revoked},
		"a session":                 {given: begun, when: revoke, at: noon, then: revoked},
		"again":                     {given: append(begun, revoked), when: revoke, at: noon},
		"while a signature is made": {given: append(begun, admitted(noon)), when: revoke, at: noon.Add(rules.AdmissionHold - ms), refused: failure.LinkBusy, wait: ms},
		"when it was not made":      {given: append(begun, admitted(noon)), when: revoke, at: noon.Add(rules.AdmissionHold), then: revoked},
		"signed":                    {given: out(&tokenv1.LinkSigned{}), when: revoke, at: noon, refused: failure.LinkSigned},
		"declined":                  {given: out(&tokenv1.LinkDeclined{}), when: revoke, at: noon, refused: failure.LinkDeclined},
		"closed":                    {given: out(&tokenv1.LinkClosed{}), when: revoke, at: noon, refused: failure.LinkCancelled},
		"never issued":              {when: revoke, at: noon, refused: failure.LinkUnknown},
	})
}

func TestClose(t *testing.T) {
	shut := rules.Close{Reason: tokenv1.EndReason_END_REASON_CANCELLED}
	closed := &tokenv1.LinkClosed{Reason: tokenv1.EndReason_END_REASON_CANCELLED}
	begun := out(redeemed(ada, noon))
	table := map[string]decision{
		"an open link":              {given: out(), when: shut, at: noon, then: closed},
		"a session":                 {given: begun, when: shut, at: noon, then: closed},
		"a withdrawn link":          {given: out(&tokenv1.LinkRevoked{}), when: shut, at: noon, then: closed},
		"one that never began":      {when: shut, at: noon, then: closed},
		"while a signature is made": {given: append(begun, admitted(noon)), when: shut, at: noon.Add(rules.AdmissionHold - ms), refused: failure.LinkBusy, wait: ms},
		"when it was not made":      {given: append(begun, admitted(noon)), when: shut, at: noon.Add(rules.AdmissionHold), then: closed},
	}
	for end, fact := range everyEnd {
		table["after "+end] = decision{given: out(fact), when: shut, at: noon}
	}
	decide(t, table)
}

func TestLapse(t *testing.T) {
	lapsed := &tokenv1.LinkLapsed{Generation: 1}
	late := out(redeemed(ada, expiry.Add(-ms)))
	decide(t, map[string]decision{
		"before expiry":                 {given: out(), when: rules.Lapse{}, at: expiry.Add(-ms)},
		"at expiry":                     {given: out(), when: rules.Lapse{}, at: expiry, then: lapsed},
		"an outage later":               {given: out(), when: rules.Lapse{}, at: expiry.Add(day), then: lapsed},
		"once":                          {given: out(lapsed), when: rules.Lapse{}, at: expiry.Add(day)},
		"not while somebody finishes":   {given: late, when: rules.Lapse{}, at: expiry.Add(grace - ms)},
		"but when grace is over":        {given: late, when: rules.Lapse{}, at: expiry.Add(grace), then: lapsed},
		"not while a signature is made": {given: append(late, admitted(expiry.Add(grace-ms))), when: rules.Lapse{}, at: expiry.Add(grace)},
		"but when it was not made":      {given: append(late, admitted(expiry.Add(grace-ms))), when: rules.Lapse{}, at: expiry.Add(grace - ms + rules.AdmissionHold), then: lapsed},
		"not before the message is out": {given: facts{issued()}, when: rules.Lapse{}, at: expiry.Add(day)},
		"not after a signature":         {given: append(late, &tokenv1.LinkSigned{}), when: rules.Lapse{}, at: expiry.Add(day)},
		"never issued":                  {when: rules.Lapse{}, at: noon},
	})
}

func TestDeny(t *testing.T) {
	deny := rules.Deny{Code: "LINK_USED"}
	denied := func(at time.Time) *tokenv1.LinkDenied {
		return &tokenv1.LinkDenied{Code: "LINK_USED", Generation: 1, At: timestamppb.New(at)}
	}
	young, old := noon.Add(30*time.Minute), noon.Add(30*day)
	decide(t, map[string]decision{
		"the first":                {given: out(), when: deny, at: young, then: denied(young)},
		"the next within a minute": {given: out(denied(young)), when: deny, at: young.Add(time.Minute - ms)},
		"and after it":             {given: out(denied(young)), when: deny, at: young.Add(time.Minute), then: denied(young.Add(time.Minute))},
		"of a link that is over":   {given: out(&tokenv1.LinkSigned{}), when: deny, at: young, then: denied(young)},
		"of what never began":      {when: deny, at: noon},
		"rarer on an old link":     {given: out(denied(old)), when: deny, at: old.Add(time.Hour)},
	})
	// A robot that comes every second for a year leaves a few hundred facts: far from filling the link's subject.
	l, now, stated := link(out()), noon, 0
	for range 1_000_000 {
		now = now.Add(31 * time.Second)
		if fact, _ := deny.Decide(l, now); fact != nil {
			l = rules.EvolveLink(l, fact)
			stated++
		}
	}
	if stated > 1000 {
		t.Errorf("a robot made %d facts within a year", stated)
	}
	if stated < 60 {
		t.Errorf("only %d refusals were stated", stated)
	}
}
