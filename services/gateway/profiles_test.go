package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// profiling answers with what it was asked, in the profile's name.
type profiling struct {
	signingv1.UnimplementedProfileServiceServer
}

func echo(format string, args ...any) *signingv1.Profile {
	return &signingv1.Profile{Name: fmt.Sprintf(format, args...)}
}

func (profiling) ListProfiles(context.Context, *signingv1.ListProfilesRequest) (*signingv1.ListProfilesResponse, error) {
	return &signingv1.ListProfilesResponse{Profiles: []*signingv1.Profile{echo("list")}}, nil
}

func (profiling) GetProfile(_ context.Context, req *signingv1.GetProfileRequest) (*signingv1.GetProfileResponse, error) {
	return &signingv1.GetProfileResponse{Profile: echo("get %s %d", req.GetName(), req.GetVersion())}, nil
}

func (profiling) SetProfile(_ context.Context, req *signingv1.SetProfileRequest) (*signingv1.SetProfileResponse, error) {
	if req.GetExpectedVersion() == 9 {
		return nil, failure.ProfileChanged
	}
	return &signingv1.SetProfileResponse{Profile: echo("set %s %s %s %s", req.GetName(), req.GetLifetime().AsDuration(), req.GetReach(), req.GetIdempotencyKey())}, nil
}

func (profiling) RetireProfile(_ context.Context, req *signingv1.RetireProfileRequest) (*signingv1.RetireProfileResponse, error) {
	return &signingv1.RetireProfileResponse{Profile: echo("retire %s %d", req.GetName(), req.GetExpectedVersion())}, nil
}

func (profiling) ChooseProfile(_ context.Context, req *signingv1.ChooseProfileRequest) (*signingv1.ChooseProfileResponse, error) {
	return &signingv1.ChooseProfileResponse{Profile: echo("choose %s", req.GetTemplate()), Rule: 2}, nil
}

func TestProfilesOverREST(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := map[string]string{"Idempotency-Key": "k1"}
	for _, tt := range []struct {
		call call
		code int
		want string
	}{
		{call{method: http.MethodGet, path: "/v1/profiles"}, 200, `"profiles":[{"name":"list"`},
		{call{method: http.MethodGet, path: "/v1/profiles/sales"}, 200, `{"name":"get sales 0"`},
		{call{method: http.MethodGet, path: "/v1/profiles/sales?version=3"}, 200, `{"name":"get sales 3"`},
		{call{method: http.MethodGet, path: "/v1/profiles/sales?vesion=3"}, 422, `"vesion"`},
		{call{method: http.MethodGet, path: "/v1/profiles?version=3"}, 422, `"version"`},
		{call{method: http.MethodPut, path: "/v1/profiles/sales", body: `{"lifetime":"3600s","reach":"PROFILE_REACH_ALL_SENT"}`, header: key}, 200, `"set sales 1h0m0s PROFILE_REACH_ALL_SENT k1"`},
		{call{method: http.MethodPut, path: "/v1/profiles/sales", body: `{"expected_version":"9"}`}, 409, `PROFILE_CHANGED`},
		{call{method: http.MethodPut, path: "/v1/profiles/sales", body: `{"lifetme":"3600s"}`}, 400, `"lifetme"`},
		{call{method: http.MethodDelete, path: "/v1/profiles/sales?expected_version=2"}, 200, `"retire sales 2"`},
		{call{method: http.MethodPost, path: "/v1/profile-rules/choose", body: `{"template":"lease"}`}, 200, `"choose lease"`},
	} {
		got, _ := w.call(tt.call)
		if got.StatusCode != tt.code || !strings.Contains(got.body, tt.want) {
			t.Errorf("%s %s: %d %s; want %d and %s", tt.call.method, tt.call.path, got.StatusCode, got.body, tt.code, tt.want)
		}
	}
}
