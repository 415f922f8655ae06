package main

import (
	"encoding/json"
	"fmt"
	"io"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitAuth        = 4
	exitNotFound    = 5
	exitConflict    = 6
	exitTimeout     = 7
	exitInterrupted = 130
)

var codeNames = map[int]string{
	exitFailed: "failed", exitUsage: "usage", exitUnreachable: "unreachable", exitAuth: "unauthenticated",
	exitNotFound: "not_found", exitConflict: "conflict", exitTimeout: "timeout", exitInterrupted: "interrupted",
}

// failure is an error as a person sees it: what went wrong, what to do about
// it, and the exit code.
type failure struct {
	code    int
	message string
	hint    string
	detail  string // lines that explain, such as a child's last output
	after   string // lines behind the hint, such as an example
}

func (f *failure) Error() string { return f.message }

// wantsJSON reports whether the arguments ask for JSON, for complaints about
// these very arguments too.
func wantsJSON(args []string) bool {
	for i, arg := range args {
		switch arg {
		case "--":
			return false
		case "-ojson", "-o=json", "--output=json":
			return true
		case "-o", "--output":
			if i+1 < len(args) && args[i+1] == "json" {
				return true
			}
		}
	}
	return false
}

// interrupted is how a one-shot command ends after a Ctrl-C.
func interrupted() *failure { return &failure{code: exitInterrupted, message: "interrupted"} }

func (f *failure) print(w io.Writer, asJSON bool, s style) {
	if asJSON {
		// The writer is stderr: nobody is left to tell of its failure.
		_ = json.NewEncoder(w).Encode(map[string]string{
			"code": codeNames[f.code], "message": f.message, "detail": f.detail, "hint": f.hint,
			"docs": "https://github.com/keelson-go/keelson#the-command-line",
		})
		return
	}
	fmt.Fprintf(w, "%s %s\n", s.paint(red, "error:"), f.message)
	if f.detail != "" {
		fmt.Fprintf(w, "%s\n", f.detail)
	}
	if f.hint != "" {
		fmt.Fprintf(w, "%s %s\n", s.paint(yellow, " hint:"), f.hint)
	}
	if f.after != "" {
		fmt.Fprintf(w, "\n%s", f.after)
	}
}
