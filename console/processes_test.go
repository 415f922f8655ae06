package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/problem"
)

// processes stands in for a supervisor.
type processes struct {
	restart func(ctx context.Context) error

	mu       sync.Mutex
	restarts int
	lines    []console.LogLine
	more     chan struct{} // closed when there are more lines
}

func (p *processes) List() []console.Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.restarts < 0 {
		return nil
	}
	return []console.Process{{
		Service: "pay", Instance: "pay-1", State: "running", PID: 4711, Port: 3001,
		StartedAt: time.Date(2026, 11, 22, 16, 0, 0, 0, time.UTC), Restarts: p.restarts, LastExit: "signal: killed",
	}}
}

func (p *processes) Restart(ctx context.Context, service string) error {
	if service != "pay" {
		return fmt.Errorf("restart %q: %w", service, console.ErrUnknownService)
	}
	if err := p.restart(ctx); err != nil {
		return fmt.Errorf("restart pay: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restarts++
	return nil
}

func (p *processes) write(instance, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, console.LogLine{Time: time.Unix(int64(len(p.lines)), 0).UTC(), Service: "pay", Instance: instance, Stream: "stdout", Text: text})
	close(p.more)
	p.more = make(chan struct{})
}

func (p *processes) Logs(ctx context.Context, service string, tail int, follow bool) (iter.Seq[console.LogLine], error) {
	if service != "pay" {
		return nil, console.ErrUnknownService
	}
	return func(yield func(console.LogLine) bool) {
		p.mu.Lock()
		next := max(0, len(p.lines)-tail)
		p.mu.Unlock()
		for {
			p.mu.Lock()
			lines, more := p.lines[next:], p.more
			next = len(p.lines)
			p.mu.Unlock()
			for _, l := range lines {
				if !yield(l) {
					return
				}
			}
			if !follow {
				return
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			}
		}
	}, nil
}

func TestNoProcesses(t *testing.T) {
	t.Parallel()
	c := newConsole(t, console.Config{Registry: fleet(t)})
	for _, w := range []*httptest.ResponseRecorder{ask(c, "GET", "/v1/processes"), ask(c, "POST", "/v1/processes/pay/restart"), ask(c, "GET", "/v1/processes/pay/logs")} {
		if p := decode(t, w); w.Code != 404 || p.Code != problem.CodeNotFound || !strings.Contains(p.Detail, "runs no processes") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	p := &processes{more: make(chan struct{}), restarts: -1}
	c := newConsole(t, console.Config{Registry: fleet(t), Processes: p})
	if w := ask(c, "GET", "/v1/processes"); w.Code != 200 || w.Body.String() != "[]\n" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	p.restarts = 2
	w := ask(c, "GET", "/v1/processes")
	var got []map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]map[string]any{{
		"service": "pay", "instance": "pay-1", "state": "running", "pid": 4711.0, "port": 3001.0, "startedAt": "2026-11-22T16:00:00Z", "restarts": 2.0, "lastExit": "signal: killed",
	}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	p := &processes{more: make(chan struct{})}
	c := newConsole(t, console.Config{Registry: fleet(t), Processes: p})
	for _, tc := range []struct {
		service string
		err     error
		status  int
		code    string
		detail  string
	}{
		{"pay", nil, 200, "", `"restarts":1`},
		{"orders", nil, 404, problem.CodeNotFound, ""},
		{"pay", console.ErrRestarting, 409, problem.CodeConflict, ""},
		{"pay", errors.New("pay-1 was not healthy within 30s"), 502, problem.CodeUpstreamFailed, "pay-1 was not healthy within 30s"},
		{"pay", errors.New(strings.Repeat("ä", 5000)), 502, problem.CodeUpstreamFailed, "ää"},
	} {
		p.restart = func(context.Context) error { return tc.err }
		w := ask(c, "POST", "/v1/processes/"+tc.service+"/restart")
		if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.detail) || w.Body.Len() > 4000 {
			t.Errorf("%s, %v: %d %s", tc.service, tc.err, w.Code, w.Body)
		}
		if tc.status != 200 && decode(t, w).Code != tc.code {
			t.Errorf("%s, %v: %s", tc.service, tc.err, w.Body)
		}
	}
	if w := ask(c, "GET", "/v1/processes/pay/restart"); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("a restart by GET: %d", w.Code)
	}
}

// A restart may take longer than the server gives an answer, and is told when
// its caller leaves.
func TestLongRestart(t *testing.T) {
	t.Parallel()
	p := &processes{more: make(chan struct{})}
	srv := httptest.NewUnstartedServer(newConsole(t, console.Config{Registry: fleet(t), Processes: p}))
	srv.Config.WriteTimeout, srv.Config.ReadTimeout = 50*time.Millisecond, 50*time.Millisecond
	srv.Start()
	t.Cleanup(srv.Close)
	p.restart = func(ctx context.Context) error {
		select {
		case <-time.After(200 * time.Millisecond):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	resp, err := srv.Client().Post(srv.URL+"/v1/processes/pay/restart", "", nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()

	began, ended := make(chan struct{}), make(chan struct{})
	p.restart = func(ctx context.Context) error {
		close(began)
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/v1/processes/pay/restart", nil)
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		_, err := srv.Client().Do(req)
		left <- err
	}()
	wait(t, began)
	cancel()
	wait(t, ended)
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	p := &processes{more: make(chan struct{})}
	c := newConsole(t, console.Config{Registry: fleet(t), Processes: p})
	if w := ask(c, "GET", "/v1/processes/pay/logs"); w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("nothing was written: %d %q", w.Code, w.Body)
	}
	for n := range 150 {
		p.write(fmt.Sprint("pay-", 1+n%2), fmt.Sprintf("line %d <&>\u2028\x1b[31m", n))
	}
	for query, want := range map[string][2]int{ // how many, and the first
		"": {100, 50}, "?tail=3": {3, 147}, "?tail=0": {0, 0}, "?tail=10000": {150, 0}, "?tail=4&instance=pay-2": {2, 147}, "?instance=other": {0, 0}, "?follow=false&tail=1": {1, 149},
	} {
		w := ask(c, "GET", "/v1/processes/pay/logs"+query)
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/x-ndjson" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", query, w.Code, w.Header())
		}
		lines := strings.Split(strings.TrimSuffix(w.Body.String(), "\n"), "\n")
		if w.Body.Len() == 0 {
			lines = nil
		}
		if len(lines) != want[0] {
			t.Errorf("%s: %d lines, want %d", query, len(lines), want[0])
			continue
		}
		if len(lines) > 0 {
			var l console.LogLine
			if err := json.Unmarshal([]byte(lines[0]), &l); err != nil || l.Text != fmt.Sprintf("line %d <&>\u2028\x1b[31m", want[1]) || l.Stream != "stdout" || l.Service != "pay" {
				t.Errorf("%s: %q %v", query, lines[0], err)
			}
		}
	}
	for query, pointer := range map[string]string{
		"?tail=-1": "#query/tail", "?tail=10001": "#query/tail", "?tail=x": "#query/tail", "?tail=": "#query/tail", "?tail=99999999999999999999": "#query/tail",
		"?follow=yes": "#query/follow", "?follow": "#query/follow", "?tail=%": "#query",
	} {
		w := ask(c, "GET", "/v1/processes/pay/logs"+query)
		if pr := decode(t, w); w.Code != 400 || pr.Errors[0].Pointer != pointer {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	if w := ask(c, "GET", "/v1/processes/orders/logs"); w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(c, "HEAD", "/v1/processes/pay/logs?follow=true"); w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d %q", w.Code, w.Body)
	}
}

// Who follows gets lines as they are written, until the token expires.
func TestFollowLogs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &processes{more: make(chan struct{})}
		s, stop := serveVirtual(t, console.Config{Processes: p, Authenticator: auth.Func(func(context.Context, auth.Credentials) (*auth.Identity, error) {
			return &auth.Identity{Subject: "ada", Scopes: []string{console.ScopeAdmin}, Expires: time.Now().Add(time.Hour)}, nil
		})})
		defer stop()
		begin := time.Now()
		p.write("pay-1", "first")
		conn, reader := s.connectTo(t, "/v1/processes/pay/logs?follow=true", "")
		defer conn.Close()
		lines := make(chan string)
		go func() { // always reading, as what is sent is buffered nowhere
			defer close(lines)
			for {
				line, err := reader.lines.ReadString('\n')
				if err != nil {
					lines <- line + err.Error()
					return
				}
				lines <- line
			}
		}()
		for _, text := range []string{"first", "second", "third"} {
			if text != "first" {
				time.Sleep(time.Minute) // longer than a write may take
				p.write("pay-1", text)
			}
			if line := <-lines; !strings.Contains(line, `"text":"`+text+`"`) {
				t.Errorf("%q, want %s", line, text)
			}
		}
		if line := <-lines; line != io.EOF.Error() {
			t.Errorf("%q", line)
		}
		if took := time.Since(begin); took != time.Hour {
			t.Errorf("it lasted %v", took)
		}
	})
}
