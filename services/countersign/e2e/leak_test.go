package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"countersign.dev/pkg/telemetry/telemetrytest"
	"countersign.dev/services/countersign/sample"
	"countersign.dev/services/countersign/signer"
	"countersign.dev/services/gateway/pages"
)

// front is a proxy in front of the gateway, as in production: it tells where a signer comes from and with what browser, and it
// collects the browsers' secrets for the search.
type front struct {
	url    string
	target atomic.Pointer[url.URL]
}

const (
	signersAddress = "203.0.113.77"
	signersBrowser = "Geheimfuchs/7.3 (Hinterzimmer)"
)

func newFront(t *testing.T, hidden *needles) *front {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{url: "http://" + l.Addr().String()}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(f.target.Load())
			r.Out.Host = r.In.Host
			r.Out.Header.Set("X-Forwarded-For", signersAddress)
			r.Out.Header.Set("User-Agent", signersBrowser)
		},
		ModifyResponse: func(r *http.Response) error {
			for _, c := range r.Cookies() {
				if len(c.Value) > 20 {
					hidden.add("a browser's secret", c.Value)
				}
			}
			return nil
		},
	}}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return f
}

// private is a request whose every value is unmistakable. n makes its values differ from those of others.
func private(t *testing.T, hidden *needles, n string) []byte {
	t.Helper()
	person := func(role, first, last string) map[string]any {
		last += n
		name, email := first+" "+last, strings.ToLower(first+"."+last)+"@geheim-"+n+".example"
		hidden.add("a name", name, last)
		hidden.add("an address", email)
		hidden.add("part of an address", "geheim-"+n)
		return map[string]any{"name": name, "email": email, "locale": "de", "time_zone": "Europe/Berlin"}
	}
	one := person("signer", "Zacharias", "Quellwässer")
	one["email"] = "zacharias.quellwasser" + n + "@geheim-" + n + ".example"
	hidden.add("an address", one["email"].(string)) //nolint:errcheck,forcetypeassert // a text, set above
	one["alternates"] = []any{person("alternate", "Kunigunde", "Fernweh")}
	one["manager"] = person("manager", "Baldewin", "Turmfalk")
	title, file, metadata := "Übernahme der Nachtfalter GmbH "+n, "nachtfalter-"+n+"-vertrag.pdf", "kostenstelle-rabenhorst-"+n
	hidden.add("a title", title)
	hidden.add("a file name", file, strings.TrimSuffix(file, ".pdf"))
	hidden.add("metadata", metadata)
	body, err := json.Marshal(map[string]any{
		"reference": "leak-" + n, "title": title, "profile": "calm", "signers": []any{one}, "metadata": map[string]any{"kst": metadata},
		"documents": []any{map[string]any{"name": file, "content": sample.Offer("Quellwasser")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func emailOf(n string) string { return "zacharias.quellwasser" + n + "@geheim-" + n + ".example" }

// TestNothingPrivateAnywhere goes through a run with every kind of message, one of them refused, one dead-lettered, one unread, and
// then looks for every value it used in everything that the run left behind.
func TestNothingPrivateAnywhere(t *testing.T) {
	var hidden needles
	hidden.add("where a signer is", signersAddress)
	hidden.add("a signer's browser", signersBrowser, "Geheimfuchs")
	sink, front := telemetrytest.NewSink(t), newFront(t, &hidden)
	in := newInstance(t, calmSettings, append(quickFlags, "--otlp", sink.Endpoint(), "--log-level", "debug", "--public-url", front.url, "--trusted-proxies", "127.0.0.0/8")...)
	in.start("")
	target, err := url.Parse(in.Addresses.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	front.target.Store(target)
	ctx := within(t, 4*time.Minute)

	signs(ctx, t, in, &hidden)
	declines(ctx, t, in, &hidden)
	cancels(ctx, t, in, &hidden)
	refusedAndDead(ctx, t, in, &hidden)
	forms := hidden.forms()
	leaks := append(inRedis(ctx, t, in, forms), inMetrics(ctx, t, in, forms)...)
	in.oracle(t).quiet(ctx)
	in.stop()

	leaks = append(leaks, search(forms, "the logs", in.logs.Bytes())...)
	leaks = append(leaks, inSpans(t, sink, &hidden, forms)...)
	unread := private(t, &hidden, "ungelesen")
	forms = hidden.forms()
	leaks = append(leaks, inStreams(ctx, t, in, forms, unread)...)
	leaks = append(leaks, inFiles(t, in, forms)...)
	told := map[string]bool{}
	for _, l := range leaks {
		if line := fmt.Sprintf("%s (%q) stands %s in %s: %s", l.what, l.value, l.how, l.where, l.around); !told[line] {
			told[line] = true
			t.Error(line)
		}
	}
	for _, kind := range []string{"a link's token", "a code", "a name", "an address", "a title", "a file name", "a reason", "a browser's secret"} {
		if hidden.count()[kind] == 0 {
			t.Errorf("%s was never used: the search proves nothing about it", kind)
		}
	}
	t.Logf("looked for %v in %d forms", hidden.count(), len(forms))
}

// secretsOf adds the tokens and codes that a person was sent.
func secretsOf(ctx context.Context, t *testing.T, p *signer.Signer, hidden *needles) {
	t.Helper()
	mails, err := p.Mails(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mails {
		if link := m.Link(); link != "" {
			token := link[strings.LastIndex(link, "/")+1:]
			hidden.add("a link's token", token, strings.TrimPrefix(token, "cs1_"))
		}
		if code := m.Code(); code != "" {
			hidden.add("a code", code, code[:3]+" "+code[3:])
		}
	}
}

// signs has a request signed, over a reissue that the platform gave a reason for, with a wrong code on the way.
func signs(ctx context.Context, t *testing.T, in *instance, hidden *needles) {
	t.Helper()
	v, err := in.create(ctx, private(t, hidden, "eins"))
	if err != nil {
		t.Fatal(err)
	}
	p := in.person(emailOf("eins"))
	first := await(ctx, t, p.Signer, withLink)
	reason := "Postfach war gehackt (Grauzone)"
	hidden.add("a reason", reason)
	body := fmt.Appendf(nil, `{"reason":%q}`, reason)
	if status, err := call(ctx, http.MethodPost, in.Addresses.HTTP+"/v1/requests/"+v.ID+"/signers/1:reissue", body, nil); err != nil || status != http.StatusOK {
		t.Fatalf("reissue answered %d, %v", status, err)
	}
	await(ctx, t, p.Signer, func(m signer.Mail) bool { return withLink(m) && m.Link() != first.Link() })
	hidden.add("a typed name", "Testperson")
	if err := p.signs(ctx, v.ID, 1); err != nil {
		t.Fatal(err)
	}
	in.completed(t, ctx, v.ID)
	await(ctx, t, p.Signer, func(m signer.Mail) bool { return len(m.Attachments) == 2 })
	secretsOf(ctx, t, p.Signer, hidden)
}

// declines has a signer decline, with a reason.
func declines(ctx context.Context, t *testing.T, in *instance, hidden *needles) {
	t.Helper()
	v, err := in.create(ctx, private(t, hidden, "zwei"))
	if err != nil {
		t.Fatal(err)
	}
	p, reason := in.person(emailOf("zwei")), "Das Gehalt ist unter aller Kanone"
	hidden.add("a reason", reason)
	if err := persist(ctx, in, func() error {
		if p.page != nil {
			if _, err := p.page.Form(pages.FieldReason); err == nil {
				return nil
			}
		}
		if err := p.step(ctx); err != nil {
			return err
		}
		_, err := p.page.Form(pages.FieldReason)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	press(ctx, t, p.Signer, p.page, map[string]string{pages.FieldReason: reason})
	becomes(ctx, t, in, v.ID, "REQUEST_STATUS_DECLINED")
	secretsOf(ctx, t, p.Signer, hidden)
}

// cancels has the platform cancel a request, with a reason.
func cancels(ctx context.Context, t *testing.T, in *instance, hidden *needles) {
	t.Helper()
	v, err := in.create(ctx, private(t, hidden, "drei"))
	if err != nil {
		t.Fatal(err)
	}
	p, reason := in.person(emailOf("drei")), "Wir haben uns anders entschieden (Rabenhorst)"
	hidden.add("a reason", reason)
	await(ctx, t, p.Signer, withLink)
	body := fmt.Appendf(nil, `{"reason":%q}`, reason)
	if status, err := call(ctx, http.MethodPost, in.Addresses.HTTP+"/v1/requests/"+v.ID+":cancel", body, nil); err != nil || status != http.StatusOK {
		t.Fatalf("cancel answered %d, %v", status, err)
	}
	becomes(ctx, t, in, v.ID, "REQUEST_STATUS_CANCELLED")
	await(ctx, t, p.Signer, func(m signer.Mail) bool { return strings.Contains(m.Text, "Rabenhorst") })
	secretsOf(ctx, t, p.Signer, hidden)
}

func becomes(ctx context.Context, t *testing.T, in *instance, id, status string) {
	t.Helper()
	eventually(ctx, t, "the request becomes "+status, func() bool {
		v, err := in.look(ctx, id)
		return err == nil && v.Status == status
	})
}

// refusedAndDead publishes what is refused, field by field and as a whole, and what nobody can answer, so that it goes to the dead
// letters: an intake of no tenant, and a fact that is none.
func refusedAndDead(ctx context.Context, t *testing.T, in *instance, hidden *needles) {
	t.Helper()
	nc, err := nats.Connect(in.Addresses.NATS)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	var wrong map[string]any
	if err := json.Unmarshal(private(t, hidden, "vier"), &wrong); err != nil {
		t.Fatal(err)
	}
	signers, _ := wrong["signers"].([]any)
	one, _ := signers[0].(map[string]any)
	one["email"], one["time_zone"], wrong["profile"] = "kein.postfach.rabenauge", "Mordor/Schicksalsberg", "profil-rabenauge"
	hidden.add("a wrong value", "kein.postfach.rabenauge", "Mordor/Schicksalsberg", "profil-rabenauge")
	body, err := json.Marshal(wrong)
	if err != nil {
		t.Fatal(err)
	}
	hidden.add("a name", "Unleserlich Krähenfuß")
	for subject, data := range map[string][]byte{
		"intake.demo": body, "intake.KEINER": private(t, hidden, "fuenf"), "fact.ceremony.demo.cer_rubbish": []byte("rubbish"),
	} {
		if err := nc.Publish(subject, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Publish("intake.demo", []byte(`{"title":"Unleserlich Krähenfuß","signers":[{"name":7}`)); err != nil {
		t.Fatal(err)
	}
	o := in.oracle(t)
	eventually(ctx, t, "what is refused is told", func() bool {
		n := 0
		for _, m := range o.all(ctx, "OUTCOMES", "outcome.demo.*") {
			if strings.Contains(string(m.Data), `"rejected"`) {
				n++
			}
		}
		return n == 2
	})
	eventually(ctx, t, "what is dead is buried", func() bool {
		intake, facts := len(o.all(ctx, "DEAD", "dead.token.INTAKE")), len(o.all(ctx, "DEAD", "dead.*.FACTS_CEREMONY"))
		return intake == 1 && facts > 0
	})
}
