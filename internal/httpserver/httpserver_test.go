package httpserver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/internal/httpserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type running struct {
	url  string
	stop func()
	done chan error
}

func run(t *testing.T, srv *http.Server, stop httpserver.Stop) *running {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	r := &running{"http://" + l.Addr().String(), cancel, make(chan error, 1)}
	ready := make(chan struct{})
	go func() { r.done <- httpserver.Run(ctx, func() { close(ready) }, l, srv, stop) }()
	<-ready
	return r
}

func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("still running")
		return nil
	}
}

func get(t *testing.T, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

func within(d time.Duration) func() (context.Context, context.CancelFunc) {
	return func() (context.Context, context.CancelFunc) { return context.WithTimeout(context.Background(), d) }
}

func TestRequestsFinish(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	r := run(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		fmt.Fprint(w, "done ", r.Context().Err())
	})}, httpserver.Stop{Grace: within(time.Minute)})
	answer := make(chan string, 1)
	go func() {
		body, err := get(t, r.url)
		answer <- fmt.Sprint(body, err)
	}()
	<-entered
	r.stop()
	for { // until the listener has closed
		if c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://")); err != nil {
			break
		} else {
			c.Close()
		}
	}
	close(release)
	if got := <-answer; got != "done <nil><nil>" {
		t.Errorf("the request in progress got %q", got)
	}
	if err := r.wait(t); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// Drain is told before the wait, and the contexts of what is cut end.
func TestDrainAndCut(t *testing.T) {
	t.Parallel()
	drain := make(chan struct{})
	entered := make(chan struct{}, 2)
	cut := make(chan error, 1)
	r := run(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		if r.URL.Path == "/stream" {
			<-drain
			fmt.Fprint(w, "end")
			return
		}
		<-r.Context().Done()
		cut <- r.Context().Err()
	})}, httpserver.Stop{Drain: func() { close(drain) }, Grace: within(200 * time.Millisecond)})
	stream := make(chan string, 1)
	go func() {
		body, _ := get(t, r.url+"/stream")
		stream <- body
	}()
	go func() { _, _ = get(t, r.url+"/endless") }()
	<-entered
	<-entered
	r.stop()
	if got := <-stream; got != "end" {
		t.Errorf("the stream got %q", got)
	}
	if err := r.wait(t); err == nil || !strings.Contains(err.Error(), "were cut: 1") {
		t.Errorf("stop: %v, want it to say that 1 request was cut", err)
	}
	if err := <-cut; !errors.Is(err, context.Canceled) {
		t.Errorf("the request that was cut saw %v", err)
	}
}

// Hijacked connections count, and new ones that say nothing hold nobody up.
func TestHijackedAndFresh(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	r := run(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		close(entered)
		<-release
	})}, httpserver.Stop{Grace: within(time.Minute)})
	fresh, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	go func() { _, _ = get(t, r.url) }()
	<-entered
	r.stop()
	if _, err := fresh.Read(make([]byte, 1)); err == nil {
		t.Error("a connection that said nothing got something")
	}
	select {
	case err := <-r.done:
		t.Fatalf("it did not wait for the hijacked connection: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := r.wait(t); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// A connection may be accepted at the very moment of the stop.
func TestAcceptedWhileStopping(t *testing.T) {
	t.Parallel()
	stop := make(chan func(), 1)
	r := run(t, &http.Server{
		Handler: http.NotFoundHandler(),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			(<-stop)()
			for { // until the listener has closed; then the connection is told to be new
				d, err := net.DialTimeout("tcp", c.LocalAddr().String(), time.Second)
				if err != nil {
					return ctx
				}
				d.Close()
			}
		},
	}, httpserver.Stop{Grace: within(time.Minute)})
	stop <- r.stop
	silent, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	began := time.Now()
	if err := r.wait(t); err != nil {
		t.Errorf("stop: %v", err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("the stop waited %v for a connection that said nothing", took)
	}
}

func TestOwnSettingsAreKept(t *testing.T) {
	t.Parallel()
	type key struct{}
	states := make(chan http.ConnState, 16)
	r := run(t, &http.Server{
		Handler:     http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Context().Value(key{})) }),
		BaseContext: func(net.Listener) context.Context { return context.WithValue(context.Background(), key{}, "mine") },
		ConnState:   func(_ net.Conn, s http.ConnState) { states <- s },
	}, httpserver.Stop{})
	if got, err := get(t, r.url); err != nil || got != "mine" {
		t.Errorf("got %q, %v", got, err)
	}
	if s := <-states; s != http.StateNew {
		t.Errorf("first state %v", s)
	}
	r.stop()
	if err := r.wait(t); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestServerThatEndsByItself(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := httpserver.Run(t.Context(), func() {}, l, &http.Server{}, httpserver.Stop{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run on a closed listener: %v", err)
	}
}

func ExampleRun() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.NotFoundHandler()}
	err = httpserver.Run(ctx, func() {
		fmt.Println("serving")
		stop()
	}, l, srv, httpserver.Stop{})
	fmt.Println(err)
	// Output:
	// serving
	// <nil>
}
