package rules_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"countersign.dev/services/identity/rules"
)

func TestCodesAreAllAlike(t *testing.T) {
	const draws, buckets = 50_000, 100
	var seen [buckets]int
	for i := range uint64(draws) {
		code := rules.Code(func(round byte) []byte {
			mac := hmac.New(sha256.New, []byte("key"))
			_ = binary.Write(mac, binary.BigEndian, i)
			mac.Write([]byte{round})
			return mac.Sum(nil)
		})
		if len(code) != rules.CodeDigits {
			t.Fatalf("code %q has %d digits", code, len(code))
		}
		seen[int(code[0]-'0')*10+int(code[1]-'0')]++
	}
	// Chi-squared with 99 degrees of freedom stays below 149 in 999 of 1000 runs; this one is fixed by its key.
	chi := 0.0
	for _, n := range seen {
		d := float64(n) - draws/buckets
		chi += d * d / (draws / buckets)
	}
	if chi > 149 {
		t.Errorf("chi-squared of the first two digits is %.0f", chi)
	}
}

func TestCodeDrawsAgainWhatDoesNotFit(t *testing.T) {
	var rounds int
	code := rules.Code(func(round byte) []byte {
		rounds++
		sum := make([]byte, sha256.Size)
		if round == 0 { // eight words above the largest fair one, 4293999999
			for i := range 8 {
				binary.BigEndian.PutUint32(sum[4*i:], 0xFFF13D80)
			}
			return sum
		}
		binary.BigEndian.PutUint32(sum, 0xFFF13D7F)
		return sum
	})
	if code != "999999" || rounds != 2 {
		t.Errorf("code %s after %d rounds, want 999999 after 2", code, rounds)
	}
}

func TestNormalizeCode(t *testing.T) {
	for typed, want := range map[string]string{
		"012345": "012345", " 012 345 ": "012345", "012-345": "012345", "012–345\n": "012345", "0 1 2 3 4 5": "012345",
		"٠١٢٣٤٥": "012345", "۰۱۲۳۴۵": "012345", "\uff10\uff11\uff12\uff13\uff14\uff15": "012345", "\u200e012345\u202c": "012345", "\u00a0012345": "012345",
		"": "", "12345": "", "1234567": "", "12345a": "", "12345.6": "", "<script>": "", "१२३४५६": "",
	} {
		got, ok := rules.NormalizeCode(typed)
		if ok != (want != "") || ok && got != want {
			t.Errorf("NormalizeCode(%q) = %q, %t; want %q", typed, got, ok, want)
		}
	}
}

func FuzzNormalizeCode(f *testing.F) {
	f.Add("012 345")
	f.Add("\xff\u202e")
	f.Fuzz(func(t *testing.T, typed string) {
		got, ok := rules.NormalizeCode(typed)
		if !ok {
			return
		}
		if again, ok := rules.NormalizeCode(got); !ok || again != got || len(got) != rules.CodeDigits {
			t.Errorf("%q became %q, then %q", typed, got, again)
		}
	})
}
