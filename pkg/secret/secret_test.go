package secret_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"countersign.dev/pkg/secret"
)

// value is looked for in every output, as text, as hex and as decimal bytes.
const value = "hunter2-Zq9"

type exported struct {
	Name  string
	Token secret.Secret
	Ptr   *secret.Secret
}

type hidden struct {
	name  string
	token secret.Secret
	list  []secret.Secret
	named map[string]secret.Secret
	any   any
}

func leaks(out string) bool {
	lower := strings.ToLower(out)
	for _, form := range []string{
		strings.ToLower(value), fmt.Sprintf("%x", value), fmt.Sprintf("% x", value), strings.Trim(fmt.Sprint([]byte(value)), "[]"),
		strings.ToLower(base64.StdEncoding.EncodeToString([]byte(value))),
	} {
		if strings.Contains(lower, form) {
			return true
		}
	}
	return false
}

func TestNoVerbPrintsIt(t *testing.T) {
	s := secret.New(value)
	in := []any{
		s, &s,
		exported{"n", s, &s},
		&exported{"n", s, &s},
		hidden{"n", s, []secret.Secret{s}, map[string]secret.Secret{"k": s}, s},
		&hidden{"n", s, []secret.Secret{s}, map[string]secret.Secret{"k": s}, &s},
		[]secret.Secret{s},
		map[string]secret.Secret{"k": s},
		[1]any{s},
		fmt.Errorf("wrapped: %v", s),
	}
	for _, verb := range []string{"v", "+v", "#v", "s", "q", "x", "X", "d", "o", "b", "c", "U", "e", "t", "p", "T", "10s", "-20v", ".3s", "#x", "0d", " x"} {
		for _, v := range in {
			if out := fmt.Sprintf("%"+verb, v); leaks(out) {
				t.Errorf("%%%s of %T printed %s", verb, v, out)
			}
		}
	}
	for _, got := range []string{fmt.Sprint(s), s.String(), s.GoString(), fmt.Sprintf("%#v", s), fmt.Sprintf("%x", s), fmt.Sprint(secret.Secret{})} {
		if got != secret.Redacted {
			t.Errorf("printed %q, want %q", got, secret.Redacted)
		}
	}
}

func TestNoEncoderPrintsIt(t *testing.T) {
	s := secret.New(value)
	v := exported{"n", s, &s}

	text, err := json.Marshal(map[string]any{"v": v, "list": []secret.Secret{s}})
	if err != nil || leaks(string(text)) || !strings.Contains(string(text), secret.Redacted) {
		t.Errorf("json: %s, %v", text, err)
	}
	if text, err = xml.Marshal(v); err != nil || leaks(string(text)) {
		t.Errorf("xml: %s, %v", text, err)
	}
	var raw bytes.Buffer
	_ = gob.NewEncoder(&raw).Encode(v) // may refuse; must not leak
	if leaks(raw.String()) {
		t.Errorf("gob: %q", raw.String())
	}
	for _, h := range []func(*bytes.Buffer) slog.Handler{
		func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
		func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
	} {
		var out bytes.Buffer
		slog.New(h(&out)).With("with", s).Info("m", "s", s, "p", &s, "v", v, "h", hidden{token: s}, slog.Group("g", "s", s))
		if leaks(out.String()) || !strings.Contains(out.String(), secret.Redacted) {
			t.Errorf("slog: %s", out.String())
		}
	}
	if err := errors.Join(fmt.Errorf("with %v", s), fmt.Errorf("with %+v", v)); leaks(err.Error()) {
		t.Errorf("error: %v", err)
	}
}

func TestRevealAndEqual(t *testing.T) {
	var zero secret.Secret
	a := secret.New(value)
	if a.Reveal() != value || zero.Reveal() != "" || !zero.IsZero() || a.IsZero() || !secret.New("").IsZero() {
		t.Error("Reveal or IsZero is wrong")
	}
	for _, tt := range []struct {
		a, b secret.Secret
		want bool
	}{
		{a, secret.New(value), true},
		{a, secret.New(value + "x"), false},
		{a, secret.New(value[1:]), false},
		{a, zero, false},
		{zero, secret.New(""), true},
	} {
		if tt.a.Equal(tt.b) != tt.want || tt.b.Equal(tt.a) != tt.want {
			t.Errorf("Equal(%q, %q) is not %v both ways", tt.a.Reveal(), tt.b.Reveal(), tt.want)
		}
	}
}

func TestSettingsCanHoldOne(t *testing.T) {
	var v exported
	if err := json.Unmarshal([]byte(`{"Token":"`+value+`"}`), &v); err != nil || v.Token.Reveal() != value {
		t.Errorf("read %q, %v", v.Token.Reveal(), err)
	}
	var s secret.Secret
	if _, err := fmt.Sscan("abc", &s); !errors.Is(err, secret.ErrFormat) {
		t.Errorf("Sscan: %v", err)
	}
}

func TestRandom(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		s := secret.Random(16)
		raw, err := base64.RawURLEncoding.DecodeString(s.Reveal())
		if err != nil || len(raw) != 16 || seen[s.Reveal()] {
			t.Fatalf("Random(16) gave %d bytes, error %v, seen before %v", len(raw), err, seen[s.Reveal()])
		}
		seen[s.Reveal()] = true
	}
	defer func() {
		if recover() == nil {
			t.Error("Random(15) did not panic")
		}
	}()
	secret.Random(15)
}
