package rules_test

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"countersign.dev/pkg/failure"
	tokenv1 "countersign.dev/proto/countersign/token/v1"
	"countersign.dev/services/token/rules"
)

func TestErase(t *testing.T) {
	over := []requestCommand{rules.BeginCancel{}, rules.Cancel{}}
	later := timestamppb.New(noon.Add(day))
	all, first := rules.Erase{Basis: "DSR-7"}, rules.Erase{LinkID: seatID(0), Basis: "DSR-7"}
	for name, tt := range map[string]struct {
		before  []requestCommand
		command rules.Erase
		want    *tokenv1.RequestErased
		refusal *failure.Error
	}{
		"while it goes on":                {nil, all, nil, failure.RequestOpen},
		"one signer, while it goes on":    {nil, first, nil, failure.RequestOpen},
		"while a cancellation is decided": {over[:1], all, nil, failure.RequestOpen},
		"nobody's":                        {over, rules.Erase{LinkID: "lnk_other"}, nil, failure.SignerUnknown},
		"all":                             {over, all, &tokenv1.RequestErased{At: later, Basis: "DSR-7"}, nil},
		"one signer":                      {over, first, &tokenv1.RequestErased{At: later, LinkId: seatID(0), Position: 1, Basis: "DSR-7"}, nil},
		"all, again":                      {append(over, all), rules.Erase{Basis: "another"}, nil, nil},
		"one signer, again":               {append(over, first), first, nil, nil},
		"another signer":                  {append(over, first), rules.Erase{LinkID: seatID(1)}, &tokenv1.RequestErased{At: later, LinkId: seatID(1), Position: 2}, nil},
		"one signer, once all is gone":    {append(over, all), first, nil, nil},
		"all, once one signer is gone":    {append(over, first), all, &tokenv1.RequestErased{At: later, Basis: "DSR-7"}, nil},
	} {
		fact, err := tt.command.Decide(request(t, []uint32{1, 1}, tt.before...), noon.Add(day))
		if tt.refusal != nil {
			if !errors.Is(err, tt.refusal) || fact != nil {
				t.Errorf("%s: %v, %v; want %s", name, fact, err, tt.refusal.Code)
			}
			continue
		}
		if err != nil || (fact == nil) != (tt.want == nil) || tt.want != nil && !proto.Equal(fact, tt.want) {
			t.Errorf("%s: %v, %v; want %v", name, fact, err, tt.want)
		}
	}
	if _, err := all.Decide(&tokenv1.Request{}, noon); !errors.Is(err, failure.RequestUnknown) {
		t.Errorf("a request that never was: %v", err)
	}
}

// TestErasedAt: who was erased alone first stays erased since then.
func TestErasedAt(t *testing.T) {
	r := request(t, []uint32{1, 1}, rules.BeginCancel{}, rules.Cancel{})
	for i, c := range []rules.Erase{{LinkID: seatID(1)}, {}} {
		fact, err := c.Decide(r, noon.Add(time.Duration(i+1)*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		r = rules.EvolveRequest(proto.CloneOf(r), fact)
		if i == 0 && (r.GetErasedAt() != nil || r.GetSeats()[0].GetErasedAt() != nil) {
			t.Errorf("one signer was erased, and the request says %v", r)
		}
	}
	one, two := noon.Add(time.Hour), noon.Add(2*time.Hour)
	if !r.GetErasedAt().AsTime().Equal(two) || !r.GetSeats()[0].GetErasedAt().AsTime().Equal(two) || !r.GetSeats()[1].GetErasedAt().AsTime().Equal(one) {
		t.Errorf("erased at %v, %v, %v", r.GetErasedAt(), r.GetSeats()[0].GetErasedAt(), r.GetSeats()[1].GetErasedAt())
	}
}
