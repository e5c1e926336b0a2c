package pages

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	// Drives the browser signers have; plain CDP, no Node needed.
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/chromedp"
)

// layoutFaults measures what a narrow phone shows: nothing sticks out, nothing is too small to hit (WCAG 2.2 1.4.10, 2.5.8).
const layoutFaults = `(() => {
  const faults = [];
  if (document.documentElement.scrollWidth > innerWidth) faults.push("scrolls sideways: " + document.documentElement.scrollWidth);
  if (getComputedStyle(document.body).backgroundColor === "rgba(0, 0, 0, 0)") faults.push("the style sheet does not apply");
  for (const e of document.querySelectorAll("a, button, input:not([type=hidden]), summary, textarea")) {
    const r = e.getBoundingClientRect(), inText = e.closest("p:not(.tools):not(.back):not(.more)");
    if (r.width === 0 || e.matches(".skip") || inText) continue;
    const least = e.matches(".primary") ? 44 : 24;
    if (r.height < least || r.width < least) faults.push("too small: " + e.outerHTML.slice(0, 80) + " " + r.width + "x" + r.height);
  }
  return faults;
})()`

const axeFaults = `axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html.slice(0, 120)).join(" | ")))`

// TestInBrowser serves every page with its real headers to Chromium, on the narrowest phone. With COUNTERSIGN_AXE naming
// axe.min.js (npm axe-core) its accessibility rules are run too, in light and dark.
func TestInBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("COUNTERSIGN_REQUIRE_TOOLS") != "" {
			t.Fatal("chromium is not installed")
		}
		t.Skip("chromium is not installed")
	}
	axe := ""
	if name := os.Getenv("COUNTERSIGN_AXE"); name != "" {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		axe = string(source)
	}
	server := httptest.NewServer(samplesHandler(t))
	defer server.Close()
	ctx, done := browser(t, chromium)
	defer done()

	blocked := make(chan string, 100)
	if err := chromedp.Listen(ctx, func(event any) {
		if e, ok := event.(*log.EventEntryAdded); ok && strings.Contains(e.Entry.Text, "Content Security Policy") {
			select {
			case blocked <- e.Entry.Text:
			default: // one is enough to fail
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	schemes, locales := []string{"light"}, []string{"de"} // the language of long words is the one that breaks a layout
	if axe != "" {
		schemes, locales = append(schemes, "dark"), Locales()
	}
	for _, locale := range locales {
		for _, s := range Samples(locale) {
			for _, scheme := range schemes {
				t.Run(scheme+"/"+locale+"/"+s.Name, func(t *testing.T) {
					look(ctx, t, server.URL+"/s/"+locale+"/"+s.Name, scheme, axe)
				})
			}
		}
	}
	select {
	case what := <-blocked:
		t.Errorf("the policy blocked something: %s", what)
	default:
	}
}

// samplesHandler serves the samples at /s/<language>/<name>, their assets and pictures.
func samplesHandler(t *testing.T) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(AssetsPrefix, Assets())
	mux.HandleFunc("/sign/doc/", func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range Headers(Policy{}) {
			w.Header().Set(name, value)
		}
		w.Header().Set("Content-Type", "image/svg+xml")
		_, _ = w.Write(samplePicture(1))
	})
	for _, locale := range Locales() {
		for _, s := range Samples(locale) {
			mux.HandleFunc("/s/"+locale+"/"+s.Name, func(w http.ResponseWriter, _ *http.Request) {
				if err := Write(w, s.Page, Policy{}); err != nil {
					t.Errorf("%s: %v", s.Name, err)
				}
			})
		}
	}
	return mux
}

// browser starts Chromium with a profile of its own.
func browser(t *testing.T, path string) (context.Context, func()) {
	t.Helper()
	deadline, cancel := context.WithTimeout(context.Background(), 9*time.Minute) // axe takes a second a page
	alloc, stop := chromedp.NewExecAllocator(deadline, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.UserDataDir(t.TempDir()))...)
	ctx, end := chromedp.NewContext(alloc)
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(320, 640)); err != nil {
		t.Fatal(err)
	}
	return ctx, func() { end(); stop(); cancel() }
}

func look(ctx context.Context, t *testing.T, url, scheme, axe string) {
	t.Helper()
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	faults, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](layoutFaults))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults {
		t.Error(fault)
	}
	if axe == "" {
		return
	}
	if faults, err = chromedp.Run(ctx, chromedp.Evaluate[[]string](axe+";"+axeFaults, chromedp.EvalAwaitPromise)); err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults {
		t.Errorf("axe: %s", fault)
	}
}

// TestValidator runs the Nu HTML checker over all samples, where COUNTERSIGN_VNU names vnu.jar (npm vnu-jar).
func TestValidator(t *testing.T) {
	jar := os.Getenv("COUNTERSIGN_VNU")
	if jar == "" {
		t.Skip("COUNTERSIGN_VNU names no vnu.jar")
	}
	dir := t.TempDir()
	if err := Preview(dir); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("java", "-jar", jar, "--format", "gnu", "--skip-non-html", dir).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
