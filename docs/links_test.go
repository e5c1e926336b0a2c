package docs

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	inlineLink = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	imageLink  = regexp.MustCompile(`src="([^"]+)"`)
	fence      = regexp.MustCompile("(?s)```.*?```")
)

// pages are all Markdown files of the repository.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && (name == "node_modules" || name == "third_party" || name == "bin" || name == "out" || name == "data" || strings.HasPrefix(name, ".") && name != "..") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			found = append(found, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(found, filepath.Join(root, "README.md")) {
		t.Fatal("no README.md among the pages")
	}
	return found
}

// TestLinksLeadSomewhere follows every link within the repository.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	for _, page := range pages(t) {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		text := fence.ReplaceAllString(string(b), "")
		for _, m := range append(inlineLink.FindAllStringSubmatch(text, -1), imageLink.FindAllStringSubmatch(text, -1)...) {
			u, err := url.Parse(m[1])
			if err != nil {
				t.Errorf("%s: %q is no link", page, m[1])
				continue
			}
			if u.Scheme != "" || u.Path == "" {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), filepath.FromSlash(u.Path))); err != nil {
				t.Errorf("%s: %s leads nowhere", page, m[1])
			}
		}
	}
}
