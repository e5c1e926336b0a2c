package eventlog

import (
	"testing"

	"github.com/hashicorp/golang-lru/v2/expirable"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestAnOldGlanceComesLate: who read before a write and puts after it does not hide the write.
func TestAnOldGlanceComesLate(t *testing.T) {
	type state = *wrapperspb.Int64Value
	k := Key{Tenant: "acme", ID: "one"}
	g := glances[state]{kept: expirable.NewLRU[Key, version[state]](2, nil, glanceFor)}
	for _, sequence := range []uint64{2, 3, 1} {
		g.put(k, version[state]{state: wrapperspb.Int64(int64(sequence)), sequence: sequence})
	}
	if v, ok := g.kept.Get(k); !ok || v.state.GetValue() != 3 {
		t.Errorf("kept is %v", v.state)
	}
}
