package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"countersign.dev/pkg/failure"
)

// securityLife is how long security.txt is good for from when it is read; RFC 9116 2.5.5 advises less than a year.
const securityLife = 180 * 24 * time.Hour

// document is a file under /.well-known/.
type document struct {
	kind string
	body []byte
}

// wellKnown reads what is configured of /.well-known/.
func (c Config) wellKnown() (map[string]document, error) {
	files := map[string]document{}
	for name, path := range map[string]string{"apple-app-site-association": c.AppleApps, "assetlinks.json": c.AndroidApps} {
		content, err := readFile(path)
		if err != nil {
			return nil, err
		}
		if path == "" {
			continue
		}
		if !json.Valid(content) {
			return nil, fmt.Errorf("gateway: %s is no JSON; phones would ignore it as %s", path, name)
		}
		files[name] = document{"application/json", content}
	}
	return files, nil
}

func (s *Service) serveWellKnown(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	d, ok := s.wellKnown[name]
	if name == "security.txt" {
		d, ok = s.securityText()
	}
	if !ok {
		s.fail(w, r, failure.LinkUnknown)
		return
	}
	w.Header().Set("Content-Type", d.kind)
	_, _ = w.Write(d.body) // the reader may be gone
}

// securityText says where to report a weakness (RFC 9116); nothing where nobody is named.
func (s *Service) securityText() (document, bool) {
	contact := s.settings.SecurityContact
	if support := s.tenants.Branding("").Support; contact == "" && support.Email != "" {
		contact = "mailto:" + support.Email
	}
	if contact == "" {
		return document{}, false
	}
	text := []string{"Contact: " + contact, "Expires: " + s.h.Clock.Now("").Add(securityLife).Format(time.RFC3339), "Preferred-Languages: en, de"}
	if s.settings.public != nil {
		text = append(text, "Canonical: "+s.settings.public.Scheme+"://"+s.settings.public.Host+"/.well-known/security.txt")
	}
	return document{"text/plain; charset=utf-8", []byte(strings.Join(text, "\n") + "\n")}, true
}
