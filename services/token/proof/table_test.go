package proof

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sync/errgroup"

	"countersign.dev/pkg/failure"
	ceremonyv1 "countersign.dev/proto/countersign/ceremony/v1"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
)

// table is one link and the callers who share it: what they know of it, and what they asked.
type table struct {
	h             *histories
	request, link string
	seed          uint64

	mu         sync.Mutex
	operations uint8
	generation uint32           // the newest that anybody has seen
	tokens     map[uint8]string // by the operation that made it
	made       []uint8
	history    []porcupine.Operation
	shown      []page
}

// page is what Resolve showed of a token in a browser.
type page struct {
	asked time.Duration
	token uint8
	// browser is the one that asked.
	browser uint8
	code    string
}

func newTable(h *histories, request, link string, seed uint64) *table {
	return &table{h: h, request: request, link: link, seed: seed, generation: 1, tokens: map[uint8]string{}}
}

func browserOf(n uint8) string { return fmt.Sprintf("the secret of browser %d", n) }

// play has the callers of a place at the table ask what they ask, each one thing after the other.
func (h *histories) play(place int, t *table) error {
	var all errgroup.Group
	for i := range atOnce {
		all.Go(func() error {
			c := &caller{
				table: t, number: place*atOnce + i, browser: uint8(i + 1),
				random: rand.New(rand.NewPCG(t.seed, uint64(i))), //nolint:gosec // a failing test is played again by its seed
			}
			for n := 0; n < each; {
				counts, err := c.ask(n)
				if err != nil {
					return err
				}
				if counts {
					n++
				}
			}
			return nil
		})
	}
	return all.Wait()
}

// caller asks, as gateway, delivery, ceremony and a platform do together.
type caller struct {
	*table
	number  int
	browser uint8
	random  *rand.Rand
	may     bool // sign: a signature was admitted
	lost    bool // what was asked last was not answered
}

// choose returns what to ask next: signatures come late, since they are the end.
func (c *caller) choose(n int) asked {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := asked{browser: c.browser, generation: c.generation}
	if c.lost {
		// Who got no answer looks how it stands. So not everybody asks for more and more while nobody answers: the work of the checker
		// doubles with each operation of which it is not known whether it was done.
		in.act = look
		return in
	}
	if c.random.IntN(4) == 0 {
		in.browser = uint8(1 + c.random.IntN(atOnce)) // somebody else's
	}
	if len(c.made) > 0 {
		in.token = c.made[c.random.IntN(len(c.made))]
		if c.random.IntN(3) > 0 {
			in.token = c.made[len(c.made)-1]
		}
	}
	switch p := c.random.IntN(100); {
	case c.may && p < 70:
		in.act, in.browser = finish, c.browser
	case p < 20 || len(c.made) == 0 && p < 60:
		in.act = mint
	case p < 50:
		in.act = redeem
		if len(c.made) == 0 {
			in.act = look
		}
	case p < 60:
		in.act = check
	case p < 66:
		in.act = resume
	case p < 75 && n > each/2:
		in.act, in.browser = admit, c.browser
	case p < 78:
		in.act = reissue
	case p < 80:
		in.act = revoke
	default:
		in.act = look
	}
	if in.act == mint {
		in.operation = c.operations
		c.operations++
	}
	return in
}

// ask asks one thing of any process and notes the answer; now and then it looks at a page beside. A question that was not answered, and
// cannot have changed anything, does not count.
func (c *caller) ask(n int) (counts bool, err error) {
	in := c.choose(n)
	process := c.random.IntN(processes)
	ctx, cancel := context.WithTimeout(c.h.ctx, answerIn)
	defer cancel()
	if in.act == redeem && c.random.IntN(3) == 0 {
		c.show(ctx, process, in)
	}
	call := c.h.now()
	out, token, err := c.put(ctx, process, in)
	if err != nil {
		return false, err
	}
	op := porcupine.Operation{ClientId: c.number, Input: in, Output: out, Call: int64(call), Return: int64(c.h.now())}
	c.lost = out.unknown
	if out.unknown && (in.act == look || in.act == check) {
		return false, nil
	}
	c.count(in, out)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case out.unknown:
		op.Return = never
	case in.act == mint && out.code == "":
		c.tokens[in.operation] = token
		c.made = append(c.made, in.operation)
	case in.act == look:
		c.generation = max(c.generation, out.seen.generation)
	case in.act == admit && out.code == "":
		c.may = true
	case in.act == finish:
		c.may = false
	}
	c.history = append(c.history, op)
	return true, nil
}

func (c *caller) count(in asked, out answered) {
	counted := &c.h.counted
	counted.operations.Add(1)
	switch {
	case out.unknown:
		counted.unknown.Add(1)
	case out.code != "":
		counted.refused[in.act].Add(1)
	default:
		counted.done[in.act].Add(1)
	}
}

// put makes the call. An error is an answer that nobody may get.
func (c *caller) put(ctx context.Context, process int, in asked) (out answered, token string, err error) {
	links, platform := c.h.clients[c.number][process], c.h.platforms[c.number][process]
	switch in.act {
	case mint:
		answer, failed := links.Mint(ctx, &tokenv1.MintRequest{Tenant: tenant, LinkId: c.link, Generation: in.generation, DeliveryId: fmt.Sprint("dlv_", in.operation)})
		token, err = answer.GetToken(), failed
	case redeem:
		_, err = links.Redeem(ctx, &tokenv1.RedeemRequest{Token: c.token(in.token), Browser: browserOf(in.browser)})
	case check:
		answer, failed := links.GetSession(ctx, &tokenv1.GetSessionRequest{Tenant: tenant, LinkId: c.link, Browser: browserOf(in.browser), Decisive: true})
		out.code, err = answer.GetFailureCode(), failed
	case resume:
		_, err = links.Continue(ctx, &tokenv1.ContinueRequest{Tenant: tenant, LinkId: c.link, Browser: browserOf(in.browser)})
	case admit:
		_, err = links.AdmitSigning(ctx, &tokenv1.AdmitSigningRequest{Tenant: tenant, LinkId: c.link, Browser: browserOf(in.browser), AdmissionId: fmt.Sprint("adm_", in.browser)})
	case finish:
		err = c.sign(ctx, process)
	case reissue:
		_, err = platform.ReissueLink(platformOf(ctx), &signingv1.ReissueLinkRequest{Id: c.request, Signer: c.link})
	case revoke:
		_, err = platform.RevokeLink(platformOf(ctx), &signingv1.RevokeLinkRequest{Id: c.request, Signer: c.link})
	default:
		answer, failed := links.GetLink(ctx, &tokenv1.GetLinkRequest{Tenant: tenant, LinkId: c.link})
		if out.seen, err = c.see(answer.GetLink()), failed; err != nil {
			out.seen = seen{}
		}
	}
	if err == nil {
		return out, token, nil
	}
	refusal := failure.From(err)
	switch {
	case refusal == nil, refusal.Code == failure.Unavailable.Code:
		out.unknown = true // the connection was cut, or the record gave no answer in time
	case refusal.Code == failure.Internal.Code:
		return out, "", fmt.Errorf("%s of %s: %w", actNames[in.act], c.link, err)
	default:
		out.code = refusal.Code
	}
	return out, "", nil
}

func (c *caller) token(operation uint8) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tokens[operation]
}

// sign has ceremony state the signature, and waits until the link has heard of it.
func (c *caller) sign(ctx context.Context, process int) error {
	c.h.peers.sign(c.link)
	fact := &ceremonyv1.CeremonySigned{LinkId: c.link, SessionId: "ses_1"}
	if err := c.h.state(ctx, "ceremony", "cer_"+c.link, c.request, fact, &ceremonyv1.Ceremony{}); err != nil {
		return err
	}
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	signed := false
	every(waiting, 10*time.Millisecond, func() {
		answer, err := c.h.clients[c.number][process].GetLink(ctx, &tokenv1.GetLinkRequest{Tenant: tenant, LinkId: c.link})
		if err == nil && answer.GetLink().GetStatus() == tokenv1.LinkStatus_LINK_STATUS_SIGNED {
			signed = true
			stop()
		}
	})
	if !signed {
		return context.Cause(ctx)
	}
	return nil
}

var statuses = map[tokenv1.LinkStatus]status{
	tokenv1.LinkStatus_LINK_STATUS_OPEN: open, tokenv1.LinkStatus_LINK_STATUS_REDEEMED: redeemed,
	tokenv1.LinkStatus_LINK_STATUS_REVOKED: revoked, tokenv1.LinkStatus_LINK_STATUS_SIGNED: signed,
}

// see reads a link as the model has it.
func (c *caller) see(l *tokenv1.Link) seen {
	s := seen{generation: l.GetGeneration(), status: statuses[l.GetStatus()], held: l.GetAdmission() != nil}
	for b := uint8(1); b <= atOnce; b++ {
		if bytes.Equal(l.GetSession().GetBrowser(), c.h.ring.MAC("cs.browser.v1", []byte(browserOf(b)))) {
			s.browser = b
		}
	}
	for _, t := range l.GetTokens() {
		if t.GetGeneration() == l.GetGeneration() {
			s.live++
		}
	}
	return s
}

// show notes what a page shows.
func (c *caller) show(ctx context.Context, process int, in asked) {
	at := c.h.now()
	answer, err := c.h.clients[c.number][process].Resolve(ctx, &tokenv1.ResolveRequest{Token: c.token(in.token), Browser: browserOf(in.browser)})
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shown = append(c.shown, page{asked: at, token: in.token, browser: in.browser, code: answer.GetFailureCode()})
}

// glanced is how old what a page shows may be.
const glanced = time.Second

// pages checks what was shown: a token that was over for more than a second is not shown as open.
func (t *table) pages(counted *counts) error {
	for _, p := range t.shown {
		counted.resolved.Add(1)
		if p.code != "" {
			continue
		}
		over, what := t.over(p)
		switch {
		case over != 0 && p.asked > over+glanced:
			return fmt.Errorf("%s: token %d is shown as open in browser %d at %v, and was over at %v: %s", t.link, p.token, p.browser, p.asked, over, what)
		case over != 0 && p.asked > over:
			counted.stale.Add(1)
		}
	}
	return nil
}

// over returns when it is certain that a token opened nothing in a browser any more, and by which operation; 0 where that never is.
func (t *table) over(p page) (at time.Duration, by string) {
	var made time.Duration // answered
	moved := false         // into this browser, at some time
	for _, op := range t.history {
		in, out := op.Input.(asked), op.Output.(answered) //nolint:errcheck,forcetypeassert // nothing else is put in
		if in.act == mint && in.operation == p.token {
			made = time.Duration(op.Return)
		}
		moved = moved || in.browser == p.browser && (in.act == resume || in.act == redeem && out.code == "")
	}
	for _, op := range t.history {
		in, out := op.Input.(asked), op.Output.(answered) //nolint:errcheck,forcetypeassert // nothing else is put in
		if out.unknown || out.code != "" || time.Duration(op.Call) <= made {
			continue // not certain, or perhaps before it was made
		}
		switch in.act {
		case reissue, revoke, finish:
		case redeem:
			if in.browser == p.browser || moved || in.token != p.token {
				continue
			}
		default:
			continue
		}
		if end := time.Duration(op.Return); at == 0 || end < at {
			at, by = end, describe(op)
		}
	}
	return at, by
}
