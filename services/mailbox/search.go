package mailbox

import (
	"net/mail"
	"strings"
)

// search returns the mails in which every term of query occurs, without regard to case. A term is a word or a
// "quoted phrase", found anywhere in the summary, or only in one place after from:, to: (all recipients), subject: or
// message-id:. A leading minus or exclamation mark turns a term round.
func search(all []Summary, query string) []Summary {
	terms := split(strings.ToLower(query))
	if len(terms) == 0 {
		return all
	}
	found := []Summary{}
	for _, s := range all {
		if matches(s, terms) {
			found = append(found, s)
		}
	}
	return found
}

func matches(s Summary, terms []string) bool {
	from := addresses([]*mail.Address{s.From})
	to := addresses(append(append(append([]*mail.Address{}, s.To...), s.Cc...), s.Bcc...))
	subject, id := strings.ToLower(s.Subject), strings.ToLower(s.MessageID)
	for _, term := range terms {
		wanted := true
		if rest := strings.TrimLeft(term, "-!"); rest != term && rest != "" {
			term, wanted = rest, false
		}
		where, what, named := strings.Cut(term, ":")
		var in string
		switch {
		case named && where == "from":
			in = from
		case named && where == "to":
			in = to
		case named && where == "subject":
			in = subject
		case named && where == "message-id":
			in = id
		default:
			in, what = strings.Join([]string{from, to, subject, id, strings.ToLower(s.Snippet)}, "\n"), term
		}
		if strings.Contains(in, what) != wanted {
			return false
		}
	}
	return true
}

func addresses(list []*mail.Address) string {
	var b strings.Builder
	for _, a := range list {
		if a != nil {
			b.WriteString(strings.ToLower(a.Name + " <" + a.Address + ">\n"))
		}
	}
	return b.String()
}

// split cuts a query at spaces outside of quotes and drops the quotes.
func split(query string) []string {
	var terms []string
	var term strings.Builder
	quoted := false
	end := func() {
		if term.Len() > 0 {
			terms = append(terms, term.String())
		}
		term.Reset()
	}
	for _, r := range query {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ' ' && !quoted:
			end()
		default:
			term.WriteRune(r)
		}
	}
	end()
	return terms
}
