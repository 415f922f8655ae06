package dotenv

import (
	"fmt"
	"strings"
)

// maxErrors is how many problems are told; a file with more is none of ours.
const maxErrors = 20

// Error is one problem of a file. It never shows a value.
type Error struct {
	File         string // as given to [Load] or [Parse]
	Line, Column int    // from 1; the column counts characters
	Message      string // what is wrong
	Fix          string // what to write instead
}

// Error returns "file:line:column: message; fix".
func (e *Error) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s; %s", e.File, e.Line, e.Column, e.Message, e.Fix)
}

// Errors are all problems of a file in its order: at least one, at most 20.
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
