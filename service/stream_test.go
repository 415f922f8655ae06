package service_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/keelson-go/keelson/service"
)

// Streams go on through the drain delay and end, in order, when requests are to
// finish: by themselves, by the route's middleware, or by watching Draining.
func TestStreamsEndAtStop(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		accept string
		around []func(http.Handler) http.Handler
		watch  bool
	}{
		"event stream":            {accept: "text/event-stream"},
		"route of streams":        {around: []func(http.Handler) http.Handler{service.Stream}},
		"handler asks":            {watch: true},
		"event stream on a route": {accept: "text/event-stream", around: []func(http.Handler) http.Handler{service.Stream}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, log := newService(t, "users", service.WithDrainDelay(100*time.Millisecond), service.WithStopTimeout(time.Minute))
			causes := make(chan error, 1)
			s.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) error {
				ctx := r.Context()
				out := http.NewResponseController(w)
				drain := service.Draining(ctx)
				if !tc.watch {
					drain = nil
				}
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						fmt.Fprint(w, "data: 1\n")
						if err := out.Flush(); err != nil {
							return err
						}
					case <-drain:
						causes <- nil
						return nil
					case <-ctx.Done():
						causes <- context.Cause(ctx)
						return ctx.Err()
					}
				}
			}, tc.around...)
			p := start(t, s)
			req, err := http.NewRequest("GET", p.url+"/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", tc.accept)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			begin := time.Now()
			p.cancel()
			n, err := events(t, resp)
			if took := time.Since(begin); err != nil || n == 0 || took < 100*time.Millisecond || took > 10*time.Second {
				t.Errorf("%d events and %v after %v", n, err, took)
			}
			if cause := <-causes; !tc.watch && !errors.Is(cause, service.ErrDraining) {
				t.Errorf("the context's cause is %v", cause)
			}
			if err := p.wait(t); err != nil {
				t.Errorf("Run: %v", err)
			}
			if rec := log.record(t, "request"); rec["status"] != 200.0 || rec["aborted"] != nil || rec["route"] != "/events" {
				t.Errorf("logged %v", rec)
			}
		})
	}
}

// A stream that had sent nothing yet gets an answer that says to try again.
func TestStreamThatHasNotBegun(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, "users")
	began := make(chan struct{})
	s.HandleFunc("GET /wait", func(_ http.ResponseWriter, r *http.Request) error {
		close(began)
		<-r.Context().Done()
		return r.Context().Err()
	}, service.Stream)
	p := start(t, s)
	answered := make(chan int, 1)
	go func() { answered <- status(t, p.url+"/wait") }()
	<-began
	if err := p.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	if got := <-answered; got != http.StatusServiceUnavailable {
		t.Errorf("answered %d", got)
	}
}

// WebSockets are told too, and waited for: components they use stop after them.
func TestWebSocketEndsAtStop(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, "users", service.WithStopTimeout(time.Minute))
	said := make(chan error, 1)
	s.OnStop("close the database", time.Minute, func(context.Context) error {
		select {
		case err := <-said:
			return err
		default:
			return errors.New("a handler still runs")
		}
	})
	s.Handle("GET /chat", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			said <- err
			return
		}
		<-r.Context().Done()
		err = conn.Close(websocket.StatusGoingAway, "stopping")
		said <- err
	}))
	p := start(t, s)
	conn, _, err := websocket.Dial(t.Context(), p.url+"/chat", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	p.cancel()
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("the client got %v", err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// One that does not heed it is cut like any other request.
func TestHijackedOverTime(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, "users", service.WithStopTimeout(200*time.Millisecond))
	ended := make(chan struct{})
	s.Handle("GET /raw", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\n\r\n")
		<-r.Context().Done()
	}))
	p := start(t, s)
	resp, err := client.Get(p.url + "/raw")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := p.stop(t); err == nil {
		t.Error("Run is content though a connection was cut")
	}
	<-ended
}

func TestDrainingOutsideAService(t *testing.T) {
	t.Parallel()
	if service.Draining(t.Context()) != nil {
		t.Error("Draining of a context without a service is a channel")
	}
}
