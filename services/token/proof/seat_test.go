package proof

import (
	"fmt"
	"testing"
	"time"

	// porcupine: the checker of linearizability that is in use elsewhere, fast enough for histories of this length.
	"github.com/anishathalye/porcupine"

	"countersign.dev/pkg/failure"
)

// act is what a caller asks of one link.
type act uint8

const (
	mint   act = iota // make a token of a generation
	redeem            // use a token in a browser
	check             // ask how a browser's session stands, decisively
	resume            // go on in a browser, verified
	admit             // begin a signature in a browser
	finish            // state the signature, and wait until the link is signed
	reissue
	revoke
	look // read the link as the leader has it
	acts
)

var actNames = [acts]string{"mint", "redeem", "check", "resume", "admit", "finish", "reissue", "revoke", "look"}

// asked is one call. A token is named by the number of the operation that made it.
type asked struct {
	act        act
	operation  uint8
	token      uint8  // to redeem
	generation uint32 // to mint of
	browser    uint8  // 1 and up
}

// answered is what came back; unknown where nothing did, so that it may have been done, or be done yet.
type answered struct {
	unknown bool
	code    string // of the refusal; "" is well
	seen    seen   // by look
}

// seen is what can be seen of a link that is held or not, and by whom.
type seen struct {
	generation uint32
	status     status
	browser    uint8
	held       bool
	live       uint8
}

type status uint8

const (
	open status = iota
	redeemed
	revoked
	signed
)

// most is how many operations there are on one link at most: the checker's work grows with what is under way at once.
const most = 60

// liveTokens is how many tokens of a generation may be made.
const liveTokens = 32

// seat is what the spec says of a link whose time is not up (spec 2.1, 2.2, 2.5, 2.8, decisions 8, 10), in no more than a value that can
// be compared.
type seat struct {
	seen
	tokens [most]uint32 // the generation of the token that an operation made; 0 is none
}

// ended is the refusal of a link that opens nothing for anybody; "" while it may.
func (s seat) ended() string {
	switch s.status {
	case revoked:
		return failure.LinkRevoked.Code
	case signed:
		return failure.LinkSigned.Code
	default:
		return ""
	}
}

// session is the refusal of a browser's session; "" is well.
func (s seat) session(browser uint8) string {
	switch {
	case s.ended() != "":
		return s.ended()
	case s.browser == 0:
		return failure.SessionUnknown.Code
	case s.browser != browser:
		return failure.LinkUsed.Code
	}
	return ""
}

// do returns the answer to what is asked, and the link after.
func (s seat) do(in asked) (code string, after seat) {
	switch in.act {
	case mint:
		switch {
		case s.ended() != "":
			return s.ended(), s
		case in.generation != s.generation:
			return failure.LinkSuperseded.Code, s
		case s.live == liveTokens:
			return failure.LinkMintExceeded.Code, s
		}
		s.live++
		s.tokens[in.operation] = s.generation
	case redeem:
		switch {
		case s.tokens[in.token] == 0:
			return failure.LinkUnknown.Code, s
		case s.ended() != "":
			return s.ended(), s
		case s.tokens[in.token] < s.generation:
			return failure.LinkSuperseded.Code, s
		case s.browser != 0:
			return s.session(in.browser), s
		}
		s.status, s.browser = redeemed, in.browser
	case check:
		return s.session(in.browser), s
	case resume:
		switch {
		case s.ended() != "":
			return s.ended(), s
		case s.browser == in.browser:
			return "", s
		case s.held:
			return failure.LinkBusy.Code, s
		}
		s.status, s.browser = redeemed, in.browser
	case admit:
		// The name of an admission is that of its browser: to ask again is the same admission.
		if code := s.session(in.browser); code != "" {
			return code, s
		}
		s.held = true
	case finish:
		s.status, s.held = signed, false
	case reissue:
		switch {
		case s.status == signed:
			return failure.LinkSigned.Code, s
		case s.held:
			return failure.LinkBusy.Code, s
		}
		s.generation++
		s.status, s.browser, s.live = open, 0, 0
	case revoke:
		switch {
		case s.status == revoked:
			return "", s
		case s.status == signed:
			return failure.LinkSigned.Code, s
		case s.held:
			return failure.LinkBusy.Code, s
		}
		s.status, s.browser = revoked, 0
	default:
	}
	return "", s
}

// linkModel is the link as porcupine asks for it. An answer that never came says nothing, whatever was done.
var linkModel = porcupine.Model{
	Init: func() any { return seat{seen: seen{generation: 1}} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(seat), input.(asked), output.(answered) //nolint:errcheck,forcetypeassert // nothing else is put in
		code, after := s.do(in)
		switch {
		case out.unknown:
			return true, after
		case in.act == look:
			return out.code == "" && out.seen == s.seen, after
		}
		return out.code == code, after
	},
}

// describe writes an operation for a reader.
func describe(op porcupine.Operation) string {
	in, out := op.Input.(asked), op.Output.(answered) //nolint:errcheck,forcetypeassert // nothing else is put in
	answer := out.code
	switch {
	case out.unknown:
		answer = "no answer"
	case answer == "" && in.act == look:
		answer = fmt.Sprintf("%+v", out.seen)
	case answer == "":
		answer = "well"
	}
	end := "never"
	if !out.unknown {
		end = time.Duration(op.Return).String()
	}
	return fmt.Sprintf("%v .. %s  caller %d: %s #%d (token %d, generation %d, browser %d): %s", time.Duration(op.Call), end, op.ClientId,
		actNames[in.act], in.operation, in.token, in.generation, in.browser, answer)
}

// TestHistoriesThatCannotBe shows that the checker sees what must never happen.
func TestHistoriesThatCannotBe(t *testing.T) {
	well := answered{}
	refused := func(f *failure.Error) answered { return answered{code: f.Code} }
	type step struct {
		in  asked
		out answered
	}
	minted := step{asked{act: mint, operation: 0, generation: 1}, well}
	for name, tt := range map[string]struct {
		possible bool
		steps    []step // one after the other
	}{
		"one session, and the other browser is told": {true, []step{minted, {asked{act: redeem, browser: 1}, well}, {asked{act: redeem, browser: 2}, refused(failure.LinkUsed)}}},
		"two sessions from one token":                {false, []step{minted, {asked{act: redeem, browser: 1}, well}, {asked{act: redeem, browser: 2}, well}}},
		"an unknown redeem that was done":            {true, []step{minted, {asked{act: redeem, browser: 1}, answered{unknown: true}}, {asked{act: redeem, browser: 2}, refused(failure.LinkUsed)}}},
		"an unknown redeem that was not":             {true, []step{minted, {asked{act: redeem, browser: 1}, answered{unknown: true}}, {asked{act: redeem, browser: 2}, well}}},
		"an unknown redeem that was both": {false, []step{
			minted,
			{asked{act: redeem, browser: 1}, answered{unknown: true}},
			{asked{act: redeem, browser: 2}, well},
			{asked{act: check, browser: 1}, well},
		}},
		"a rotated token": {false, []step{minted, {asked{act: reissue}, well}, {asked{act: redeem, browser: 1}, well}}},
		"a revoked token": {false, []step{minted, {asked{act: revoke}, well}, {asked{act: redeem, browser: 1}, well}}},
		"a rotation under a signature": {false, []step{
			minted, {asked{act: redeem, browser: 1}, well}, {asked{act: admit, browser: 1}, well}, {asked{act: reissue}, well},
		}},
		"a revocation that is forgotten": {false, []step{minted, {asked{act: revoke}, well}, {asked{act: look}, answered{seen: seen{generation: 1, live: 1}}}}},
	} {
		var history []porcupine.Operation
		for i, s := range tt.steps {
			op := porcupine.Operation{ClientId: i, Input: s.in, Output: s.out, Call: int64(2 * i), Return: int64(2*i + 1)}
			if s.out.unknown {
				op.Return = never
			}
			history = append(history, op)
		}
		if got := porcupine.CheckOperations(linkModel, history); got != tt.possible {
			t.Errorf("%s: linearizable is %t", name, got)
		}
	}
}
