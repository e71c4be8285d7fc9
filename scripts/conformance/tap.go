// Package tap writes the Test Anything Protocol, version 13. It stands in for github.com/mndrix/tap-go, which Debian
// has not packaged: only what the validation programs of runtime-tools call, written for this project.
package tap

import (
	"encoding/json"
	"fmt"
	"strings"
)

// T is one stream of assertions, on standard output.
type T struct {
	count     *int
	directive string
}

// New begins a stream.
func New() *T { return &T{count: new(int)} }

// Header prints the version, and the plan where the number of assertions is known.
func (t *T) Header(planned int) {
	fmt.Println("TAP version 13")
	if planned > 0 {
		fmt.Printf("1..%d\n", planned)
	}
}

// Ok is one assertion.
func (t *T) Ok(passed bool, description string) {
	*t.count++
	word := "ok"
	if !passed {
		word = "not ok"
	}
	// A "#" would begin a directive, a newline another assertion.
	description = strings.NewReplacer("#", `\#`, "\n", " ").Replace(description)
	fmt.Printf("%s %d - %s%s\n", word, *t.count, description, t.directive)
}

// Pass is an assertion that holds.
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail is an assertion that does not hold.
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip is a number of assertions that are not made.
func (t *T) Skip(number int, description string) {
	skipped := &T{t.count, " # SKIP"}
	for ; number > 0; number-- {
		skipped.Ok(true, description)
	}
}

// Todo gives the same stream; what fails through it is known not to work yet.
func (t *T) Todo() *T { return &T{t.count, " # TODO"} }

// AutoPlan prints the plan after the assertions.
func (t *T) AutoPlan() { fmt.Printf("1..%d\n", *t.count) }

// Diagnostic prints a comment.
func (t *T) Diagnostic(text string) {
	fmt.Println("# " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n# "))
}

// Diagnosticf prints a comment.
func (t *T) Diagnosticf(format string, values ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, values...))
}

// YAML prints more about the last assertion; JSON is YAML.
func (t *T) YAML(value interface{}) error {
	text, err := json.MarshalIndent(value, "  ", "  ")
	if err == nil {
		fmt.Printf("  ---\n  %s\n  ...\n", text)
	}
	return err
}
