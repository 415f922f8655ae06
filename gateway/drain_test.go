package gateway_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Streams would hold up a stop for as long as their clients like.
func TestDrainEndsStreams(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	e := oneService(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: 1\n\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/ws":
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
			if err != nil {
				return
			}
			defer c.CloseNow()
			_, _, _ = c.Read(r.Context())
		case "/slow":
			arrived <- struct{}{}
			<-release
			_, _ = io.WriteString(w, "done")
		}
	}, open("/*"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	events := func() (*http.Response, *bufio.Reader) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := e.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res, bufio.NewReader(res.Body)
	}
	_, lines := events()
	if line, err := lines.ReadString('\n'); err != nil || line != "data: 1\n" {
		t.Fatalf("%q, %v", line, err)
	}
	ws, _, err := websocket.Dial(ctx, e.url+"/ws", &websocket.DialOptions{HTTPClient: e.http})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	slow := make(chan string, 1)
	go func() {
		_, body := e.do(http.MethodGet, "/slow", "")
		slow <- body
	}()
	select {
	case <-arrived:
	case <-ctx.Done():
		t.Fatal("the request does not arrive")
	}

	e.Drain()
	e.Drain() // twice is once
	if _, err := io.Copy(io.Discard, lines); ctx.Err() != nil {
		t.Errorf("the event stream goes on: %v", err)
	}
	if _, _, err := ws.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the WebSocket goes on: %v", err)
	}
	_, lines = events() // one that begins later
	if _, err := io.Copy(io.Discard, lines); ctx.Err() != nil {
		t.Errorf("a later event stream goes on: %v", err)
	}
	close(release)
	select {
	case got := <-slow:
		if got != "done" {
			t.Errorf("an ordinary request was cut: %q", got)
		}
	case <-ctx.Done():
		t.Error("an ordinary request has no answer")
	}
}
