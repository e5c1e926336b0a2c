package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"countersign.dev/services/countersign/sample"
)

// refusal is what a platform is told: the code, and every wrong field with what is wrong about it.
type refusal struct {
	code   string
	fields map[string]string
}

// paths names the fields, in order.
func (r refusal) paths() []string { return slices.Sorted(maps.Keys(r.fields)) }

// bad is a request that is refused, whatever way it comes.
type bad struct {
	name   string
	body   string
	code   string
	fields []string
}

// offer is the document of the good request.
var offer = sync.OnceValue(func() []byte { return sample.Offer("Ada Lovelace") })

// object is a request in JSON, to be spoilt.
type object = map[string]any

// good is a request with everything in it.
func good(t *testing.T) object {
	t.Helper()
	person := func(name, mail string) object {
		return object{"name": name, "email": mail, "locale": "de-CH", "time_zone": "Europe/Zurich"}
	}
	ada := person("Ada Lovelace", "ada@example.com")
	ada["group"], ada["manager"] = 1, person("Mary Somerville", "mary@example.com")
	ada["alternates"] = []any{person("Grace Hopper", "grace@example.com")}
	return object{
		"reference": "refusals", "title": "Lease of the mill", "profile": "standard", "integration": "hr", "template": "lease",
		"value":     object{"currency_code": "EUR", "units": "52000", "nanos": 500_000_000},
		"documents": []any{object{"name": "mill.pdf", "content": base64.StdEncoding.EncodeToString(offer())}},
		"signers":   []any{ada}, "metadata": object{"case": "4711"},
	}
}

// at returns what holds the last part of a path such as signers.0.manager.email, and that part.
func at(o any, path string) (object, string) {
	steps := strings.Split(path, ".")
	for _, step := range steps[:len(steps)-1] {
		switch in := o.(type) {
		case object:
			o = in[step]
		case []any:
			o = in[step[0]-'0']
		}
	}
	return o.(object), steps[len(steps)-1] //nolint:forcetypeassert // a path of this file that names nothing should panic
}

// with is the good request with one value changed; nil takes it away.
func with(t *testing.T, path string, value any) string {
	t.Helper()
	o := good(t)
	in, name := at(o, path)
	if value == nil {
		delete(in, name)
	} else {
		in[name] = value
	}
	return text(t, o)
}

func text(t *testing.T, o any) string {
	t.Helper()
	body, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// indexed is the path as refusals write it: signers[0].email.
func indexed(path string) string {
	for i := range 2 {
		path = strings.ReplaceAll(path, fmt.Sprintf(".%d", i), fmt.Sprintf("[%d]", i))
	}
	return path
}

// refusals is the corpus: everything that may be wrong with a request, one thing at a time, and some at once.
func refusals(t *testing.T) []bad {
	t.Helper()
	var all []bad
	one := func(what, path string, value any) {
		all = append(all, bad{indexed(path) + " " + what, with(t, path, value), "REQUEST_INVALID", []string{indexed(path)}})
	}
	people := []string{"signers.0", "signers.0.alternates.0", "signers.0.manager"}
	for _, path := range []string{"reference", "title", "documents", "signers", "documents.0.name", "documents.0.content"} {
		one("missing", path, nil)
	}
	words := []string{"reference", "title", "documents.0.name"}
	for _, person := range people {
		words = append(words, person+".name")
		one("missing", person+".name", nil)
		one("missing", person+".email", nil)
		for _, address := range []string{
			"ada", "ada@", "@example.com", "a b@example.com", "ada@exa mple.com", "Ada <ada@example.com>", "ada@@example.com",
			"ada@example.com, bob@example.com", "ada@example.com\r\nBcc: bob@example.com", "ada@example.com;", "mailto:ada@example.com",
			"ada@[127.0.0.1", "ada@example.com\u0000", strings.Repeat("a", 250) + "@example.com",
		} {
			one(fmt.Sprintf("%.30q", address), person+".email", address)
		}
		for _, locale := range []string{"_!", "english please", strings.Repeat("e", 36)} {
			one(fmt.Sprintf("%.30q", locale), person+".locale", locale)
		}
		for _, zone := range []string{"Mars/Base", "Local", "../../etc/passwd", strings.Repeat("z", 65)} {
			one(fmt.Sprintf("%.30q", zone), person+".time_zone", zone)
		}
	}
	for _, path := range words {
		for _, word := range []string{"   ", "a\u0000b", "a\r\nBcc: b", "a\u202eb", "a\u2028b", "a\u200bb", strings.Repeat("a", 201)} {
			one(fmt.Sprintf("%.20q", word), path, word)
		}
	}
	for _, path := range []string{"integration", "template"} {
		for _, label := range []string{"two words", "ä", "a/b", "*", strings.Repeat("a", 65)} {
			one(fmt.Sprintf("%.20q", label), path, label)
		}
	}
	for _, profile := range []string{"none", "Standard", "standard ", "high-risk", strings.Repeat("p", 65)} {
		one(fmt.Sprintf("%.20q", profile), "profile", profile)
	}
	for _, currency := range []string{"", "EURO", "XQQ", "€"} {
		one(fmt.Sprintf("%q", currency), "value.currency_code", currency)
	}
	return append(append(all, counted(t)...), unreadable(t)...)
}

// counted are numbers and lists that are too large, and several things wrong at once.
func counted(t *testing.T) []bad {
	t.Helper()
	times := func(n int, path string) string {
		o := good(t)
		in, name := at(o, path)
		list := in[name].([]any) //nolint:forcetypeassert // lists of this file
		in[name] = slices.Repeat(list, n)
		return text(t, o)
	}
	metadata := func(n int, key, value string) string {
		pairs := object{}
		for i := range n {
			pairs[fmt.Sprintf(key, i)] = value
		}
		return with(t, "metadata", pairs)
	}
	same := good(t)
	alternate, _ := at(same, "signers.0.alternates.0.email")
	alternate["email"] = "ADA@example.com"
	several := good(t)
	for path, value := range map[string]any{"title": "", "profile": "none", "value.nanos": -1, "signers.0.email": "ada", "signers.0.time_zone": "Mars/Base", "template": "a b"} {
		in, name := at(several, path)
		in[name] = value
	}
	pdf := func(content string) string {
		return with(t, "documents.0.content", base64.StdEncoding.EncodeToString([]byte(content)))
	}
	return []bad{
		{"two documents", times(2, "documents"), "REQUEST_INVALID", []string{"documents"}},
		{"51 signers", times(51, "signers"), "REQUEST_INVALID", []string{"signers"}},
		{"6 alternates", times(6, "signers.0.alternates"), "REQUEST_INVALID", []string{"signers[0].alternates"}},
		{"65 pairs of metadata", metadata(65, "key%d", "x"), "REQUEST_INVALID", []string{"metadata"}},
		{"a long key", metadata(1, strings.Repeat("k", 65)+"%d", "x"), "REQUEST_INVALID", []string{"metadata[*]"}},
		{"a long value", metadata(1, "key%d", strings.Repeat("v", 1025)), "REQUEST_INVALID", []string{"metadata[*]"}},
		{"a value with a line break", metadata(1, "key%d", "a\nb"), "REQUEST_INVALID", []string{`metadata["key0"]`}},
		{"group 51", with(t, "signers.0.group", 51), "REQUEST_INVALID", []string{"signers[0].group"}},
		{"a negative value", with(t, "value.units", "-1"), "REQUEST_INVALID", []string{"value"}},
		{"too many nanos", with(t, "value.nanos", 1_000_000_000), "REQUEST_INVALID", []string{"value"}},
		{"negative nanos", with(t, "value.nanos", -1), "REQUEST_INVALID", []string{"value"}},
		{"an alternate at the signer's address", text(t, same), "REQUEST_INVALID", []string{"signers[0].alternates[0].email"}},
		{"many things", text(t, several), "REQUEST_INVALID", []string{"profile", "signers[0].email", "signers[0].time_zone", "template", "title", "value"}},
		{"a document of no kind", pdf("Dear Ada"), "REQUEST_INVALID", []string{"documents[0].content"}},
		{"a PDF that is none", pdf("%PDF-1.7\nDear Ada"), "DOCUMENT_REFUSED", []string{"documents[0].content"}},
		{"a PDF without pages", pdf("%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"), "DOCUMENT_REFUSED", []string{"documents[0].content"}},
		{"a PDF cut short", pdf(string(offer()[:4000])), "DOCUMENT_REFUSED", []string{"documents[0].content"}},
	}
}

// unreadable are no messages of the contract: gRPC cannot even carry them.
func unreadable(t *testing.T) []bad {
	t.Helper()
	field := func(path string, value any) string { return with(t, path, value) }
	whole := text(t, good(t))
	return []bad{
		{"no JSON", "Dear Ada", "REQUEST_UNREADABLE", []string{"$"}},
		{"cut off", whole[:len(whole)-7], "REQUEST_UNREADABLE", []string{"$"}},
		{"something after it", whole + "x", "REQUEST_UNREADABLE", []string{"$"}},
		{"two of them", whole + whole, "REQUEST_UNREADABLE", []string{"$"}},
		{"a list", "[" + whole + "]", "REQUEST_UNREADABLE", []string{"$"}},
		{"a number", "7", "REQUEST_UNREADABLE", []string{"$"}},
		{"no UTF-8", "{\"title\":\"\xff\"}", "REQUEST_UNREADABLE", []string{"$"}},
		{"an unknown field", field("titel", "x"), "REQUEST_UNREADABLE", []string{"titel"}},
		{"an unknown field of a signer", field("signers.0.mail", "x"), "REQUEST_UNREADABLE", []string{"mail"}},
		{"an unknown field of a document", field("documents.0.url", "x"), "REQUEST_UNREADABLE", []string{"url"}},
		{"__proto__", field("__proto__", object{}), "REQUEST_UNREADABLE", []string{"__proto__"}},
		{"a field twice", `{"title":"a",` + whole[1:], "REQUEST_UNREADABLE", []string{"title"}},
		{"a title that is a number", field("title", 7), "REQUEST_UNREADABLE", []string{"title"}},
		{"a group in words", field("signers.0.group", "first"), "REQUEST_UNREADABLE", []string{"group"}},
		{"a negative group", field("signers.0.group", -1), "REQUEST_UNREADABLE", []string{"group"}},
		{"a group beyond numbers", field("signers.0.group", 4294967296), "REQUEST_UNREADABLE", []string{"group"}},
		{"half a group", field("signers.0.group", 1.5), "REQUEST_UNREADABLE", []string{"group"}},
		{"content that is no base64", field("documents.0.content", "%PDF-1.7!"), "REQUEST_UNREADABLE", []string{"content"}},
		{"units beyond numbers", field("value.units", "9223372036854775808"), "REQUEST_UNREADABLE", []string{"units"}},
		{"signers that are one", field("signers", object{}), "REQUEST_UNREADABLE", []string{"$"}},
		{"a value in words", field("value", "52000 EUR"), "REQUEST_UNREADABLE", []string{"$"}},
	}
}
