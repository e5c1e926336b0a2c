package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"countersign.dev/pkg/failure"
	signingv1 "countersign.dev/proto/countersign/signing/v1"
)

// act is a call of the contract that changes something which is there already, and the ways it has.
type act struct {
	method        string // of gRPC
	asks, answers proto.Message
	verb, path    string // of REST; {name} is taken out of the message
	event         string // of a CloudEvent; "" where it cannot be published
	typed         func(m object) []string
}

var (
	amend = act{
		signingv1.SigningRequestService_Amend_FullMethodName, &signingv1.AmendRequest{}, &signingv1.AmendResponse{}, http.MethodPatch, "/v1/requests/{id}",
		"countersign.signing.v1.AmendRequest", typedAmend,
	}
	cancel = act{
		signingv1.SigningRequestService_Cancel_FullMethodName, &signingv1.CancelRequest{}, &signingv1.CancelResponse{}, http.MethodPost, "/v1/requests/{id}:cancel",
		"countersign.signing.v1.CancelRequest", func(m object) []string { return typedFlags(m, "cancel", fmt.Sprint(m["id"])) },
	}
	erase = act{
		signingv1.SigningRequestService_Erase_FullMethodName, &signingv1.EraseRequest{}, &signingv1.EraseResponse{}, http.MethodPost, "/v1/requests/{id}:erase", "", typedErase,
	}
	reissue = act{
		signingv1.SigningRequestService_ReissueLink_FullMethodName, &signingv1.ReissueLinkRequest{}, &signingv1.ReissueLinkResponse{},
		http.MethodPost, "/v1/requests/{id}/signers/{signer}:reissue", "", typedLink("reissue"),
	}
	revoke = act{
		signingv1.SigningRequestService_RevokeLink_FullMethodName, &signingv1.RevokeLinkRequest{}, &signingv1.RevokeLinkResponse{},
		http.MethodPost, "/v1/requests/{id}/signers/{signer}:revoke", "", typedLink("revoke"),
	}
	setProfile = act{
		signingv1.ProfileService_SetProfile_FullMethodName, &signingv1.SetProfileRequest{}, &signingv1.SetProfileResponse{}, http.MethodPut, "/v1/profiles/{name}", "", typedProfile,
	}
	setRules = act{
		signingv1.ProfileService_SetProfileRules_FullMethodName, &signingv1.SetProfileRulesRequest{}, &signingv1.SetProfileRulesResponse{},
		http.MethodPut, "/v1/profile-rules", "", nil,
	}
	retire = act{
		signingv1.ProfileService_RetireProfile_FullMethodName, &signingv1.RetireProfileRequest{}, &signingv1.RetireProfileResponse{},
		http.MethodDelete, "/v1/profiles/{name}", "", func(m object) []string { return []string{"profiles", "retire", fmt.Sprint(m["name"])} },
	}
)

// typedAmend is an amendment as it is typed; nil where the command line has no words for it.
func typedAmend(m object) []string {
	args := []string{"amend", fmt.Sprint(m["id"])}
	signers, _ := m["signers"].([]any)
	switch {
	case m["idempotency_key"] != nil, len(signers) != 1 && m["signers"] != nil, m["metadata"] != nil:
		return nil
	case len(signers) == 1:
		one, _ := signers[0].(object)
		if len(one) < 2 {
			return nil
		}
		for name, value := range one {
			args = append(args, "--"+strings.ReplaceAll(name, "_", "-")+"="+fmt.Sprint(value))
		}
	case m["deadline"] == nil:
		return nil
	}
	for _, name := range []string{"deadline", "reason"} {
		if m[name] != nil {
			args = append(args, "--"+name+"="+fmt.Sprint(m[name]))
		}
	}
	return args
}

// typedFlags adds the other fields of a message to a command, as flags of the same names.
func typedFlags(m object, command ...string) []string {
	for name, value := range m {
		if name != "id" {
			command = append(command, "--"+strings.ReplaceAll(name, "_", "-")+"="+fmt.Sprint(value))
		}
	}
	return command
}

func typedErase(m object) []string {
	if len(fmt.Sprint(m["signer"])) > 64 {
		return nil // no signer of the request is called so: it is not even asked
	}
	return typedFlags(m, "erase", fmt.Sprint(m["id"]), "--yes")
}

func typedLink(what string) func(m object) []string {
	return func(m object) []string {
		if m["idempotency_key"] != nil || m["metadata"] != nil {
			return nil
		}
		args := []string{"links", what, fmt.Sprint(m["id"]), fmt.Sprint(m["signer"])}
		if m["reason"] != nil {
			args = append(args, "--reason="+fmt.Sprint(m["reason"]))
		}
		return args
	}
}

func typedProfile(m object) []string {
	args := []string{"profiles", "set", fmt.Sprint(m["name"])}
	for name, value := range m {
		switch name {
		case "lifetime", "grace", "session", "idle", "reissue_window", "assurance":
			args = append(args, "--"+strings.ReplaceAll(name, "_", "-")+"="+fmt.Sprint(value))
		case "name":
		default:
			return nil
		}
	}
	return args
}

// badAct is one that is refused, whatever way it comes.
type badAct struct {
	act
	name   string
	body   object
	code   string
	fields []string
}

// badActs are those about a request whose first signer has a link and whose second waits, and about one that was cancelled.
func badActs(going, closed string) []badAct {
	long := strings.Repeat("r", 501)
	const unknown, invalid = "req_doesnotexist", "REQUEST_INVALID"
	signer := func(fields object) []any {
		fields["signer"] = "1"
		return []any{fields}
	}
	var all []badAct
	add := func(a act, name string, body object, code string, fields ...string) {
		all = append(all, badAct{a, name, body, code, append([]string{}, fields...)})
	}
	for _, a := range []act{amend, cancel, reissue, revoke} {
		with := func(id string, more object) object {
			body := object{"id": id}
			if strings.Contains(a.path, "{signer}") {
				body["signer"] = "1"
			}
			if strings.Contains(a.method, "Amend") {
				body["deadline"] = "2031-01-01T00:00:00Z"
			}
			for name, value := range more {
				body[name] = value
			}
			return body
		}
		add(a, "no such request", with(unknown, nil), "REQUEST_UNKNOWN")
		add(a, "an id that is none", with("nope", nil), invalid, "id")
		add(a, "a long reason", with(going, object{"reason": long}), invalid, "reason")
		for _, words := range []string{"a\u0000b", "a\u202eb", "a\u200bb"} {
			add(a, fmt.Sprintf("the reason %q", words), with(going, object{"reason": words}), invalid, "reason")
		}
		add(a, "a long key", with(going, object{"idempotency_key": strings.Repeat("k", 129)}), invalid, "idempotency_key")
	}
	add(amend, "nothing", object{"id": going}, invalid, "$")
	add(amend, "a request that has ended", object{"id": closed, "deadline": "2031-01-01T00:00:00Z"}, "REQUEST_CLOSED")
	add(amend, "a deadline that has passed", object{"id": going, "deadline": "2020-01-01T00:00:00Z"}, invalid, "deadline")
	add(amend, "a deadline in a hundred years", object{"id": going, "deadline": "2126-01-01T00:00:00Z"}, invalid, "deadline")
	add(amend, "no such signer", object{"id": going, "signers": []any{object{"signer": "9", "name": "Ada"}}}, invalid, "signers[0].signer")
	add(amend, "a signer twice", object{"id": going, "signers": []any{object{"signer": "1", "name": "Ada"}, object{"signer": "1", "name": "Eda"}}}, invalid, "signers[1].signer")
	add(amend, "a signer and nothing", object{"id": going, "signers": []any{object{"signer": "1"}}}, invalid, "signers[0]")
	for field, values := range map[string][]any{
		"name":      {"   ", "a\u0000b", "a\r\nBcc: b", "a\u202eb", strings.Repeat("a", 201)},
		"email":     {"ada", "ada@", "Ada <ada@example.com>", "ada@example.com\r\nBcc: bob@example.com"},
		"locale":    {"_!", strings.Repeat("e", 36)},
		"time_zone": {"Mars/Base", "Local", "../../etc/passwd"},
		"group":     {0, 51},
	} {
		for _, value := range values {
			add(amend, fmt.Sprintf("%s %.20q", field, fmt.Sprint(value)), object{"id": going, "signers": signer(object{field: value})}, invalid, "signers[0]."+field)
		}
	}
	add(amend, "a long value", object{"id": going, "metadata": object{"k": strings.Repeat("v", 1025)}}, invalid, "metadata[*]")
	for _, a := range []act{reissue, revoke} {
		add(a, "no such signer", object{"id": going, "signer": "9"}, "SIGNER_UNKNOWN")
		add(a, "a signer who waits", object{"id": going, "signer": "2"}, "LINK_NOT_YET")
		add(a, "a link that has ended", object{"id": closed, "signer": "1"}, "LINK_CANCELLED")
	}
	add(erase, "no such request", object{"id": unknown}, "REQUEST_UNKNOWN")
	add(erase, "an id that is none", object{"id": "nope"}, invalid, "id")
	add(erase, "a request that goes on", object{"id": going}, "REQUEST_OPEN")
	add(erase, "a signer of a request that goes on", object{"id": going, "signer": "1"}, "REQUEST_OPEN")
	add(erase, "no such signer", object{"id": closed, "signer": "9"}, "SIGNER_UNKNOWN")
	add(erase, "a long name for a signer", object{"id": closed, "signer": strings.Repeat("s", 65)}, invalid, "signer")
	add(erase, "a long key", object{"id": closed, "idempotency_key": strings.Repeat("k", 129)}, invalid, "idempotency_key")
	for _, basis := range []string{"Ada asked for it", "a\u0000b", "a\u202eb", strings.Repeat("b", 65)} {
		add(erase, fmt.Sprintf("the basis %.10q", basis), object{"id": closed, "basis": basis}, invalid, "basis")
	}
	for field, value := range map[string]any{"lifetime": "0s", "reissue_window": "0s", "assurance": 5} {
		add(setProfile, fmt.Sprint(field, " ", value), object{"name": "mine", field: value}, invalid, field)
	}
	// The command line refuses these by its own words for durations.
	add(setProfile, "a negative grace", object{"name": "mine", "grace": "-1s", "reissue_limit": 3}, invalid, "grace")
	add(setProfile, "no session, which no idle time fits", object{"name": "mine", "session": "0s"}, invalid, "idle", "session")
	add(setProfile, "a name that is none", object{"name": "No-Name", "lifetime": "3600s"}, invalid, "name")
	add(setRules, "an expression that is none", object{"rules": []any{object{"when": "template ==", "use": "standard"}}}, invalid, "rules[0].when")
	add(setRules, "a profile that is not there", object{"rules": []any{object{"when": "template == 'a'", "use": "nowhere"}}}, invalid, "rules[0].use")
	add(setRules, "no expression", object{"rules": []any{object{"use": "standard"}}}, invalid, "rules[0].when")
	add(retire, "no such profile", object{"name": "nowhere"}, "PROFILE_UNKNOWN")
	return all
}

// ask carries an act out in each way it has, and returns how it was refused.
func (b badAct) ask(ctx context.Context, in *instance, nc *nats.Conn, conn *grpc.ClientConn) (map[string]refusal, error) {
	body, err := json.Marshal(b.body)
	if err != nil {
		return nil, err
	}
	got := map[string]refusal{}
	keep := func(way string, r refusal, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", way, err)
		}
		got[way] = r
		return nil
	}
	asks := proto.Clone(b.asks)
	if err := protojson.Unmarshal(body, asks); err == nil {
		r, err := called(conn.Invoke(ctx, b.method, asks, proto.Clone(b.answers)))
		if err := keep("gRPC", r, err); err != nil {
			return nil, err
		}
	}
	path, rest := b.path, object{}
	for name, value := range b.body {
		if slot := "{" + name + "}"; strings.Contains(path, slot) {
			path = strings.ReplaceAll(path, slot, url.PathEscape(fmt.Sprint(value)))
		} else {
			rest[name] = value
		}
	}
	content := ""
	if b.verb != http.MethodDelete {
		encoded, err := json.Marshal(rest)
		if err != nil {
			return nil, err
		}
		content = string(encoded)
	}
	r, err := over(ctx, b.verb, in.Addresses.HTTP+path, content)
	if err := keep("REST", r, err); err != nil {
		return nil, err
	}
	if b.event != "" {
		r, err := asked(ctx, nc, body, "application/json", b.event)
		if err := keep("NATS", r, err); err != nil {
			return nil, err
		}
	}
	if b.typed != nil {
		if args := b.typed(b.body); args != nil {
			r, err := said(ctx, "", append(args, "--server", in.Addresses.GRPC)...)
			if err := keep("the command line", r, err); err != nil {
				return nil, err
			}
		}
	}
	return got, nil
}

// TestRefusedActs asks with every bad act in every way it has: the same code, fields and words everywhere, and nothing is changed.
func TestRefusedActs(t *testing.T) {
	t.Parallel()
	in := newInstance(t, calmSettings, "--client-rate", "10000", "--client-burst", "10000")
	in.start("")
	ctx := within(t, 2*time.Minute)
	nc, err := nats.Connect(in.Addresses.NATS)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	conn, err := grpc.NewClient(in.Addresses.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is under way
	going, err := in.create(ctx, withPeople(t, request("going", "calm", "ada@example.com", "grace@example.com"), object{"group": 1}, object{"group": 2}))
	if err != nil {
		t.Fatal(err)
	}
	closed, err := in.create(ctx, request("closed", "calm", "bob@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	for _, email := range []string{"ada@example.com", "bob@example.com"} {
		await(ctx, t, in.person(email).Signer, withLink)
	}
	if status, err := call(ctx, http.MethodPost, in.Addresses.HTTP+"/v1/requests/"+closed.ID+":cancel", []byte(`{}`), nil); err != nil || status != http.StatusOK {
		t.Fatalf("cancel answered %d, %v", status, err)
	}
	o := in.oracle(t)
	o.quiet(ctx)
	before := fmt.Sprint(o.stated(ctx, "token", going.ID), o.stated(ctx, "token", closed.ID))
	corpus, answers := badActs(going.ID, closed.ID), 0
	for _, b := range corpus {
		name := b.method[strings.LastIndexByte(b.method, '/')+1:] + ", " + b.name
		got, err := b.ask(ctx, in, nc, conn)
		if err != nil {
			t.Errorf("%s, by %v", name, err)
			continue
		}
		words := map[string]string{}
		for way, r := range got {
			answers++
			if f := failure.Lookup(r.code); r.code != b.code || !slices.Equal(r.paths(), b.fields) || f == nil || f.Next == "" {
				t.Errorf("%s, by %s: %s %q, want %s %q", name, way, r.code, r.paths(), b.code, b.fields)
			}
			for path, problem := range r.fields {
				if known, ok := words[path]; ok && known != problem {
					t.Errorf("%s: %s is told as %q and as %q", name, path, known, problem)
				}
				words[path] = problem
			}
		}
	}
	t.Logf("%d acts, %d refusals", len(corpus), answers)
	o.quiet(ctx)
	if after := fmt.Sprint(o.stated(ctx, "token", going.ID), o.stated(ctx, "token", closed.ID)); after != before {
		t.Errorf("something was changed: %s, before %s", after, before)
	}
	in.stop()
}
