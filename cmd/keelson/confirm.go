package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// confirm asks a person, on the terminal, whether to go on. Where nobody can be
// asked it is a usage failure: what can't be taken back is never done unasked.
func (a *app) confirm(ctx context.Context, question string) error {
	if a.stdin == nil || !terminal(a.stdin) || !terminal(a.stderr) {
		return &failure{code: exitUsage, message: "there is no terminal to ask on: " + question, hint: "give --yes if that is what you want, or --dry-run to see what would be done"}
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	answer, err := a.readLine(ctx)
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &failure{code: exitFailed, message: "nothing was changed"}
}

// readLine reads a line from the terminal. It ends with ctx, which a read alone
// would not.
func (a *app) readLine(ctx context.Context) (string, error) {
	ready := []unix.PollFd{{Fd: int32(a.stdin.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(ready, int((100 * time.Millisecond).Milliseconds()))
		switch {
		case ctx.Err() != nil:
			fmt.Fprintln(a.stderr)
			return "", interrupted()
		case err != nil && !errors.Is(err, unix.EINTR):
			return "", fmt.Errorf("wait for an answer: %w", err)
		case n > 0:
			line := make([]byte, 256) // a terminal gives a line at a time
			n, err := a.stdin.Read(line)
			if err != nil { // the end of input is no yes
				return "", nil //nolint:nilerr // neither is any other failure to read
			}
			return string(line[:n]), nil
		}
	}
}
