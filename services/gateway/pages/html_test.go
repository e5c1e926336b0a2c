package pages

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/net/html"
)

// void elements have no end tag; svg's own end themselves.
var void = []string{"meta", "link", "img", "input", "br", "hr"}

// wellFormed walks the raw tokens: every tag that is opened is closed, in order. A parser would quietly mend it.
func wellFormed(page []byte) error {
	var open []string
	for z := html.NewTokenizer(bytes.NewReader(page)); ; {
		switch z.Next() {
		case html.ErrorToken:
			if !errors.Is(z.Err(), io.EOF) {
				return z.Err()
			}
			if len(open) > 0 {
				return fmt.Errorf("never closed: %v", open)
			}
			return nil
		case html.StartTagToken:
			if name, _ := z.TagName(); !slices.Contains(void, string(name)) {
				open = append(open, string(name))
			}
		case html.EndTagToken:
			name, _ := z.TagName()
			if len(open) == 0 || open[len(open)-1] != string(name) {
				return fmt.Errorf("</%s> closes %v", name, open)
			}
			open = open[:len(open)-1]
		default: // text and what has no end
		}
	}
}

// nodes returns all elements of a page.
func nodes(t *testing.T, page []byte) []*html.Node {
	t.Helper()
	doc, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	var all []*html.Node
	for n := range doc.Descendants() {
		if n.Type == html.ElementNode {
			all = append(all, n)
		}
	}
	return all
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, key string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == key })
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

func named(all []*html.Node, name string) []*html.Node {
	return slices.DeleteFunc(slices.Clone(all), func(n *html.Node) bool { return n.Data != name })
}

func classed(all []*html.Node, class string) []*html.Node {
	return slices.DeleteFunc(slices.Clone(all), func(n *html.Node) bool { return !slices.Contains(strings.Fields(attr(n, "class")), class) })
}

// checkPage holds what is true of every page, whatever stands on it.
func checkPage(t *testing.T, page []byte, locale string) []*html.Node {
	t.Helper()
	if len(page) >= Budget {
		t.Errorf("%d bytes, more than %d", len(page), Budget)
	}
	if err := wellFormed(page); err != nil {
		t.Errorf("not well-formed: %v", err)
	}
	all := nodes(t, page)
	checkPolicy(t, all)
	checkAccess(t, all, locale)
	checkMarks(t, page)
	if bytes.Contains(page, []byte("ZgotmplZ")) {
		t.Error("a value was refused by the template")
	}
	if bytes.Contains(page, []byte("<no value>")) {
		t.Error("a value is missing")
	}
	return all
}

// checkPolicy: nothing the Content-Security-Policy would block, nothing from elsewhere, a nonce in every form.
func checkPolicy(t *testing.T, all []*html.Node) {
	t.Helper()
	for _, n := range all {
		if slices.Contains([]string{"script", "style", "iframe", "object", "embed", "base", "video", "audio", "marquee"}, n.Data) {
			t.Errorf("<%s> has no place on a page", n.Data)
		}
		for _, a := range n.Attr {
			switch {
			case a.Key == "style" || strings.HasPrefix(a.Key, "on") || a.Key == "formaction" || a.Key == "srcdoc":
				t.Errorf("<%s %s=%q> has no place on a page", n.Data, a.Key, a.Val)
			case a.Key == "src" || a.Key == "action" || n.Data == "link" && a.Key == "href":
				if err := local(a.Val); err != nil || a.Val == "" {
					t.Errorf("<%s %s=%q> leaves this origin", n.Data, a.Key, a.Val)
				}
			case a.Key == "href":
				ok := slices.ContainsFunc([]string{"/", "#", "mailto:", "tel:", "https://"}, func(p string) bool { return strings.HasPrefix(a.Val, p) })
				if !ok || strings.HasPrefix(a.Val, "//") {
					t.Errorf("<a href=%q> leads nowhere good", a.Val)
				}
			}
		}
		if n.Data == "form" {
			if attr(n, "method") != "post" {
				t.Error("a form that does not post")
			}
			if nonce := named(slices.Collect(elements(n)), "input"); len(nonce) == 0 || attr(nonce[0], "name") != FieldNonce {
				t.Errorf("form %s: no nonce", attr(n, "action"))
			}
		}
	}
}

func elements(n *html.Node) func(func(*html.Node) bool) {
	return func(yield func(*html.Node) bool) {
		for d := range n.Descendants() {
			if d.Type == html.ElementNode && !yield(d) {
				return
			}
		}
	}
}

// checkAccess: language, landmarks, headings in order, labels and references that hold.
func checkAccess(t *testing.T, all []*html.Node, locale string) {
	t.Helper()
	if root := all[0]; attr(root, "lang") != locale || attr(root, "dir") == "" {
		t.Errorf("<html lang=%q dir=%q>, want %s", attr(root, "lang"), attr(root, "dir"), locale)
	}
	for _, name := range []string{"title", "main", "header", "footer", "h1"} {
		if n := named(all, name); len(n) != 1 || strings.TrimSpace(text(n[0])) == "" {
			t.Errorf("%d <%s>, want one that says something", len(n), name)
		}
	}
	ids, labelled := map[string]bool{}, map[string]bool{}
	level := 0
	for _, n := range all {
		if id := attr(n, "id"); id != "" {
			if ids[id] {
				t.Errorf("id %q twice", id)
			}
			ids[id] = true
		}
		if n.Data == "label" {
			labelled[attr(n, "for")] = true
		}
		if len(n.Data) == 2 && n.Data[0] == 'h' && unicode.IsDigit(rune(n.Data[1])) {
			if now := int(n.Data[1] - '0'); now > level+1 {
				t.Errorf("<%s> %q comes after level %d", n.Data, text(n), level)
			} else {
				level = now
			}
		}
	}
	for _, n := range all {
		for _, key := range []string{"aria-describedby", "aria-labelledby", "for"} {
			for _, id := range strings.Fields(attr(n, key)) {
				if !ids[id] {
					t.Errorf("<%s %s=%q> points nowhere", n.Data, key, id)
				}
			}
		}
		if href := attr(n, "href"); strings.HasPrefix(href, "#") && !ids[href[1:]] {
			t.Errorf("link to %s points nowhere", href)
		}
		switch {
		case n.Data == "img" && (!has(n, "alt") || attr(n, "height") == ""):
			t.Errorf("img %s: no alt or no size", attr(n, "src"))
		case (n.Data == "input" || n.Data == "textarea") && attr(n, "type") != "hidden" && !labelled[attr(n, "id")]:
			t.Errorf("field %q has no label", attr(n, "name"))
		case n.Data == "button" && strings.TrimSpace(text(n)) == "":
			t.Error("a button says nothing")
		}
	}
}

// checkMarks: no format character but the isolates, and those in pairs within one piece of text.
func checkMarks(t *testing.T, page []byte) {
	t.Helper()
	depth := 0
	for _, r := range string(page) {
		switch {
		case string(r) == firstStrongIsolate:
			depth++
		case string(r) == popDirectionalIsolate:
			depth--
		case r == '<' && depth != 0:
			t.Error("an isolate is not closed before the next tag")
			return
		case unicode.Is(unicode.Cf, r), unicode.Is(unicode.Cc, r) && r != '\n':
			t.Errorf("control or format character %U", r)
			return
		}
	}
}
