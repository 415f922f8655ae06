package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/keelson-go/keelson/registry"
)

// scripted is an admin API whose stream is what the test says, one connection
// after the other.
type scripted struct {
	url string

	mu      sync.Mutex
	streams []string // of the connections to come
	resumed []string // Last-Event-ID of those that came
}

func script(t *testing.T, streams ...string) *scripted {
	s := &scripted{streams: streams}
	s.url = newStub(t, func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.resumed = append(s.resumed, r.Header.Get("Last-Event-ID"))
		if len(s.streams) == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, s.streams[0])
		s.streams = s.streams[1:]
	})
	return s
}

func (s *scripted) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.resumed)
}

// watch runs `services watch` until ok.
func watch(t *testing.T, url string, ok func(stdout string) bool, args ...string) (stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs buffer
	a := &app{stdout: &out, stderr: &errs, env: func(string) string { return "" }}
	code := make(chan int, 1)
	go func() { code <- a.run(ctx, append([]string{"services", "watch", "--url", url}, args...)) }()
	eventually(t, "what the watch shall show", func() bool { return ok(out.String()) })
	cancel()
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d after Ctrl-C; %s", got, &errs)
	}
	return out.String(), errs.String()
}

func event(t *testing.T, id, name string, payload any) string {
	t.Helper()
	b, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", id, name, b)
}

// After a cut the stream is taken up behind the last event, and after an outage
// it is said that it is back.
func TestWatchResumes(t *testing.T) {
	t.Parallel()
	u1 := registry.Instance{Name: "user-service", ID: "u1", Status: "healthy"}
	u2 := registry.Instance{Name: "user-service", ID: "u2", Status: "healthy"}
	s := script(t,
		event(t, "7-abc", "snapshot", []registry.Instance{u1})+event(t, "8-abc", "register", u2)+"id: 9-abc\nevent: deregister\n",
		event(t, "9-abc", "deregister", u1),
	)
	stdout, stderr := watch(t, s.url, func(string) bool { return s.connections() > 3 }, "-o", "json")
	s.mu.Lock()
	resumed := s.resumed[:4]
	s.mu.Unlock()
	if got := strings.Join(resumed, " "); got != " 8-abc 9-abc 9-abc" {
		t.Errorf("taken up behind %q", got)
	}
	var lines []string
	for line := range strings.Lines(stdout) {
		var e struct {
			Event, ID string
			Data      json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, e.ID+" "+e.Event)
	}
	if got := strings.Join(lines, ", "); got != "7-abc snapshot, 8-abc register, 9-abc deregister" {
		t.Error(got)
	}
	if strings.Count(stderr, "connecting again") != 1 {
		t.Errorf("of the outage is said:\n%s", stderr)
	}
}

// What a later snapshot lacks has gone, and is told as such.
func TestWatchTellsWhatASnapshotLacks(t *testing.T) {
	t.Parallel()
	u1 := registry.Instance{Name: "user-service", ID: "u1", Status: "healthy", Address: "http://127.0.0.1:1"}
	u2 := registry.Instance{Name: "user-service", ID: "u2", Status: "healthy", Address: "http://127.0.0.1:2"}
	s := script(t,
		event(t, "1-a", "snapshot", []registry.Instance{u1, u2}),
		event(t, "1-b", "snapshot", []registry.Instance{u2}),
	)
	stdout, _ := watch(t, s.url, func(stdout string) bool { return strings.Count(stdout, "\n") == 4 }, "--color", "always")
	lines := strings.Split(stdout, "\n")
	if !strings.Contains(lines[2], "\x1b[31mderegister   \x1b[0m  user-service.u1") || !strings.Contains(lines[3], "snapshot") {
		t.Errorf("%q", lines)
	}
}

// An event that can't be read ends the watch: it would come again for ever.
func TestWatchOfNonsense(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{"event: snapshot\ndata: {}\n\n", "event: register\ndata: [\n\n"} {
		got := keelson(t, nil, "services", "watch", "--url", script(t, stream).url)
		if got.code != exitFailed || !strings.Contains(got.stderr, "read the event") {
			t.Errorf("%q: %+v", stream, got)
		}
	}
	if got := keelson(t, nil, "services", "watch", "-o", "json", "--url", script(t, "data: [\n\n").url); got.code != exitFailed || got.stdout != "" {
		t.Errorf("as JSON: %+v", got)
	}
}
