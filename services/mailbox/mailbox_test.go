package mailbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	gosmtp "github.com/emersion/go-smtp"

	"countersign.dev/services/mailbox"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// box is a running mailbox.
type box struct {
	*mailbox.Mailbox
	t    *testing.T
	SMTP string
	Web  string // http://127.0.0.1:port
	Log  *syncBuffer
	stop func() // stops it and waits; twice is fine
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func start(t *testing.T, dir string, change ...func(*mailbox.Config)) *box {
	t.Helper()
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	log := &syncBuffer{}
	c := mailbox.Config{Dir: dir, SMTP: listen(), HTTP: listen(), Now: func() time.Time { return noon }, Logger: slog.New(slog.NewJSONHandler(log, nil))}
	for _, f := range change {
		f(&c)
	}
	m, err := mailbox.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := m.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop := func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return &box{m, t, c.SMTP.Addr().String(), "http://" + c.HTTP.Addr().String(), log, stop}
}

// send delivers a raw mail.
func (b *box) send(from string, to []string, raw string) error {
	c, err := gosmtp.Dial(b.SMTP)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.SendMail(from, to, strings.NewReader(strings.ReplaceAll(raw, "\n", "\r\n")))
}

// get answers a GET as JSON into v, or into a *string as it is.
func (b *box) get(path string, v any) *http.Response {
	b.t.Helper()
	r, err := http.Get(b.Web + path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	if s, ok := v.(*string); ok {
		*s = string(body)
	} else if v != nil {
		if err := json.Unmarshal(body, v); err != nil {
			b.t.Fatalf("GET %s: %d %s: %v", path, r.StatusCode, body, err)
		}
	}
	return r
}

func (b *box) do(method, path, body string, header ...string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.Web+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

const rich = `From: =?utf-8?q?Acme_M=C3=BCnchen?= <sign@acme.test>
To: Jane Roe <jane@signer.test>
Reply-To: help@acme.test
Subject: =?utf-8?q?Bitte_unterschreiben:_K=C3=BCndigung?=
Message-ID: <dlv_1@acme.test>
Date: Mon, 02 Mar 2026 11:59:00 +0100
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=m

--m
Content-Type: multipart/alternative; boundary=a

--a
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Gr=FC=DFe, bitte hier: https://sign.test/s/cs1_abc
--a
Content-Type: text/html; charset=utf-8

<html><style>p{color:red}</style><p>Hallo <img src="cid:logo"><script>alert(1)</script></p></html>
--a--
--m
Content-Type: application/pdf; name="x.pdf"
Content-Disposition: attachment; filename*=utf-8''K%C3%BCndigung.pdf
Content-Transfer-Encoding: base64

JVBERi0xLjc=
--m
Content-Type: image/png
Content-Disposition: inline
Content-ID: <logo>
Content-Transfer-Encoding: base64

iVBORw0KGgo=
--m--
`

func TestAPI(t *testing.T) {
	b := start(t, t.TempDir())
	if err := b.send("bounce+1@mx.acme.test", []string{"jane@signer.test", "hidden@signer.test"}, rich); err != nil {
		t.Fatal(err)
	}
	var list struct {
		Total, Unread  int
		Messages_count int //nolint:revive // Mailpit's name
		Messages       []struct {
			ID, MessageID, Subject, Snippet string
			From                            struct{ Name, Address string }
			To, Bcc                         []struct{ Name, Address string }
			Created                         time.Time
			Read                            bool
			Size, Attachments               int
		}
	}
	b.get("/api/v1/messages", &list)
	if list.Total != 1 || list.Unread != 1 || list.Messages_count != 1 || len(list.Messages) != 1 {
		t.Fatalf("list %+v", list)
	}
	m := list.Messages[0]
	if m.MessageID != "dlv_1@acme.test" || m.Subject != "Bitte unterschreiben: Kündigung" || m.From.Name != "Acme München" ||
		m.To[0].Address != "jane@signer.test" || m.Bcc[0].Address != "hidden@signer.test" || m.Attachments != 1 || m.Read ||
		!strings.HasPrefix(m.Snippet, "Grüße, bitte hier") || !m.Created.Equal(noon) || m.Size == 0 {
		t.Errorf("summary %+v", m)
	}
	var msg mailbox.Message
	b.get("/api/v1/message/"+m.ID, &msg)
	if msg.ReturnPath != "bounce+1@mx.acme.test" || !strings.Contains(msg.Text, "Grüße") || !strings.Contains(msg.HTML, "<p>Hallo") ||
		len(msg.Attachments) != 1 || len(msg.Inline) != 1 || msg.Headers["Message-Id"][0] != "<dlv_1@acme.test>" {
		t.Errorf("message %+v", msg)
	}
	file := msg.Attachments[0]
	if file.FileName != "Kündigung.pdf" || file.ContentType != "application/pdf" || file.Size != 8 || len(file.Checksums.SHA256) != 64 {
		t.Errorf("file %+v", file)
	}
	var body string
	r := b.get("/api/v1/message/latest/part/"+file.PartID, &body)
	if body != "%PDF-1.7" || r.Header.Get("Content-Type") != "application/pdf" || !strings.HasPrefix(r.Header.Get("Content-Disposition"), "attachment") {
		t.Errorf("part %q %v", body, r.Header)
	}
	b.get("/api/v1/messages", &list)
	if list.Unread != 0 || !list.Messages[0].Read {
		t.Error("a mail that was looked at is still unread")
	}
	for path, want := range map[string]int{
		"/api/v1/message/nope": 404, "/api/v1/message/..%2f..%2fetc": 404, "/api/v1/message/" + m.ID + "/part/9": 404,
		"/api/v1/messages?limit=x": 400, "/api/v1/messages?start=-1": 400, "/api/v1/message/" + m.ID + "/raw": 200, "/livez": 200,
	} {
		if r := b.get(path, nil); r.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, r.StatusCode, want)
		}
	}
	if strings.Contains(b.Log.String(), "jane") || strings.Contains(b.Log.String(), "cs1_") {
		t.Errorf("personal data in the log: %s", b.Log)
	}
}

func plain(to, subject, text string) string {
	return "From: sign@acme.test\nTo: " + to + "\nSubject: " + subject + "\n\n" + text + "\n"
}

func TestListSearchDelete(t *testing.T) {
	b := start(t, t.TempDir())
	for i := range 5 {
		to := fmt.Sprintf("signer%d@signer.test", i)
		if err := b.send("sign@acme.test", []string{to}, plain(to, fmt.Sprintf("Mail %d", i), "Your code is 12345"+fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	type listing struct {
		Total, Start int
		Matching     int `json:"messages_count"`
		Messages     []struct{ ID, Subject string }
	}
	for path, want := range map[string]string{
		"/api/v1/messages":                          "Mail 4 Mail 3 Mail 2 Mail 1 Mail 0",
		"/api/v1/messages?start=1&limit=2":          "Mail 3 Mail 2",
		"/api/v1/messages?start=99":                 "",
		"/api/v1/search?query=to:signer3":           "Mail 3",
		"/api/v1/search?query=subject:%22mail+1%22": "Mail 1",
		"/api/v1/messages?query=code+123452":        "Mail 2",
		"/api/v1/search?query=-to:signer3&limit=2":  "Mail 4 Mail 2",
		"/api/v1/search?query=from:nobody":          "",
	} {
		var l listing
		b.get(path, &l)
		var got []string
		for _, m := range l.Messages {
			got = append(got, m.Subject)
		}
		if strings.Join(got, " ") != want || l.Total != 5 {
			t.Errorf("%s: %q of %d, want %q", path, got, l.Total, want)
		}
	}
	newest := b.Messages()[0].ID
	if code, text := b.do("DELETE", "/api/v1/messages", `{"IDs":["`+newest+`","unknown"]}`); code != 200 || text != "ok" {
		t.Errorf("delete one: %d %s", code, text)
	}
	if got := b.Messages(); len(got) != 4 || got[0].Subject != "Mail 3" {
		t.Errorf("after deleting the newest: %d", len(got))
	}
	b.do("DELETE", "/api/v1/messages", "")
	if got := b.Messages(); len(got) != 0 {
		t.Errorf("after deleting all: %d", len(got))
	}
	if _, err := b.Message(newest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted mail: %v", err)
	}
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir)
	if err := b.send("sign@acme.test", []string{"jane@signer.test"}, rich); err != nil {
		t.Fatal(err)
	}
	before := b.Messages()
	b.stop()
	if err := os.WriteFile(filepath.Join(dir, ".unfinished-1"), []byte("half a mail"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("not ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := start(t, dir)
	after := again.Messages()
	if len(after) != 1 || after[0].ID != before[0].ID || !after[0].Created.Equal(noon) || after[0].Subject != before[0].Subject {
		t.Errorf("after a restart %+v, want %+v", after, before)
	}
	if _, err := os.Stat(filepath.Join(dir, ".unfinished-1")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("what a crash left is still there")
	}
	if err := again.send("sign@acme.test", []string{"jane@signer.test"}, plain("jane@signer.test", "Second", "x")); err != nil {
		t.Fatal(err)
	}
	if got := again.Messages(); got[0].Subject != "Second" {
		t.Errorf("newest is %q: ids must rise though the clock stood still", got[0].Subject)
	}
}

func TestKeep(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir, func(c *mailbox.Config) { c.Keep = 2 })
	for i := range 4 {
		if err := b.send("sign@acme.test", []string{"jane@signer.test"}, plain("jane@signer.test", fmt.Sprint("Mail ", i), "x")); err != nil {
			t.Fatal(err)
		}
	}
	files, err := os.ReadDir(dir)
	if got := b.Messages(); err != nil || len(got) != 2 || got[1].Subject != "Mail 2" || len(files) != 2 {
		t.Errorf("kept %d mails, %d files (%v)", len(got), len(files), err)
	}
}

func TestAwait(t *testing.T) {
	b := start(t, t.TempDir())
	got := make(chan mailbox.Message, 1)
	go func() {
		m, err := b.Await(t.Context(), func(s mailbox.Summary) bool { return s.Subject == "Wanted" })
		if err != nil {
			t.Error(err)
		}
		got <- m
	}()
	for _, subject := range []string{"Other", "Wanted"} {
		if err := b.send("sign@acme.test", []string{"jane@signer.test"}, plain("jane@signer.test", subject, "the text")); err != nil {
			t.Fatal(err)
		}
	}
	if m := <-got; !strings.Contains(m.Text, "the text") {
		t.Errorf("%+v", m)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := b.Await(ctx, func(mailbox.Summary) bool { return false }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestChaos(t *testing.T) {
	b := start(t, t.TempDir())
	send := func() int {
		err := b.send("sign@acme.test", []string{"jane@signer.test"}, plain("jane@signer.test", "x", "x"))
		var reply *gosmtp.SMTPError
		if err == nil {
			return 250
		}
		if !errors.As(err, &reply) {
			t.Fatal(err)
		}
		return reply.Code
	}
	var now mailbox.Triggers
	b.get("/api/v1/chaos", &now)
	if now.Sender != (mailbox.Trigger{ErrorCode: 451}) || now.Authentication.ErrorCode != 535 {
		t.Errorf("at rest %+v", now)
	}
	for body, want := range map[string]int{
		`{"Sender":{"ErrorCode":421,"Probability":100}}`:    421,
		`{"Recipient":{"ErrorCode":552,"Probability":100}}`: 552,
		`{"Recipient":{"Probability":100}}`:                 451,
		`{}`:                                                250,
	} {
		if code, text := b.do("PUT", "/api/v1/chaos", body); code != 200 {
			t.Fatalf("%s: %d %s", body, code, text)
		}
		if got := send(); got != want {
			t.Errorf("%s: SMTP says %d, want %d", body, got, want)
		}
	}
	for _, body := range []string{`{"Sender":{"ErrorCode":200,"Probability":1}}`, `{"Sender":{"ErrorCode":451,"Probability":101}}`, `nonsense`} {
		if code, _ := b.do("PUT", "/api/v1/chaos", body); code != 400 {
			t.Errorf("%s: %d, want 400", body, code)
		}
	}
	login := func() error {
		c, err := gosmtp.Dial(b.SMTP)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.Auth(sasl.NewPlainClient("", "anyone", "anything"))
	}
	if err := login(); err != nil {
		t.Errorf("any password is fine: %v", err)
	}
	if err := b.SetChaos(mailbox.Triggers{Authentication: mailbox.Trigger{Probability: 100}}); err != nil {
		t.Fatal(err)
	}
	var reply *gosmtp.SMTPError
	if err := login(); !errors.As(err, &reply) || reply.Code != 535 {
		t.Errorf("chaos at AUTH: %v", err)
	}
	half := mailbox.Triggers{Recipient: mailbox.Trigger{ErrorCode: 450, Probability: 50}}
	if err := b.SetChaos(half); err != nil {
		t.Fatal(err)
	}
	seen := map[int]int{}
	for range 60 {
		seen[send()]++
	}
	if seen[250] == 0 || seen[450] == 0 {
		t.Errorf("of 60 at one in two: %v", seen)
	}
}

// TestDrain: a mail that is under way when the mailbox stops is taken; an idle connection does not hold it up.
func TestDrain(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir)
	idle, err := gosmtp.Dial(b.SMTP)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if err := idle.Noop(); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("tcp", b.SMTP)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	busy, err := gosmtp.Dial(b.SMTP)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := errors.Join(busy.Mail("sign@acme.test", nil), busy.Rcpt("jane@signer.test", nil)); err != nil {
		t.Fatal(err)
	}
	w, err := busy.Data()
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		b.stop()
		close(stopped)
	}()
	if err := idle.Noop(); err == nil {
		if err := idle.Noop(); err == nil {
			t.Log("the idle connection was still open for a moment")
		}
	}
	if _, err := io.WriteString(w, "Subject: last\r\n\r\nx\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("the mail under way was refused: %v", err)
	}
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("still running")
	}
	if got := start(t, dir).Messages(); len(got) != 1 || got[0].Subject != "last" {
		t.Errorf("after the restart %+v", got)
	}
}

func TestStopsBeforeItRan(t *testing.T) {
	for range 20 {
		start(t, t.TempDir()).stop()
	}
}

func TestForgedEnvelope(t *testing.T) {
	b := start(t, t.TempDir())
	err := b.send("\"a\rX-Forged: y\"@acme.test", []string{"jane@signer.test"}, plain("jane@signer.test", "x", "x"))
	if err == nil {
		m, err := b.Message("latest")
		if err != nil || m.Headers["X-Forged"] != nil {
			t.Errorf("%v %v", err, m.Headers)
		}
	}
}

func FuzzBroken(f *testing.F) {
	f.Add([]byte(strings.ReplaceAll(rich, "\n", "\r\n")))
	f.Add([]byte("no header at all"))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=\r\n\r\n--\r\n"))
	f.Add([]byte("Content-Type: text/plain; charset=klingon\r\nContent-Transfer-Encoding: warp\r\n\r\nx"))
	f.Add([]byte(strings.Repeat("Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n", 40)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "019cae3b7c0000000000.eml"), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		l := neverListener{}
		m, err := mailbox.New(mailbox.Config{Dir: dir, SMTP: l, HTTP: l, Now: func() time.Time { return noon }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Message("latest"); err != nil {
			t.Error(err)
		}
		if _, err := json.Marshal(m.Messages()); err != nil {
			t.Error(err)
		}
	})
}

type neverListener struct{ net.Listener }
