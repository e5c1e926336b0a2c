package config

import (
	"fmt"
	"strings"
	"sync"

	// CEL is a language made for conditions: typed, without loops, and known from Kubernetes. The module is the one of its makers.
	"cel.dev/cel-go/cel"
)

const (
	// MaxCondition is the most characters a condition has.
	MaxCondition = 500
	// conditionCost bounds what deciding a condition costs, in CEL's own units; one of the longest there may be takes some hundreds.
	conditionCost = 10_000
	// knownConditions is how many compiled conditions are kept.
	knownConditions = 1000
)

// conditionKnows is told to whoever writes a condition that is not accepted.
const conditionKnows = "known are integration, template, locale, value.currency_code (string), value.units (int), value.amount (double)"

// Match is what a condition looks at: nothing that belongs to a person.
type Match struct {
	Integration, Template string
	// Locale is the first signer's.
	Locale string
	// Value is what is at stake; nil where the request does not say.
	Value *Value
}

// Value is an amount of money.
type Value struct {
	CurrencyCode string
	Units        int64
	Nanos        int32
}

// Condition is a compiled CEL expression over a Match.
type Condition struct{ program cel.Program }

var conditionEnv = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("integration", cel.StringType), cel.Variable("template", cel.StringType), cel.Variable("locale", cel.StringType),
		cel.Variable("value.currency_code", cel.StringType), cel.Variable("value.units", cel.IntType), cel.Variable("value.amount", cel.DoubleType),
		cel.CrossTypeNumericComparisons(true), // value.amount >= 10000 is what people write
		cel.ClearMacros(),                     // no loops: what a condition costs is bounded by its length
		cel.ParserRecursionLimit(50), cel.ParserExpressionSizeLimit(4*MaxCondition),
	)
})

var conditions = struct {
	sync.Mutex
	known map[string]*Condition
}{known: map[string]*Condition{}}

// ParseCondition compiles and checks a condition. The error says at which column, counted from 1, what is wrong, and what is known.
func ParseCondition(text string) (*Condition, error) {
	conditions.Lock()
	defer conditions.Unlock()
	if c := conditions.known[text]; c != nil {
		return c, nil
	}
	if len([]rune(text)) > MaxCondition {
		return nil, fmt.Errorf("is longer than %d characters", MaxCondition)
	}
	env, err := conditionEnv()
	if err != nil {
		return nil, fmt.Errorf("config: conditions: %w", err)
	}
	ast, issues := env.Compile(text)
	if all := issues.Errors(); len(all) > 0 {
		first := all[0]
		message := strings.TrimSuffix(oneLine(first.Message), " (in container '')")
		return nil, fmt.Errorf("column %d: %s; %s", max(first.Location.Column(), 0)+1, message, conditionKnows)
	}
	if !ast.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("gives %s, where true or false is accepted", ast.OutputType())
	}
	program, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(conditionCost))
	if err != nil {
		return nil, fmt.Errorf("cannot be decided: %s", oneLine(err.Error())) // such as a regular expression that is none
	}
	c := &Condition{program}
	if len(conditions.known) >= knownConditions {
		clear(conditions.known)
	}
	conditions.known[text] = c
	return c, nil
}

// Fits decides. What cannot be decided does not fit: the value of a request without one, or a cost beyond the limit.
func (c *Condition) Fits(m Match) bool {
	known := map[string]any{"integration": m.Integration, "template": m.Template, "locale": m.Locale}
	if v := m.Value; v != nil {
		known["value.currency_code"], known["value.units"] = v.CurrencyCode, v.Units
		known["value.amount"] = float64(v.Units) + float64(v.Nanos)/1e9
	}
	out, _, err := c.program.Eval(known)
	if err != nil {
		return false
	}
	fits, ok := out.Value().(bool)
	return ok && fits
}

// Choose returns the place in rules of the first that fits; -1 where none does. A rule that is no condition does not fit.
func Choose(rules []ProfileRule, m Match) int {
	for i, r := range rules {
		if c, err := ParseCondition(r.When); err == nil && c.Fits(m) {
			return i
		}
	}
	return -1
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
