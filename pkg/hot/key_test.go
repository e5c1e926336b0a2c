package hot_test

import (
	"strings"
	"testing"

	"countersign.dev/pkg/hot"
)

func TestKey(t *testing.T) {
	for want, got := range map[string]string{
		"{lnk_1}":            hot.Key("lnk_1"),
		"{lnk_1}:state":      hot.Key("lnk_1", "state"),
		"{lnk_1}:session:s1": hot.Key("lnk_1", "session", "s1"),
		"{a%7Db%3Ac}:%25:":   hot.Key("a}b:c", "%", ""),
		"{%}:x":              hot.Key("", "x"),
	} {
		if got != want {
			t.Errorf("Key is %q, want %q", got, want)
		}
	}
}

func TestParseKeyKnowsItsOwnOnly(t *testing.T) {
	for _, key := range []string{"", "x", "{x", "{}", "{x}y", "{x}:a%", "{x}:{", "a{x}:b", "mark:FACTS_TOKEN"} {
		if tag, parts, ok := hot.ParseKey(key); ok {
			t.Errorf("%q was taken apart to %q, %q", key, tag, parts)
		}
	}
}

// slotOf is what Redis Cluster hashes of a key (cluster specification, "Hash tags").
func slotOf(key string) string {
	if _, after, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(after, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

func FuzzKey(f *testing.F) {
	f.Add("t", "a", "b", "t", "a:b", "")
	f.Add("}", "", "", "", "}", "{")
	f.Add("%7D", "x", "", "}", "x", "")
	f.Fuzz(func(t *testing.T, tag, a, b, tag2, a2, b2 string) {
		one, two := hot.Key(tag, a, b), hot.Key(tag2, a2, b2)
		if same := tag == tag2 && a == a2 && b == b2; same != (one == two) {
			t.Errorf("%q and %q", one, two)
		}
		if back, parts, ok := hot.ParseKey(one); !ok || back != tag || len(parts) != 2 || parts[0] != a || parts[1] != b {
			t.Errorf("%q was taken apart to %q, %q, %t", one, back, parts, ok)
		}
		if (slotOf(one) == slotOf(two)) != (tag == tag2) {
			t.Errorf("slots of %q and %q", one, two)
		}
	})
}
