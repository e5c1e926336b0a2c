package message

import (
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Sample returns data for a message of kind that shows all it can show.
func Sample(kind Kind, locale string) Data {
	d := Data{
		Brand:  Brand{Name: "Nordwind Mobility", Colour: "#0b6e5f", Support: "help@nordwind.example"},
		Reader: "Jane Roe", Sender: "Alex Moreau", Person: "Sam Okafor", Document: "Vehicle purchase offer, Nordwind E7 Touring",
		Link: "https://sign.nordwind.example/s/cs1_4f7Qw2ZkT9vXb3Yt6LmR8pNc1HsJdGeA", Code: "482913",
		Expires: time.Date(2026, 3, 3, 11, 0, 0, 0, time.UTC), Zone: "Europe/Berlin",
		Done: 3, Total: 5, Steps: []string{"Initial page 4", "Sign on page 6"},
	}
	german := strings.HasPrefix(locale, "de")
	if german {
		d.Document, d.Steps = "Kaufangebot Fahrzeug, Nordwind E7 Touring", []string{"Seite 4 abzeichnen", "Auf Seite 6 unterschreiben"}
	}
	switch kind {
	case Alternate:
		d.Reason = "Sam Okafor could not be reached for seven days."
		if german {
			d.Reason = "Sam Okafor war sieben Tage lang nicht erreichbar."
		}
	case Declined:
		d.Reason = "The price does not match what we agreed on."
		if german {
			d.Reason = "Der Preis entspricht nicht dem, was wir vereinbart hatten."
		}
	case Cancelled:
		d.Reason, d.Link = "The offer was replaced by a newer one.", ""
		if german {
			d.Reason = "Das Angebot wurde durch ein neueres ersetzt."
		}
	case Link, Reminder, ReminderLast, Reissued, Code, Partial, Completed, ManagerNotice, AddressChanged:
	}
	return d
}

var index = template.Must(template.New("").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Messages</title>
<style>body{font:16px/1.6 system-ui,sans-serif;max-width:640px;margin:2em auto;padding:0 1em;color-scheme:light dark}td,th{padding:.2em 1em .2em 0;text-align:left}</style></head>
<body><h1>Messages</h1><table>{{range .}}<tr><th>{{.Locale}}</th><td><a href="{{.Name}}.html">{{.Subject}}</a></td><td><a href="{{.Name}}.txt">text</a></td></tr>
{{end}}</table></body></html>
`))

// Preview writes every kind in every language into dir, as HTML and text, with an index.html that lists them. It makes
// dir where it is missing and overwrites what it wrote before.
func Preview(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // samples for people to look at
		return fmt.Errorf("preview: %w", err)
	}
	type entry struct{ Locale, Name, Subject string }
	var all []entry
	write := func(name, content string) error {
		return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644) //nolint:gosec // as above
	}
	for _, locale := range Locales() {
		for _, kind := range Kinds() {
			r, err := Render(kind, locale, Sample(kind, locale))
			if err != nil {
				return fmt.Errorf("preview: %w", err)
			}
			name := locale + "-" + string(kind)
			if err := write(name+".html", r.HTML); err != nil {
				return fmt.Errorf("preview: %w", err)
			}
			if err := write(name+".txt", "Subject: "+r.Subject+"\n\n"+r.Text); err != nil {
				return fmt.Errorf("preview: %w", err)
			}
			all = append(all, entry{locale, name, r.Subject})
		}
	}
	var b strings.Builder
	if err := index.Execute(&b, all); err != nil {
		return fmt.Errorf("preview: %w", err)
	}
	return write("index.html", b.String())
}
