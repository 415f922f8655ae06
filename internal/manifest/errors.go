package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxErrors is how many problems are told; a file with more is probably not a manifest at all.
const maxErrors = 50

// maxSuggestions is how many known names are compared with a wrong one.
const maxSuggestions = 1000

// Error is one problem of a manifest.
type Error struct {
	File         string // as given to [Load] or [Parse]
	Line, Column int    // from 1; the column counts characters
	Path         string // of the value, such as gateway.routes[0].path; "" for the whole file
	Message      string // what is wrong
	Fix          string // what to write instead; "" if the message says it all
}

// Error returns "file:line:column: path: message; fix".
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Message)
	if e.Fix != "" {
		b.WriteString("; " + e.Fix)
	}
	return b.String()
}

// Errors are all problems of a manifest in the order of the file: at least one, at most 50.
type Errors []*Error

// Error returns one line for each problem.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes each problem visible to errors.As.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

func inFileOrder(errs []*Error) []*Error {
	slices.SortStableFunc(errs, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return errs[:min(len(errs), maxErrors)]
}

// didYouMean returns `did you mean "x"?` for the nearest of the known names, else all of them.
func didYouMean(name string, known []string) string {
	best, distance := "", 3
	for _, k := range known[:min(len(known), maxSuggestions)] {
		if max(len(name)-len(k), len(k)-len(name)) >= distance {
			continue
		}
		if d := editDistance(strings.ToLower(name), strings.ToLower(k)); d < distance && d*2 <= len(k) {
			best, distance = k, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf("did you mean %q?", best)
	case len(known) == 0:
		return ""
	case len(known) > 20:
		return "known are " + strings.Join(known[:20], ", ") + ", …"
	default:
		return "known are " + strings.Join(known, ", ")
	}
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours that make b of a.
func editDistance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
