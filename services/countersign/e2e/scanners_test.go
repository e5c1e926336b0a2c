package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"countersign.dev/pkg/failure"
	"countersign.dev/services/countersign/signer"
	"countersign.dev/services/gateway/pages"
)

// window is a proxy in front of the gateway that sees what visitors are shown.
type window struct {
	url    string
	target atomic.Pointer[url.URL]

	mu    sync.Mutex
	shown []shown
	lure  string // a link that the page /lure has a browser load ahead of a click
}

// shown is one answer.
type shown struct {
	path, purpose, kind string
	status              int
}

func newWindow(t *testing.T) *window {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &window{url: "http://" + l.Addr().String()}
	mux := http.NewServeMux()
	mux.Handle("/", &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(w.target.Load()); r.Out.Host = r.In.Host },
		ModifyResponse: func(r *http.Response) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
			purpose := r.Request.Header.Get("Sec-Purpose") + r.Request.Header.Get("Purpose")
			w.shown = append(w.shown, shown{r.Request.URL.Path, purpose, kind, r.StatusCode})
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {}, // a browser that went on
	})
	mux.HandleFunc("GET /lure", func(out http.ResponseWriter, _ *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		out.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(out, `<!doctype html><title>lure</title><a href="%[1]s">link</a><img src="%[1]s"><link rel="prefetch" href="%[1]s">
<script type="speculationrules">{"prerender":[{"source":"list","urls":[%[1]q],"eagerness":"immediate"}]}</script>`, w.lure)
	})
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: mux}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return w
}

// since returns what was shown after the first n answers, without what every page loads.
func (w *window) since(n int) []shown {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.shown[n:]), func(s shown) bool { return strings.HasPrefix(s.path, pages.AssetsPrefix) })
}

func (w *window) count() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.shown) }

// robot is something that looks at links before people do.
type robot struct {
	name  string
	burns bool // whether it may begin the link's session: it presses buttons
	visit func(ctx context.Context, t *testing.T, w *window, link string)
}

// robots are all kinds that spec 2.2 and security.md 3.3 speak of.
var robots = []robot{
	{"plain GET", false, func(ctx context.Context, t *testing.T, _ *window, link string) {
		asks(ctx, t, link, http.MethodGet, http.Header{"User-Agent": {"Mozilla/5.0 (compatible; LinkScanner/2.0)"}})
	}},
	{"HEAD and other methods", false, func(ctx context.Context, t *testing.T, _ *window, link string) {
		for _, method := range []string{http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			asks(ctx, t, link, method, nil)
		}
	}},
	{"POST without the page's form", false, func(ctx context.Context, t *testing.T, _ *window, link string) {
		asks(ctx, t, link, http.MethodPost, nil)
		asks(ctx, t, link, http.MethodPost, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Sec-Fetch-Site": {"same-origin"}})
	}},
	{"prefetch", false, func(ctx context.Context, t *testing.T, _ *window, link string) {
		for _, purpose := range []string{"prefetch", "prefetch;prerender", "prefetch;anonymous-client-ip"} {
			asks(ctx, t, link, http.MethodGet, http.Header{"Sec-Purpose": {purpose}, "Purpose": {"prefetch"}, "X-Moz": {"prefetch"}, "Sec-Fetch-Mode": {"navigate"}})
		}
	}},
	{"a browser that loads ahead", false, loadsAhead},
	{"a browser that runs scripts and waits", false, looksOn},
	{"a robot that submits every form", true, submitsAll},
	{"a browser that submits every form", true, clicksAll},
}

// asks makes a call three times, as one visitor with cookies.
func asks(ctx context.Context, t *testing.T, link, method string, header http.Header) {
	t.Helper()
	jar, _ := cookiejar.New(nil) // never fails without options
	client := &http.Client{Jar: jar}
	for range 3 {
		req, err := http.NewRequestWithContext(ctx, method, link, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for name, values := range header {
			req.Header[name] = values
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode >= http.StatusInternalServerError || len(res.Cookies()) > 0 {
			t.Errorf("%s was answered %d, with cookies %v", method, res.StatusCode, res.Cookies())
		}
	}
}

// loadsAhead is a browser on a page that has the link loaded, and rendered, before anybody clicks.
func loadsAhead(ctx context.Context, t *testing.T, w *window, link string) {
	t.Helper()
	w.mu.Lock()
	w.lure = link
	w.mu.Unlock()
	n := w.count()
	p := newPhone(t, true)
	p.do(chromedp.Navigate(w.url + "/lure"))
	eventually(ctx, t, "the browser loads the link ahead", func() bool {
		return slices.ContainsFunc(w.since(n), func(s shown) bool { return strings.HasPrefix(s.purpose, "prefetch") && s.status == http.StatusOK })
	})
	pause(ctx, time.Second) // for whatever scripts of a page that is rendered ahead would do
}

// looksOn is a browser that renders the page with its scripts, scrolls, and presses nothing.
func looksOn(ctx context.Context, t *testing.T, _ *window, link string) {
	t.Helper()
	p := newPhone(t, true)
	for range 2 {
		p.do(chromedp.Navigate(link))
		p.sees("form button.primary")
		if _, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](`(() => { scrollTo(0, document.body.scrollHeight); document.body.focus(); return true })()`)); err != nil {
			t.Fatal(err)
		}
		pause(ctx, time.Second)
	}
}

// mostForms is how many forms a robot submits before it goes on to the next link.
const mostForms = 20

// submitsAll runs no scripts: it submits every form it comes to, as it is and with something in every field, and gets every link and
// picture of every page.
func submitsAll(ctx context.Context, t *testing.T, w *window, link string) {
	t.Helper()
	s := signer.New("robot@scanner.example", "")
	done := map[string]bool{}
	next := []*signer.Page{get(ctx, t, s, link)}
	for len(next) > 0 && len(done) < mostForms {
		page := next[0]
		next = next[1:]
		for _, address := range slices.Concat(page.Links, page.Images) {
			if strings.HasPrefix(address, w.url) && !done[address] {
				done[address] = true
				next = append(next, get(ctx, t, s, address))
			}
		}
		for _, form := range page.Forms {
			filled := map[string]string{}
			for name := range form.Fields {
				if form.Fields.Get(name) == "" {
					filled[name] = "123456"
				}
			}
			for _, fill := range []map[string]string{nil, filled} {
				what := fmt.Sprint(form.Method, form.Action.Path, len(fill), len(form.Fields))
				if done[what] {
					continue
				}
				done[what] = true
				answer, err := s.Submit(ctx, form, fill)
				if err != nil {
					t.Fatal(err)
				}
				next = append(next, answer)
			}
		}
	}
}

// clicksAll does so in a browser, by script.
func clicksAll(_ context.Context, t *testing.T, _ *window, link string) {
	t.Helper()
	p := newPhone(t, true)
	p.do(chromedp.Navigate(link))
	done := map[string]bool{}
	for range mostForms {
		forms, err := chromedp.Run(p.ctx, chromedp.Evaluate[[]string](
			`[...document.forms].filter(f => f.method == "post").map(f => f.action + " " + [...f.elements].map(e => e.name).join(" "))`))
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(forms, func(f string) bool { return !done[f] })
		if i < 0 {
			return
		}
		done[forms[i]] = true
		if _, err := chromedp.Run(p.ctx, chromedp.Evaluate[bool](fmt.Sprintf(`(() => {
			const f = [...document.forms].filter(f => f.method == "post")[%d];
			f.noValidate = true;
			f.id = "chosen";
			for (const e of f.elements) {
				if (e.type == "checkbox" || e.type == "radio") e.checked = true;
				else if (e.type != "hidden" && !e.value) e.value = "123456";
			}
			for (let d = f.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
			return true;
		})()`, i))); err != nil {
			t.Fatal(err)
		}
		if _, err := chromedp.RunResponse(p.ctx, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
			_, err := chromedp.Evaluate[bool](`(() => { document.getElementById("chosen").requestSubmit(); return true })()`)(ctx, target)
			return err
		})); err != nil {
			t.Fatal(err)
		}
	}
}

// TestScanners has each kind of robot find a link before its signer does. What presses nothing changes nothing: not one fact is
// stated of the link. What submits forms may begin a session, but is shown nothing of the document, can neither sign nor decline, and
// leaves the person one verification away.
func TestScanners(t *testing.T) {
	t.Parallel()
	w := newWindow(t)
	in := newInstance(t, calmSettings, append(quickFlags, "--public-url", w.url)...)
	in.start("")
	target, err := url.Parse(in.Addresses.HTTP)
	if err != nil {
		t.Fatal(err)
	}
	w.target.Store(target)
	o := in.oracle(t)
	for _, r := range robots {
		t.Run(r.name, func(t *testing.T) {
			ctx := within(t, 2*time.Minute)
			email := strings.ReplaceAll(r.name, " ", ".") + "@example.com"
			v, err := in.create(ctx, request(r.name, "calm", email))
			if err != nil {
				t.Fatal(err)
			}
			p := in.person(email)
			link := await(ctx, t, p.Signer, withLink).Link()
			o.quiet(ctx)
			before, n := o.stated(ctx, "token", v.ID), w.count()

			r.visit(ctx, t, w, link)

			for _, s := range w.since(n) {
				if s.kind == "application/pdf" || strings.HasPrefix(s.kind, "image/") || s.status >= http.StatusInternalServerError {
					t.Errorf("the robot was shown %+v", s)
				}
			}
			after := o.stated(ctx, "token", v.ID)
			if !r.burns {
				if fmt.Sprint(after) != fmt.Sprint(before) {
					t.Errorf("of the link was stated %v, before %v", after, before)
				}
				if page := get(ctx, t, p.OtherBrowser(), link); page.Status != http.StatusOK {
					t.Errorf("afterwards the link shows %s", describe(page))
				}
			} else {
				if after["LinkRedeemed"] != 1 {
					t.Errorf("the robot pressed no button: it proves nothing: %v", after)
				}
				onceMore(ctx, t, p, link)
			}
			if err := p.signs(ctx, v.ID, 1); err != nil {
				t.Fatal(err)
			}
			in.completed(t, ctx, v.ID)
			if got := o.stated(ctx, "token", v.ID); got["LinkRedeemed"] != 1 || got["LinkDeclined"] != 0 || (got["LinkResumed"]+got["LinkReissued"] == 1) != r.burns {
				t.Errorf("in the end was stated %v", got)
			}
		})
	}
	in.stop()
}

// onceMore takes a person from a link that a robot has used to the document: by one verification.
func onceMore(ctx context.Context, t *testing.T, p *person, link string) {
	t.Helper()
	page := get(ctx, t, p.Signer, link)
	if !says(page, failure.LinkUsed) {
		t.Fatalf("the person is shown %s", describe(page))
	}
	mails, err := p.Mails(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mails { // codes that the robot had sent are no good here
		p.seen[m.ID] = true
	}
	page = press(ctx, t, p.Signer, page, nil)
	code, err := p.Await(ctx, func(m signer.Mail) bool { return m.Code() != "" }, p.seen)
	if err != nil {
		t.Fatal(err)
	}
	page = press(ctx, t, p.Signer, page, map[string]string{pages.FieldCode: code.Code()})
	if _, err := page.Form(pages.FieldName); err != nil {
		t.Errorf("after one verification the person is shown %s", describe(page))
	}
	p.page = page
}
