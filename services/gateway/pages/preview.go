package pages

import (
	"bytes"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"strings"
)

// Preview writes all Samples in all languages into dir, with what they need to be looked at from the file system, and an
// index. The files are named <language>-<sample>.html; what is there is overwritten.
func Preview(dir string) error {
	for _, sub := range []string{"assets", "doc"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o750); err != nil {
			return fmt.Errorf("preview: %w", err)
		}
	}
	files := map[string][]byte{"assets/icon.svg": []byte(icon)}
	for n := range 3 {
		files[fmt.Sprintf("doc/%d.svg", n+1)] = samplePicture(n + 1)
	}
	type entry struct{ Locale, Name, File string }
	var index []entry
	for _, locale := range Locales() {
		for _, s := range Samples(locale) {
			page, err := s.Page.Render()
			if err != nil {
				return fmt.Errorf("preview: %s: %w", s.Name, err)
			}
			files["assets/signer.css"] = []byte(css(hexColour("#1f6f5c")))
			for from, to := range map[string]string{
				Stylesheet("#1f6f5c"): "assets/signer.css", iconPath: "assets/icon.svg", "/sign/doc/1/": "doc/",
			} {
				page = bytes.ReplaceAll(page, []byte(from), []byte(to))
			}
			name := locale + "-" + s.Name + ".html"
			files[name] = page
			index = append(index, entry{locale, s.Name, name})
		}
	}
	var list bytes.Buffer
	if err := previewIndex.Execute(&list, index); err != nil {
		return fmt.Errorf("preview: %w", err)
	}
	files["index.html"] = list.Bytes()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.FromSlash(name)), content, 0o600); err != nil {
			return fmt.Errorf("preview: %w", err)
		}
	}
	return nil
}

var previewIndex = template.Must(template.New("index").Parse(`<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Signer pages</title></head>
<body><h1>Signer pages</h1><ul>{{range .}}<li>{{.Locale}} <a href="{{.File}}">{{.Name}}</a></li>{{end}}</ul></body></html>
`))

// samplePicture draws a made-up page of a document.
func samplePicture(number int) []byte {
	var b strings.Builder
	b.WriteString(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 1018" width="720" height="1018"><rect width="720" height="1018" fill="#fff"/>`)
	if number == 1 {
		b.WriteString(`<rect x="72" y="90" width="300" height="20" fill="#2b333d"/><rect x="72" y="124" width="180" height="10" fill="#9aa4b1"/>`)
	}
	for i := range 26 {
		y := 190 + i*26
		if i%7 == 0 {
			fmt.Fprintf(&b, `<rect x="72" y="%d" width="170" height="12" fill="#4a5563"/>`, y)
			continue
		}
		fmt.Fprintf(&b, `<rect x="72" y="%d" width="%d" height="9" fill="#ccd3db"/>`, y, 576-(i*i*37+number*53)%190)
	}
	fmt.Fprintf(&b, `<text x="360" y="970" text-anchor="middle" font-family="sans-serif" font-size="14" fill="#67717e">%d</text></svg>`, number)
	return []byte(b.String())
}
