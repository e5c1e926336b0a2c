package proof

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// damage is something that befell the files of a record while nobody ran on them.
type damage struct {
	name string
	// killed takes the files of a server that was killed instead of stopped.
	killed bool
	// anew has `init` make again what is missing, as somebody might who does not know what was lost.
	anew bool
	do   func(d damaged) error
}

// damaged is a copy of the record's files, beside an older one.
type damaged struct{ streams, older string }

func (d damaged) path(name string) string { return filepath.Join(d.streams, name) }

// remove takes a file or a folder away.
func remove(name string) func(damaged) error {
	return func(d damaged) error {
		if _, err := os.Stat(d.path(name)); err != nil {
			return err
		}
		return os.RemoveAll(d.path(name))
	}
}

// older puts a file or a folder back to what it was before the tokens were used.
func older(name string) func(damaged) error {
	return func(d damaged) error {
		if err := os.RemoveAll(d.path(name)); err != nil {
			return err
		}
		from := filepath.Join(d.older, name)
		if info, err := os.Stat(from); err != nil || info.IsDir() {
			return os.CopyFS(d.path(name), os.DirFS(from))
		}
		return copyFile(from, d.path(name))
	}
}

// flip turns one bit at a part of a file's length.
func flip(name string, at float64) func(damaged) error {
	return change(name, func(body []byte) []byte {
		body[min(int(at*float64(len(body))), len(body)-1)] ^= 0x10
		return body
	})
}

// flipAt turns one bit at a place, which is counted from the end where it is negative.
func flipAt(name string, place int) func(damaged) error {
	return change(name, func(body []byte) []byte {
		body[(place+len(body))%len(body)] ^= 0x04
		return body
	})
}

// cut shortens a file to a part of its length, or with 1 by a byte.
func cut(name string, to float64) func(damaged) error {
	return change(name, func(body []byte) []byte { return body[:min(int(to*float64(len(body))), len(body)-1)] })
}

// scramble overwrites a stretch of a file.
func scramble(name string, at float64) func(damaged) error {
	return change(name, func(body []byte) []byte {
		begin := int(at * float64(len(body)))
		for i := begin; i < min(begin+200, len(body)); i++ {
			body[i] = byte(i * 31)
		}
		return body
	})
}

// change rewrites a file.
func change(name string, f func([]byte) []byte) func(damaged) error {
	return func(d damaged) error {
		body, err := os.ReadFile(d.path(name))
		if err != nil {
			return err
		}
		if len(body) == 0 {
			return fmt.Errorf("%s is empty", name)
		}
		return os.WriteFile(d.path(name), f(body), 0o600)
	}
}

// swap takes two files for each other.
func swap(a, b string) func(damaged) error {
	return func(d damaged) error {
		between := d.path(a) + ".swapped"
		for _, move := range [][2]string{{d.path(a), between}, {d.path(b), d.path(a)}, {between, d.path(b)}} {
			if err := os.Rename(move[0], move[1]); err != nil {
				return err
			}
		}
		return nil
	}
}

// double takes a file for another as well.
func double(from, to string) func(damaged) error {
	return func(d damaged) error { return copyFile(d.path(from), d.path(to)) }
}

func copyFile(from, to string) error {
	body, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, body, 0o600)
}

// damages are all that is tried. The facts of links begin in the first block and end in the last: who loses the last loses that tokens
// were used.
func damages(first, last string) []damage {
	const facts = "FACTS_TOKEN/"
	var all []damage
	add := func(name string, do func(damaged) error) { all = append(all, damage{name: name, do: do}) }
	all = append(all, damage{name: "none", do: func(damaged) error { return nil }}, damage{name: "killed", killed: true, do: func(damaged) error { return nil }})
	for _, name := range []string{
		".", "FACTS_TOKEN", "FACTS_TOKEN/msgs", "FACTS_TOKEN/obs", "FACTS_TOKEN/msgs/index.db", "FACTS_TOKEN/obs/token/o.dat", "FACTS_TOKEN/" + first,
		"FACTS_CALL", "VAULT", "VAULT_KEYS", "TIMERS_TOKEN", "INTAKE", "OUTCOMES",
	} {
		add("older "+name, older(name))
	}
	for _, name := range []string{
		"FACTS_TOKEN", "FACTS_CALL", "VAULT", "VAULT_KEYS", "TIMERS_TOKEN", "INTAKE", "OUTCOMES", "FACTS_DELIVERY", "FACTS_TOKEN/msgs", "FACTS_TOKEN/obs",
		"FACTS_TOKEN/obs/token", "FACTS_TOKEN/obs/token/o.dat", "FACTS_TOKEN/obs/token/meta.inf", "FACTS_TOKEN/obs/token/meta.sum", "FACTS_TOKEN/meta.inf",
		"FACTS_TOKEN/meta.sum", "FACTS_TOKEN/msgs/index.db", facts + first, facts + last,
	} {
		add("removed "+name, remove(name))
	}
	for _, name := range []string{"FACTS_TOKEN", "VAULT_KEYS", "FACTS_CALL"} {
		all = append(all, damage{name: "made anew " + name, anew: true, do: remove(name)})
	}
	for _, at := range []float64{0.1, 0.5, 0.9} {
		add(fmt.Sprintf("a bit of %s at %.1f", first, at), flip(facts+first, at))
		all = append(all, damage{name: fmt.Sprintf("killed, a bit of %s at %.1f", last, at), killed: true, do: flip(facts+last, at)})
	}
	for _, at := range []int{2, 30, 300, 900, 2500, 4000, 6000} { // what became of the links is at the end, how they began at the beginning
		add(fmt.Sprintf("a bit of %s %d bytes from its beginning", first, at), flipAt(facts+first, at))
		add(fmt.Sprintf("a bit of %s %d bytes from its end", last, at), flipAt(facts+last, -at))
		all = append(all, damage{name: fmt.Sprintf("killed, a bit of %s %d bytes from its end", last, at), killed: true, do: flipAt(facts+last, -at)})
	}
	for _, at := range []float64{0, 0.2, 0.5, 0.8, 1} {
		add(fmt.Sprintf("a bit of the index at %.1f", at), flip("FACTS_TOKEN/msgs/index.db", at))
	}
	for _, name := range []string{"FACTS_TOKEN/meta.inf", "FACTS_TOKEN/obs/token/meta.inf", "FACTS_TOKEN/obs/token/o.dat", "VAULT/msgs/1.blk", "VAULT_KEYS/msgs/1.blk"} {
		add("a bit of "+name, flip(name, 0.4))
		add("a stretch of "+name, scramble(name, 0.3))
		add("half of "+name, cut(name, 0.5))
		add("nothing of "+name, cut(name, 0))
	}
	for _, to := range []float64{0, 0.25, 0.5, 0.75, 1} {
		add(fmt.Sprintf("%s cut to %.2f", first, to), cut(facts+first, to))
		add(fmt.Sprintf("%s cut to %.2f", last, to), cut(facts+last, to))
		all = append(all, damage{name: fmt.Sprintf("killed, %s cut to %.2f", last, to), killed: true, do: cut(facts+last, to)})
	}
	add("the index cut", cut("FACTS_TOKEN/msgs/index.db", 0.5))
	add("a stretch of the last block", scramble(facts+last, 0.995))
	add("a block of another stream", swap(facts+last, "FACTS_CALL/msgs/1.blk"))
	add("the vault's block for the first", swap(facts+first, "VAULT/msgs/1.blk"))
	add("the first block as the last", double(facts+first, facts+last))
	add("the last block once more", double(facts+last, facts+"msgs/9.blk"))
	add("the index of another stream", swap("FACTS_TOKEN/msgs/index.db", "VAULT/msgs/index.db"))
	add("a consumer's state of another", swap("FACTS_TOKEN/obs/token/o.dat", "FACTS_TOKEN/obs/token-hot/o.dat"))
	return all
}

// blocksOf returns the names of a stream's first and last block of messages, in its folder.
func blocksOf(stream string) (first, last string, err error) {
	entries, err := os.ReadDir(filepath.Join(stream, "msgs"))
	if err != nil {
		return "", "", err
	}
	var numbers []int
	for _, e := range entries {
		var n int
		if _, err := fmt.Sscanf(e.Name(), "%d.blk", &n); err == nil && strings.HasSuffix(e.Name(), ".blk") {
			numbers = append(numbers, n)
		}
	}
	if slices.Sort(numbers); len(numbers) < 2 {
		return "", "", fmt.Errorf("%s has %d blocks, and two are needed", stream, len(numbers))
	}
	return fmt.Sprintf("msgs/%d.blk", numbers[0]), fmt.Sprintf("msgs/%d.blk", numbers[len(numbers)-1]), nil
}
