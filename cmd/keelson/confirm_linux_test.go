package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// newTerminal opens a pseudo terminal: keyboard is what a person has, tty what
// a program has.
func newTerminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return keyboard, tty
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]int{"y\n": exitOK, "YES\n": exitOK, "n\n": exitFailed, "\n": exitFailed, "yup\n": exitFailed, "\x04": exitFailed} {
		t.Run(fmt.Sprintf("%q", answer), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			register(t, r.reg, "pay", "p1")
			keyboard, tty := newTerminal(t)
			if _, err := keyboard.WriteString(answer); err != nil {
				t.Fatal(err)
			}
			var stdout buffer
			a := &app{stdin: tty, stdout: &stdout, stderr: tty, env: func(string) string { return "" }}
			if code := a.run(t.Context(), strings.Fields("services drain pay.p1 -o name --url "+r.url)); code != want {
				t.Errorf("exit code %d, want %d", code, want)
			}
			if drained := r.status("pay", "p1") == "draining"; drained != (want == exitOK) || (stdout.String() != "") != drained {
				t.Errorf("drained: %v, stdout %q", drained, &stdout)
			}
		})
	}
}

// A person who is asked can also press Ctrl-C.
func TestConfirmInterrupted(t *testing.T) {
	t.Parallel()
	_, tty := newTerminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	a := &app{stdin: tty, stderr: tty, stdout: tty, env: func(string) string { return "" }}
	asked := make(chan error, 1)
	go func() { asked <- a.confirm(ctx, "Sure?") }()
	cancel()
	if f, ok := (<-asked).(*failure); !ok || f.code != exitInterrupted {
		t.Errorf("%+v", f)
	}
}

// On a terminal, status is always drawn in the same place.
func TestStatusWatchOnATerminal(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	screen, tty := newTerminal(t)
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 4, Col: 80}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var errs buffer
	a := &app{stdout: tty, stderr: &errs, env: func(string) string { return "" }}
	code := make(chan int, 1)
	go func() {
		code <- a.run(ctx, strings.Fields("status --watch --interval 100ms --color never --url "+r.url))
	}()
	var seen strings.Builder
	b := make([]byte, 4096)
	for strings.Count(seen.String(), "\x1b[H") < 3 {
		n, err := screen.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		seen.Write(b[:n])
	}
	cancel()
	if got := <-code; got != exitOK || errs.String() != "" {
		t.Errorf("exit code %d, %q", got, &errs)
	}
	frame := strings.Split(seen.String(), "\x1b[H")[1]
	if !strings.HasPrefix(seen.String(), "\x1b[?7l\x1b[2J") || strings.Count(frame, "\n") != 3 || !strings.Contains(frame, "…") {
		t.Errorf("%q", seen.String())
	}
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	_, tty := newTerminal(t)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if !terminal(tty) || terminal(null) || terminal(&buffer{}) || terminal((*os.File)(nil)) {
		t.Errorf("terminal: %v, /dev/null: %v", terminal(tty), terminal(null))
	}
}
