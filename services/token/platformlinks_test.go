package token_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/failure"
	"countersign.dev/pkg/rpc"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// many is a request by so many signers who all sign at once.
func many(ref string, signers int) *signingv1.SigningRequest {
	r := lease(ref)
	r.Signers = nil
	for i := range signers {
		r.Signers = append(r.Signers, &signingv1.Signer{Name: adaName, Email: fmt.Sprintf("ada%d@lovelace.example", i)})
	}
	return r
}

// createAll makes requests and waits until their first links are issued and all is on the list.
func (w *world) createAll(all ...*signingv1.SigningRequest) []*signingv1.RequestView {
	w.t.Helper()
	var made []*signingv1.RequestView
	for _, r := range all {
		made = append(made, w.create(r))
	}
	w.settled()
	return made
}

// listed reads all pages.
func (w *world) listed(of string, req *signingv1.ListLinksRequest) (links []*signingv1.Link, pages int) {
	w.t.Helper()
	req = proto.CloneOf(req)
	for {
		page, err := w.platform.ListLinks(as(w.t, of), req)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(page.GetLinks()) > int(req.GetPageSize()) && req.GetPageSize() > 0 {
			w.t.Fatalf("a page of %d has %d", req.GetPageSize(), len(page.GetLinks()))
		}
		links, pages = append(links, page.GetLinks()...), pages+1
		if req.PageToken = page.GetNextPageToken(); req.GetPageToken() == "" {
			return links, pages
		}
	}
}

func idsOf(links []*signingv1.Link) []string {
	var ids []string
	for _, l := range links {
		ids = append(ids, l.GetId())
	}
	return ids
}

func signerIDs(requests ...*signingv1.RequestView) []string {
	var ids []string
	for _, r := range requests {
		for _, s := range r.GetSigners() {
			ids = append(ids, s.GetId())
		}
	}
	return ids
}

func TestLinksAreListed(t *testing.T) {
	w := start(t)
	legal := many("c", 3)
	legal.Profile = "legal"
	two := lease("b")
	two.Signers = append(two.GetSigners(), person(graceMail, 2)) // waits: there is no link yet
	made := w.createAll(lease("a"), two, legal)
	newest := signerIDs(made[2], made[1], made[0])
	newest = slices.DeleteFunc(newest, func(id string) bool { return id == made[1].GetSigners()[1].GetId() })
	for size := uint32(1); size <= 6; size++ {
		got, _ := w.listed(tenant, &signingv1.ListLinksRequest{PageSize: size})
		if diff := cmp.Diff(newest, idsOf(got)); diff != "" {
			t.Fatalf("pages of %d (-want +got)\n%s", size, diff)
		}
	}
	token := w.mint(newest[0], 1)
	w.sent(newest[0], made[2].GetId(), 1)
	w.mustRedeem(token, "ada")
	if _, err := w.signing.RevokeLink(as(t, tenant), &signingv1.RevokeLinkRequest{Id: made[0].GetId(), Signer: "1", Reason: "lost"}); err != nil {
		t.Fatal(err)
	}
	w.settled()
	for name, tt := range map[string]struct {
		req  *signingv1.ListLinksRequest
		want []string
	}{
		"of a request":   {&signingv1.ListLinksRequest{RequestId: made[2].GetId(), PageSize: 2}, newest[:3]},
		"of a reference": {&signingv1.ListLinksRequest{Reference: "b"}, newest[3:4]},
		"used":           {&signingv1.ListLinksRequest{State: signingv1.LinkState_LINK_STATE_USED}, newest[:1]},
		"revoked":        {&signingv1.ListLinksRequest{State: signingv1.LinkState_LINK_STATE_REVOKED}, newest[4:]},
		"of a profile":   {&signingv1.ListLinksRequest{Profile: "legal", PageSize: 1}, newest[:3]},
		"of a person":    {&signingv1.ListLinksRequest{Holder: made[1].GetSigners()[0].GetHolder()}, newest[3:4]},
		"none":           {&signingv1.ListLinksRequest{Profile: "sales"}, nil},
	} {
		if got, _ := w.listed(tenant, tt.req); !slices.Equal(idsOf(got), tt.want) {
			t.Errorf("%s: %v, want %v", name, idsOf(got), tt.want)
		}
	}
	// After 8 days the standard profile's link is over; who had begun under the legal one is not.
	w.clock.Advance(tenant, 8*24*time.Hour)
	if got, _ := w.listed(tenant, &signingv1.ListLinksRequest{State: signingv1.LinkState_LINK_STATE_EXPIRED}); !slices.Equal(idsOf(got), newest[3:4]) {
		t.Errorf("expired: %v", idsOf(got))
	}
	w.flush() // the list is made again
	if got, _ := w.listed(tenant, &signingv1.ListLinksRequest{}); !slices.Equal(idsOf(got), newest) {
		t.Errorf("after FLUSHALL: %v", idsOf(got))
	}
	got, err := w.platform.GetLink(as(t, tenant), &signingv1.GetLinkRequest{Id: newest[0]})
	if err != nil {
		t.Fatal(err)
	}
	l := got.GetLink()
	if l.GetState() != signingv1.LinkState_LINK_STATE_USED || !l.GetSent() || l.GetOpenedAt() == nil || l.GetSessionEndsAt() == nil || len(l.GetGenerations()) != 1 || l.GetProfile() != "legal" {
		t.Errorf("shown as %v", l)
	}
	if got, err = w.platform.GetLink(as(t, tenant), &signingv1.GetLinkRequest{Id: newest[4]}); err != nil || got.GetLink().GetGenerations()[0].GetEndReason() != "lost" {
		t.Errorf("revoked: %v, %v", got, err)
	}
	text := protojson.Format(&signingv1.ListLinksResponse{Links: []*signingv1.Link{l, got.GetLink()}})
	for _, private := range []string{adaName, "lovelace", title, "cs1_"} {
		if strings.Contains(text, private) {
			t.Errorf("%s is shown: %s", private, text)
		}
	}
}

// TestAListStaysWhileItIsRead: what is accepted between two pages changes none that follow, and is told by a watch from the first page on.
func TestAListStaysWhileItIsRead(t *testing.T) {
	w := start(t)
	var all []*signingv1.SigningRequest
	for i := range 5 {
		all = append(all, lease(fmt.Sprint(i)))
	}
	made := w.createAll(all...)
	first, err := w.platform.ListLinks(as(t, tenant), &signingv1.ListLinksRequest{PageSize: 2})
	if err != nil {
		t.Fatal(err)
	}
	later := w.createAll(lease("later"))
	rest, _ := w.listed(tenant, &signingv1.ListLinksRequest{PageSize: 2, PageToken: first.GetNextPageToken()})
	slices.Reverse(made)
	if got := append(idsOf(first.GetLinks()), idsOf(rest)...); !slices.Equal(got, signerIDs(made...)) {
		t.Errorf("pages %v, want %v", got, signerIDs(made...))
	}
	watch := w.watch(tenant, &signingv1.WatchLinksRequest{After: first.GetWatchCursor()})
	if e := watch.event(); e.GetLink().GetId() != later[0].GetSigners()[0].GetId() || e.GetType() != signingv1.LinkEventType_LINK_EVENT_TYPE_ISSUED {
		t.Errorf("the watch begins with %v", e)
	}
}

func TestLinkListsRefused(t *testing.T) {
	w := start(t)
	made := w.createAll(many("a", 3))
	page, err := w.platform.ListLinks(as(t, tenant), &signingv1.ListLinksRequest{PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	next := page.GetNextPageToken()
	for name, tt := range map[string]struct {
		of   string
		req  *signingv1.ListLinksRequest
		want *failure.Error
		path string
	}{
		"page too large":   {tenant, &signingv1.ListLinksRequest{PageSize: 501}, failure.RequestInvalid, "page_size"},
		"no token":         {tenant, &signingv1.ListLinksRequest{PageToken: "abc"}, failure.RequestInvalid, "page_token"},
		"another's token":  {"globex", &signingv1.ListLinksRequest{PageToken: next}, failure.RequestInvalid, "page_token"},
		"other filters":    {tenant, &signingv1.ListLinksRequest{PageToken: next, Profile: "sales"}, failure.RequestInvalid, "page_token"},
		"a watch's cursor": {tenant, &signingv1.ListLinksRequest{PageToken: page.GetWatchCursor()}, failure.RequestInvalid, "page_token"},
		"two requests":     {tenant, &signingv1.ListLinksRequest{RequestId: made[0].GetId(), Reference: "a"}, failure.RequestInvalid, "reference"},
		"no state":         {tenant, &signingv1.ListLinksRequest{State: 99}, failure.RequestInvalid, "state"},
		"no request id":    {tenant, &signingv1.ListLinksRequest{RequestId: "lnk_1"}, failure.RequestInvalid, "request_id"},
		"unknown request":  {tenant, &signingv1.ListLinksRequest{RequestId: "req_unknown"}, failure.RequestUnknown, ""},
		"foreign request":  {"globex", &signingv1.ListLinksRequest{RequestId: made[0].GetId()}, failure.RequestUnknown, ""},
	} {
		_, err := w.platform.ListLinks(as(t, tt.of), tt.req)
		got := refused(t, err, tt.want)
		if tt.path != "" && (len(got.Fields) != 1 || got.Fields[0].Path != tt.path) {
			t.Errorf("%s: fields %v, want %s", name, got.Fields, tt.path)
		}
	}
	if got, _ := w.listed("globex", &signingv1.ListLinksRequest{}); len(got) != 0 {
		t.Errorf("globex sees %v", got)
	}
	_, err = w.platform.GetLink(as(t, "globex"), &signingv1.GetLinkRequest{Id: made[0].GetSigners()[0].GetId()})
	refused(t, err, failure.LinkUnknown)
	_, err = w.platform.GetLink(readerOf(t), &signingv1.GetLinkRequest{Id: made[0].GetSigners()[0].GetId()})
	refused(t, err, failure.PermissionDenied)
}

// readerOf is a platform that may do nothing with links.
func readerOf(t *testing.T) context.Context {
	return auth.Outgoing(auth.With(t.Context(), auth.Caller{ID: "key_2", Tenant: tenant, Kind: auth.Platform, Scopes: []string{auth.ConfigWrite}}))
}

// public serves what platforms may call on a socket of its own, to one platform of the tenant, and drains it within drain.
func (w *world) public(drain time.Duration) (client signingv1.LinkServiceClient, stop func()) {
	w.t.Helper()
	who := auth.Fixed(auth.Caller{ID: "key_1", Tenant: tenant, Kind: auth.Platform, Scopes: auth.Scopes()})
	server, err := rpc.NewServer(rpc.Options{Auth: who, Drain: drain, Public: true})
	if err != nil {
		w.t.Fatal(err)
	}
	w.service.RegisterPublic(server)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ctx, l) }()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return signingv1.NewLinkServiceClient(conn), stop
}
