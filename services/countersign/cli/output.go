package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// asJSON is how the contract's messages are printed: with the field names of the contract, as on NATS and REST.
var asJSON = protojson.MarshalOptions{UseProtoNames: true}

// line prints a message as one line of JSON.
func (o *IO) line(m proto.Message) error {
	text, err := asJSON.Marshal(m)
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	var compact bytes.Buffer // protojson varies its spaces from build to build
	if err := json.Compact(&compact, text); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	compact.WriteByte('\n')
	_, err = o.Out.Write(compact.Bytes())
	return err
}

// object prints what is no message of the contract as one line of JSON.
func (o *IO) object(v any) error {
	e := json.NewEncoder(o.Out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// print writes words.
func (o *IO) print(format string, args ...any) { _, _ = fmt.Fprintf(o.Out, format, args...) }

// note writes words beside the answer: programs that read it do not see them.
func (o *IO) note(format string, args ...any) { _, _ = fmt.Fprintf(o.Err, format, args...) }

// table writes rows with aligned columns, each line indented.
func (o *IO) table(indent string, rows [][]string) {
	w := tabwriter.NewWriter(o.Out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = clean(cell)
		}
		_, _ = fmt.Fprintln(w, indent+strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	_ = w.Flush()
}

// clean keeps what others wrote from moving the cursor or turning the text around: a title is words, not commands to a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '?'
		}
		return r
	}, s)
}

// instant is a time as a person reads it: in their zone, and how far it is from now. An unset one is a dash.
func (o *IO) instant(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return o.moment(t.AsTime())
}

func (o *IO) moment(t time.Time) string {
	return absolute(t) + " (" + relative(t.Sub(o.Now())) + ")"
}

func absolute(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// relative says how far away something is: rounded, in the largest unit of which there are two or more.
func relative(d time.Duration) string {
	const day = 24 * time.Hour
	away := d.Abs()
	if away < time.Second {
		return "now"
	}
	unit, name := day, "d"
	switch {
	case away < 2*time.Minute:
		unit, name = time.Second, "s"
	case away < 2*time.Hour:
		unit, name = time.Minute, "min"
	case away < 2*day:
		unit, name = time.Hour, "h"
	}
	text := fmt.Sprintf("%d %s", away.Round(unit)/unit, name)
	if d < 0 {
		return text + " ago"
	}
	return "in " + text
}

// words makes the name of an enum's value words: REQUEST_STATUS_IN_PROGRESS with its prefix is "in progress".
func words(name, prefix string) string {
	w := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", " "))
	if w == "unspecified" {
		return "unknown"
	}
	return w
}
