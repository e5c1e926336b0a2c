package telemetrytest

import (
	"fmt"
	"slices"
	"strings"
)

// oneStory returns what keeps the spans of a request from being one story, or "". Traces are the nodes, links the edges,
// whether or not the span that carries a link names the request.
func oneStory(spans []Span, requestID string, services []string) string {
	mine := Request(spans, requestID)
	if len(mine) == 0 {
		return fmt.Sprintf("no span names request %s; received %s", requestID, names(spans))
	}
	for _, want := range services {
		if !slices.ContainsFunc(mine, func(sp Span) bool { return sp.Service == want }) {
			return fmt.Sprintf("service %s has no span of request %s; received %s", want, requestID, names(mine))
		}
	}
	joined := unions{}
	for _, sp := range spans {
		for _, to := range sp.LinksTo {
			joined.join(sp.TraceID, to)
		}
	}
	pieces := map[string][]string{}
	for _, sp := range mine {
		root := joined.root(sp.TraceID)
		pieces[root] = append(pieces[root], sp.Service+"/"+sp.Name)
	}
	if len(pieces) == 1 {
		return ""
	}
	var told []string
	for _, piece := range pieces {
		told = append(told, strings.Join(piece, ", "))
	}
	slices.Sort(told)
	return fmt.Sprintf("request %s is %d stories: %s", requestID, len(pieces), strings.Join(told, " | "))
}

// unions is a disjoint-set forest over trace ids; an absent id is its own root.
type unions map[string]string

func (u unions) root(id string) string {
	for {
		up, ok := u[id]
		if !ok {
			return id
		}
		id = up
	}
}

func (u unions) join(a, b string) {
	if a, b = u.root(a), u.root(b); a != b {
		u[a] = b
	}
}
