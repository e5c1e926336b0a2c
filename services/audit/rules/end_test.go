package rules_test

import (
	"slices"
	"testing"

	"countersign.dev/services/audit/rules"
)

func TestEnded(t *testing.T) {
	t.Parallel()
	at := func(second string) string { return "2026-03-02T12:00:" + second + ".000Z" }
	created := rules.Leaf{Type: "cs.request.created", At: at("01")}
	verified := rules.Leaf{Type: "cs.identity.verified", At: at("02"), Auth: &rules.Auth{Ev: []string{"evd_1"}}}
	signed := rules.Leaf{Type: "cs.signature.applied", At: at("03"), Auth: &rules.Auth{Ev: []string{"evd_1"}}}
	bare := rules.Leaf{Type: "cs.signature.applied", At: at("03"), Auth: &rules.Auth{}}
	end := rules.Leaf{Type: "cs.request.completed", At: at("04"), Fin: true}
	copied := rules.Leaf{Type: "cs.delivery.accepted", At: at("05")}
	for name, tt := range map[string]struct {
		leaves []rules.Leaf
		want   []int
		ended  bool
	}{
		"nothing":                                {nil, nil, false},
		"not ended":                              {[]rules.Leaf{created, verified, signed}, nil, false},
		"in order":                               {[]rules.Leaf{created, verified, signed, end, copied}, []int{0, 1, 2, 3}, true},
		"the verification came in last":          {[]rules.Leaf{created, signed, end, copied, verified}, []int{0, 4, 1, 2}, true},
		"the verification is not yet in":         {[]rules.Leaf{created, signed, end}, nil, false},
		"a signature that rests on none":         {[]rules.Leaf{created, bare, end}, []int{0, 1, 2}, true},
		"the same instant keeps the log's order": {[]rules.Leaf{created, bare, bare, end, {At: at("04")}}, []int{0, 1, 2, 3, 4}, true},
	} {
		got, ended := rules.Ended(tt.leaves)
		if !slices.Equal(got, tt.want) || ended != tt.ended {
			t.Errorf("%s: %v, %v; want %v, %v", name, got, ended, tt.want, tt.ended)
		}
	}
}
