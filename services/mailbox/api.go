package mailbox

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// Bounds of a page of the list.
const (
	pageDefault = 50
	pageLargest = 1000
	maxRequest  = 1 << 20 // bytes of a request's body
)

// listing is Mailpit's MessagesSummary.
type listing struct {
	Total         int       `json:"total"`
	Unread        int       `json:"unread"`
	Count         int       `json:"count"`
	MessagesCount int       `json:"messages_count"`
	UnreadCount   int       `json:"messages_unread"`
	Start         int       `json:"start"`
	Tags          []string  `json:"tags"`
	Messages      []Summary `json:"messages"`
}

func (m *Mailbox) api(mux *http.ServeMux) {
	mux.HandleFunc("GET /livez", say("ok"))
	mux.HandleFunc("GET /readyz", say("ok"))
	mux.HandleFunc("GET /api/v1/messages", m.getMessages)
	mux.HandleFunc("GET /api/v1/search", m.getMessages)
	mux.HandleFunc("DELETE /api/v1/messages", m.deleteMessages)
	mux.HandleFunc("GET /api/v1/message/{id}", m.getMessage)
	mux.HandleFunc("GET /api/v1/message/{id}/headers", m.getHeaders)
	mux.HandleFunc("GET /api/v1/message/{id}/raw", m.getRaw)
	mux.HandleFunc("GET /api/v1/message/{id}/part/{part}", m.getPart)
	mux.HandleFunc("GET /api/v1/chaos", func(w http.ResponseWriter, _ *http.Request) { m.answer(w, m.Chaos()) })
	mux.HandleFunc("PUT /api/v1/chaos", m.putChaos)
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, text)
	}
}

func (m *Mailbox) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		m.config.Logger.Warn("answer not written", slog.Any("error", err))
	}
}

// refuse answers as Mailpit does: 404 for a mail that is not there, 400 and the reason for the rest.
func refuse(w http.ResponseWriter, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	http.Error(w, err.Error(), http.StatusBadRequest)
}

func (m *Mailbox) getMessages(w http.ResponseWriter, r *http.Request) {
	start, err := number(r, "start", 0, 0, 1<<30)
	if err != nil {
		refuse(w, err)
		return
	}
	limit, err := number(r, "limit", pageDefault, 1, pageLargest)
	if err != nil {
		refuse(w, err)
		return
	}
	m.answer(w, m.page(r.URL.Query().Get("query"), start, limit))
}

// page cuts one page out of the mails that query finds.
func (m *Mailbox) page(query string, start, limit int) listing {
	all := m.store.list()
	found := search(all, query)
	page := listing{
		Total: len(all), Unread: unread(all), MessagesCount: len(found), UnreadCount: unread(found),
		Start: start, Tags: []string{}, Messages: []Summary{},
	}
	if start < len(found) {
		page.Messages = found[start:min(start+limit, len(found))]
	}
	page.Count = len(page.Messages)
	return page
}

func unread(all []Summary) int {
	n := 0
	for _, s := range all {
		if !s.Read {
			n++
		}
	}
	return n
}

func number(r *http.Request, name string, otherwise, least, most int) (int, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, errors.New(name + " must be a number from " + strconv.Itoa(least) + " to " + strconv.Itoa(most))
	}
	return n, nil
}

// deleteMessages deletes the mails named in {"IDs": [...]}, or all without a body or without ids.
func (m *Mailbox) deleteMessages(w http.ResponseWriter, r *http.Request) {
	var body struct{ IDs []string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&body); err != nil && !errors.Is(err, io.EOF) {
		refuse(w, err)
		return
	}
	if err := m.store.delete(body.IDs...); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	say("ok")(w, r)
}

func (m *Mailbox) getMessage(w http.ResponseWriter, r *http.Request) {
	message, err := m.store.message(r.PathValue("id"))
	if err != nil {
		refuse(w, err)
		return
	}
	m.answer(w, message)
}

func (m *Mailbox) getHeaders(w http.ResponseWriter, r *http.Request) {
	message, err := m.store.message(r.PathValue("id"))
	if err != nil {
		refuse(w, err)
		return
	}
	m.answer(w, message.Headers)
}

func (m *Mailbox) getRaw(w http.ResponseWriter, r *http.Request) {
	id, raw, err := m.store.raw(r.PathValue("id"))
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if r.URL.Query().Get("dl") != "" {
		w.Header().Set("Content-Type", "message/rfc822")
		w.Header().Set("Content-Disposition", "attachment; filename="+id+extension)
	}
	_, _ = w.Write(raw)
}

// getPart hands out a file. It is always a download, and sandboxed: whatever a mail carries, it never runs here.
func (m *Mailbox) getPart(w http.ResponseWriter, r *http.Request) {
	id, raw, err := m.store.raw(r.PathValue("id"))
	if err != nil {
		refuse(w, err)
		return
	}
	p := parse(id, raw)
	for _, a := range append(p.Attachments, p.Inline...) {
		if a.PartID != r.PathValue("part") {
			continue
		}
		w.Header().Set("Content-Type", a.ContentType)
		disposition := "attachment"
		if strings.HasPrefix(a.ContentType, "image/") && a.ContentType != "image/svg+xml" {
			disposition = "inline" // pictures that the HTML of the mail refers to
		}
		w.Header().Set("Content-Disposition", mime.FormatMediaType(disposition, map[string]string{"filename": a.FileName}))
		w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'")
		_, _ = w.Write(p.files[a.PartID])
		return
	}
	refuse(w, fs.ErrNotExist)
}

func (m *Mailbox) putChaos(w http.ResponseWriter, r *http.Request) {
	var t Triggers
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&t)
	if err == nil {
		err = m.SetChaos(t)
	}
	if err != nil {
		refuse(w, err)
		return
	}
	m.answer(w, m.Chaos())
}
