package gateway

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"countersign.dev/pkg/auth"
	"countersign.dev/pkg/server"
	"countersign.dev/services/gateway/pages"
)

// Limits of one request: a form or an upload has to arrive, and a document to leave over a slow line, within these.
const (
	readLimit  = time.Minute
	writeLimit = 5 * time.Minute
	drainLimit = 15 * time.Second
)

// Serve begins to listen on Config.HTTP and returns the component that serves, and the address, which has the port that was
// taken where 0 was asked for.
func (s *Service) Serve() (server.Component, string, error) {
	if err := auth.CheckListener(s.settings.HTTP, s.keys != nil); err != nil {
		return server.Component{}, "", err
	}
	l, err := net.Listen("tcp", s.settings.HTTP)
	if err != nil {
		return server.Component{}, "", fmt.Errorf("gateway: listen: %w", err)
	}
	h := &http.Server{
		Handler: s.Handler(), ReadTimeout: readLimit, WriteTimeout: writeLimit,
		// net/http's own lines name peers by their address, which is personal; what fails in a handler is logged by us.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	return server.HTTP("http", h, l, drainLimit), l.Addr().String(), nil
}

// Handler answers everything the gateway answers. Its outermost layer must stay outermost: it hides what no instrumentation
// may see.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /s/{token}", s.page(s.openLink))
	mux.Handle("POST /s/{token}", s.form(s.redeem))

	mux.Handle("GET /sign/{tenant}/{link}", s.page(s.signPage))
	mux.Handle("GET /sign/{tenant}/{link}/pages/{document}/{file}", s.page(s.pageImage))
	mux.Handle("GET /sign/{tenant}/{link}/read/{document}/{page}", s.page(s.readingPage))
	mux.Handle("GET /sign/{tenant}/{link}/document.pdf", s.page(s.download))
	mux.Handle("GET /sign/{tenant}/{link}/certificate.pdf", s.page(s.certificate))
	mux.Handle("POST /sign/{tenant}/{link}/code", s.form(s.signCode))
	mux.Handle("POST /sign/{tenant}/{link}/resend", s.form(s.signResend))
	mux.Handle("POST /sign/{tenant}/{link}/sign", s.form(s.sign))
	mux.Handle("POST /sign/{tenant}/{link}/decline", s.form(s.decline))

	mux.Handle("GET /continue/{tenant}/{link}", s.page(s.continuePage))
	mux.Handle("POST /continue/{tenant}/{link}", s.form(s.beginContinue))
	mux.Handle("POST /continue/{tenant}/{link}/code", s.form(s.continueCode))
	mux.Handle("POST /continue/{tenant}/{link}/resend", s.form(s.continueResend))

	mux.Handle("/v1/", s.api())
	mux.Handle(pages.AssetsPrefix, pages.Assets())
	mux.HandleFunc("GET /livez", live)
	mux.HandleFunc("GET /robots.txt", robots)
	mux.HandleFunc("GET /.well-known/{file}", s.serveWellKnown)
	mux.Handle("/", s.page(s.unknown)) // another method than a path takes is nothing we know either
	return shield(s.traced(unshield(s.recovered(strict(mux)))))
}

func live(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("live\n")) // the prober may be gone
}

func robots(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("User-agent: *\nDisallow: /\n"))
}
