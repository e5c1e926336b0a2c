package rules_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	deliveryv1 "countersign.dev/proto/countersign/delivery/v1"
	"countersign.dev/services/delivery/rules"
)

var (
	noon  = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	retry = rules.Retry{Base: 30 * time.Second, Cap: time.Hour, Attempts: 8, GiveUp: 24 * time.Hour}
)

func queued() *deliveryv1.Delivery {
	return &deliveryv1.Delivery{
		Id: "dlv_1", Kind: deliveryv1.Kind_KIND_LINK, LinkId: "lnk_1", Generation: 2,
		Status: deliveryv1.Status_STATUS_QUEUED, PlannedAt: timestamppb.New(noon), GiveUpAt: timestamppb.New(noon.Add(24 * time.Hour)),
	}
}

func TestFail(t *testing.T) {
	fail := rules.Fail{Attempt: 1, Code: 451, Enhanced: "4.7.1", Diagnostic: "greylisted", Jitter: 0.5, Retry: retry}
	deferred := func(after time.Duration) proto.Message {
		return &deliveryv1.AttemptDeferred{
			Attempt: 1, Code: 451, EnhancedCode: "4.7.1", Diagnostic: "greylisted", NextAttemptAt: timestamppb.New(noon.Add(after)),
		}
	}
	for name, tt := range map[string]struct {
		change func(*deliveryv1.Delivery, *rules.Fail)
		then   proto.Message
	}{
		"waits half of the base":     {func(*deliveryv1.Delivery, *rules.Fail) {}, deferred(15 * time.Second)},
		"honours what was asked for": {func(_ *deliveryv1.Delivery, f *rules.Fail) { f.RetryAfter = 10 * time.Minute }, deferred(10 * time.Minute)},
		"permanent is not retried": {
			func(_ *deliveryv1.Delivery, f *rules.Fail) { f.Permanent = true },
			&deliveryv1.AttemptBounced{
				Attempt: 1, Code: 451, EnhancedCode: "4.7.1", Diagnostic: "greylisted",
				Kind: deliveryv1.Kind_KIND_LINK, LinkId: "lnk_1", Generation: 2,
			},
		},
		"gives up after the last try": {
			func(d *deliveryv1.Delivery, f *rules.Fail) { d.Attempts, f.Attempt = 7, 8 },
			&deliveryv1.DeliveryFailed{
				Attempts: 8, EnhancedCode: "4.7.1", Diagnostic: "greylisted", Kind: deliveryv1.Kind_KIND_LINK, LinkId: "lnk_1", Generation: 2,
			},
		},
		"gives up when the next try would be too late": {
			func(d *deliveryv1.Delivery, _ *rules.Fail) {
				d.GiveUpAt = timestamppb.New(noon.Add(15*time.Second - 1))
			},
			&deliveryv1.DeliveryFailed{
				Attempts: 1, EnhancedCode: "4.7.1", Diagnostic: "greylisted", Kind: deliveryv1.Kind_KIND_LINK, LinkId: "lnk_1", Generation: 2,
			},
		},
		"an attempt counts once":        {func(d *deliveryv1.Delivery, _ *rules.Fail) { d.Attempts = 1 }, nil},
		"after acceptance it is silent": {func(d *deliveryv1.Delivery, _ *rules.Fail) { d.Status = deliveryv1.Status_STATUS_ACCEPTED }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d, f := queued(), fail
			tt.change(d, &f)
			got, err := f.Decide(d, noon)
			if diff := cmp.Diff(tt.then, got, protocmp.Transform()); err != nil || diff != "" {
				t.Errorf("Decide: %v (-want +got)\n%s", err, diff)
			}
		})
	}
}

func TestWaitGrowsToItsCap(t *testing.T) {
	for attempt, want := range map[uint32]time.Duration{1: 30 * time.Second, 2: time.Minute, 3: 2 * time.Minute, 7: 32 * time.Minute, 8: time.Hour, 60: time.Hour} {
		if got := retry.Wait(attempt, 0.999999, 0); got > want || got < want-want/1000 {
			t.Errorf("attempt %d waits %v, want just under %v", attempt, got, want)
		}
		if got := retry.Wait(attempt, 0, 0); got != 0 {
			t.Errorf("full jitter starts at 0, not %v", got)
		}
	}
}

// TestDeliveryModel runs random commands: a delivery ends once, never tries more often or longer than it may, and never leaves its end.
func TestDeliveryModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, d := noon, &deliveryv1.Delivery{}
		ended := deliveryv1.Status_STATUS_UNSPECIFIED
		accepted, tried := 0, uint32(0)
		do := func(c interface {
			Decide(*deliveryv1.Delivery, time.Time) (proto.Message, error)
		},
		) {
			fact, err := c.Decide(d, now)
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			if fact == nil {
				return
			}
			if ended != deliveryv1.Status_STATUS_UNSPECIFIED {
				t.Fatalf("%T after the end", fact)
			}
			d = rules.Evolve(proto.CloneOf(d), fact)
			if _, ok := fact.(*deliveryv1.AttemptAccepted); ok {
				accepted++
			}
			if d.GetStatus() != deliveryv1.Status_STATUS_QUEUED && d.GetStatus() != deliveryv1.Status_STATUS_DEFERRED {
				ended = d.GetStatus()
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"plan": func(*rapid.T) { do(rules.Plan{Delivery: &deliveryv1.Delivery{Id: "dlv_1"}, Retry: retry}) },
			"wait": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "wait")))
			},
			"attempt": func(t *rapid.T) {
				due, next := rules.Due(d, now)
				if !due {
					if !next.IsZero() && !now.Before(next) {
						t.Fatal("not due although its time has come")
					}
					return
				}
				tried = d.GetAttempts() + 1
				if tried > retry.Attempts || now.After(d.GetGiveUpAt().AsTime().Add(2*time.Hour)) {
					t.Fatalf("attempt %d at %v is beyond the limits", tried, now)
				}
				if rapid.Bool().Draw(t, "taken") {
					do(rules.Accept{Attempt: tried})
					return
				}
				do(rules.Fail{Attempt: tried, Permanent: rapid.IntRange(0, 9).Draw(t, "permanent") == 0, Jitter: rapid.Float64Range(0, 0.99).Draw(t, "jitter"), Retry: retry})
			},
			"repeat": func(*rapid.T) { do(rules.Fail{Attempt: tried, Retry: retry}) },
			"skip":   func(*rapid.T) { do(rules.Skip{Code: "LINK_SIGNED"}) },
			"": func(t *rapid.T) {
				if accepted > 1 {
					t.Fatal("accepted twice")
				}
			},
		})
	})
}
