package gateway_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// linking answers with what it was asked, in the link's profile.
type linking struct {
	signingv1.UnimplementedLinkServiceServer
}

func (linking) GetLink(_ context.Context, req *signingv1.GetLinkRequest) (*signingv1.GetLinkResponse, error) {
	return &signingv1.GetLinkResponse{Link: &signingv1.Link{Id: req.GetId()}}, nil
}

func (linking) ListLinks(_ context.Context, req *signingv1.ListLinksRequest) (*signingv1.ListLinksResponse, error) {
	said := req.GetReference() + " " + req.GetState().String() + " " + req.GetPageToken()
	return &signingv1.ListLinksResponse{Links: []*signingv1.Link{{Profile: said}}, NextPageToken: "p2", WatchCursor: "w1"}, nil
}

// WatchLinks tells one event and nothing more until its caller leaves.
func (linking) WatchLinks(req *signingv1.WatchLinksRequest, stream grpc.ServerStreamingServer[signingv1.WatchLinksResponse]) error {
	if req.GetAfter() == "old" {
		return failure.CursorGone
	}
	if err := stream.Send(&signingv1.WatchLinksResponse{Cursor: req.GetAfter()}); err != nil {
		return err
	}
	event := &signingv1.LinkEvent{Type: signingv1.LinkEventType_LINK_EVENT_TYPE_OPENED, Link: &signingv1.Link{RequestId: req.GetRequestId()}}
	if err := stream.Send(&signingv1.WatchLinksResponse{Event: event, Cursor: "c2"}); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// tight takes out the spaces that protojson varies from build to build.
var tight = strings.NewReplacer(`, "`, `,"`, `": `, `":`)

func TestLinksOverREST(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, tt := range []struct {
		path string
		code int
		want string
	}{
		{"/v1/links/lnk_1", 200, `{"id":"lnk_1"`},
		{"/v1/links?reference=a&state=LINK_STATE_EXPIRED&page_token=p1", 200, `"profile":"a LINK_STATE_EXPIRED p1"`},
		{"/v1/links", 200, `"next_page_token":"p2","watch_cursor":"w1"`},
		{"/v1/links?state=LINK_STATE_LOST", 422, `"path":"state"`},
		{"/v1/links?status=x", 422, `"path":"status"`},
		{"/v1/links:watch?page_token=x", 422, `"path":"page_token"`},
		{"/v1/links:watch?after=old", 410, `"code":"CURSOR_GONE"`},
	} {
		got, _ := w.call(call{method: http.MethodGet, path: tt.path})
		if got.StatusCode != tt.code || !strings.Contains(tight.Replace(got.body), tt.want) {
			t.Errorf("%s: %d %s; want %d and %s", tt.path, got.StatusCode, got.body, tt.code, tt.want)
		}
		if kind := got.Header.Get("Content-Type"); tt.code >= 400 && kind != "application/problem+json" {
			t.Errorf("%s: refused as %s", tt.path, kind)
		}
	}
}

// TestAWatchOverREST: each message is a line, sent when it is there, and leaving ends it.
func TestAWatchOverREST(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/v1/links:watch?after=c1&request_id=req_1", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for _, want := range []string{`"cursor":"c1"`, `"type":"LINK_EVENT_TYPE_OPENED"`} {
		if !lines.Scan() || !strings.HasPrefix(tight.Replace(lines.Text()), `{"result":{`) || !strings.Contains(tight.Replace(lines.Text()), want) {
			t.Fatalf("%d %s %v, want %s", resp.StatusCode, lines.Text(), lines.Err(), want)
		}
	}
	if resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", resp.Header)
	}
	cancel()
}
