//go:build linux

package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// slow starts a request to the echo service that takes d, and returns when it is
// being handled. Its outcome comes by the channel.
func (p *project) slow(query string) <-chan error {
	p.t.Helper()
	bearer := p.bearer()
	outcome := make(chan error, 1)
	go func() { // until the answer is there, or the connection is cut
		got, err := p.send("GET", "/api/echo/slow?"+query, "", bearer...)
		if err == nil && (got.status != 200 || !strings.HasSuffix(got.body, "done\n")) {
			err = fmt.Errorf("%d %q", got.status, got.body)
		}
		outcome <- err
	}()
	p.await("the slow request to arrive", patience, func() error {
		if got := p.call("GET", "/api/echo/waiting", ""); got.body == "0" || got.status != 200 {
			return fmt.Errorf("%d %s", got.status, got.body)
		}
		return nil
	})
	return outcome
}

// TestCtrlCUnderLoad: what was begun is finished, and then nothing is left.
func TestCtrlCUnderLoad(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute+echoRoute, userService(t, 2)+role(t, "echo"))
	up := p.up().ready()
	p.serving("user-service", 2)
	whole, begun := p.slow("d=2s"), p.slow("d=2s&flush")
	readers := startLoad(4, p.reading)
	readers.more(p, 100)
	up.signal(syscall.SIGINT)
	pressed := time.Now()
	for name, outcome := range map[string]<-chan error{"answered at its end": whole, "begun": begun} {
		if err := <-outcome; err != nil {
			t.Errorf("the slow request %s: %v", name, err)
		}
	}
	if code := up.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	t.Logf("stopped in %v", time.Since(pressed).Round(time.Millisecond))
	up.gone(patience)
	failed := readers.stop()
	t.Logf("%d answered, %d refused, %d not answered", readers.ok.Load(), readers.refused.Load(), len(failed))
	for _, f := range failed {
		// A connection that was opened and never accepted is reset when the
		// listener closes. Whatever was answered must be right, and complete.
		if !errors.Is(f.err, syscall.ECONNRESET) && !errors.Is(f.err, io.EOF) || errors.Is(f.err, errTruncated) {
			t.Error(f)
		}
	}
	if len(failed) > 8 {
		t.Errorf("%d requests got no answer:%s", len(failed), failed)
	}
	if !strings.Contains(up.err.String(), "everything is stopped") {
		t.Errorf("it does not say that all is stopped:\n%s", up)
	}
}

// TestTerminateIsAsGood: SIGTERM to up alone, as a service manager sends it.
func TestTerminateIsAsGood(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(echoRoute, role(t, "echo"))
	up := p.up().ready()
	outcome := p.slow("d=500ms")
	up.note()
	if err := syscall.Kill(up.pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-outcome; err != nil {
		t.Error(err)
	}
	if code := up.exit(patience); code != 0 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	up.gone(patience)
}

// TestSecondCtrlCDoesNotWait: neither for requests nor for a child that does not
// want to end.
func TestSecondCtrlCDoesNotWait(t *testing.T) {
	t.Parallel()
	for name, slow := range map[string]bool{"slow request": true, "stubborn child": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProject(t)
			p.manifest(echoRoute, role(t, "echo")+role(t, "stubborn"))
			up := p.up().ready()
			if slow {
				outcome := p.slow("d=50s")
				defer func() { <-outcome }()
			}
			up.signal(syscall.SIGINT)
			// It has begun to stop: the gateway, or all but the stubborn child.
			p.await("the stop to begin", patience, func() error {
				if _, err := p.send("GET", "/health", ""); err == nil {
					return fmt.Errorf("the gateway still answers")
				}
				return nil
			})
			select {
			case <-up.done:
				t.Fatalf("it did not wait: %v\n%s", up.cmd.ProcessState, up)
			default:
			}
			up.signal(syscall.SIGINT)
			pressed := time.Now()
			if code := up.exit(patience); code != 1 {
				t.Errorf("exit code %d, want 1\n%s", code, up)
			}
			took := time.Since(pressed)
			t.Logf("gone %v after the second Ctrl-C", took.Round(time.Millisecond))
			if took > 5*time.Second {
				t.Errorf("that took too long")
			}
			up.gone(5 * time.Second)
			if !strings.Contains(up.err.String(), "second signal") {
				t.Errorf("it does not say why:\n%s", up)
			}
		})
	}
}

// TestCtrlCDuringTheBuild ends it at once and is no failure.
func TestCtrlCDuringTheBuild(t *testing.T) {
	t.Parallel()
	p := newProject(t)
	p.manifest(userRoute, "  user-service: {package: ./shop}\n")
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "go"), []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := p.command(t.Context(), keelson, "up")
	cmd.Env = append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	up := p.start(cmd)
	up.says("building ./shop")
	up.note()
	up.signal(syscall.SIGINT)
	if code := up.exit(10 * time.Second); code != 0 {
		t.Errorf("exit code %d\n%s", code, up)
	}
	up.gone(5 * time.Second)
}
