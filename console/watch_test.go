package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// stream is one reader of /v1/watch.
type stream struct {
	body   io.ReadCloser
	lines  *bufio.Reader
	cancel context.CancelFunc
}

func watch(t *testing.T, url string, header ...string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s %v", resp.Status, resp.Header)
	}
	return &stream{resp.Body, bufio.NewReader(resp.Body), cancel}
}

// event is one event, with the ids of its instances.
type event struct {
	id     uint64
	at     string // the whole id
	name   string
	ids    string // "users-1=healthy users-2=degraded"
	stamps int    // instances with a lastHeartbeat
}

// next reads one event. io.EOF is the end of the stream.
func (s *stream) next(t *testing.T) (e event, err error) {
	t.Helper()
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return e, err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			revision, _, _ := strings.Cut(value, "-")
			if e.id, err = strconv.ParseUint(revision, 10, 64); err != nil {
				t.Fatal(err)
			}
			e.at = value
		case "event":
			e.name = value
		case "data":
			var all []registry.Instance
			if e.name != "snapshot" {
				value = "[" + value + "]"
			}
			if err := json.Unmarshal([]byte(value), &all); err != nil || all == nil {
				t.Fatalf("data %q: %v", value, err)
			}
			for _, in := range all {
				e.ids += " " + in.ID + "=" + string(in.Status)
				if !in.LastHeartbeat.IsZero() {
					e.stamps++
				}
			}
			e.ids = strings.TrimPrefix(e.ids, " ")
		case ":":
			e.name = "comment"
		case "":
			return e, nil
		default:
			t.Fatalf("line %q", line)
		}
	}
}

func (s *stream) want(t *testing.T, name, ids string) event {
	t.Helper()
	e, err := s.next(t)
	if err != nil || e.name != name || e.ids != ids {
		t.Fatalf("event %+v, %v; want %s of %q", e, err, name, ids)
	}
	return e
}

func TestWatch(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	srv := httptest.NewServer(newConsole(t, console.Config{Registry: r, LastHeartbeat: func(registry.Key) time.Time { return time.Now() }}))
	t.Cleanup(srv.Close) // after the streams' own
	register(t, r, registry.Instance{Name: "users", ID: "users-1"})
	all, orders := watch(t, srv.URL+"/v1/watch"), watch(t, srv.URL+"/v1/watch?service=orders&service=payments")
	orders.want(t, "snapshot", "")
	last := all.want(t, "snapshot", "users-1=healthy")
	first := last.at
	reg := register(t, r, registry.Instance{Name: "orders", ID: "orders-1", Status: health.Starting})
	for _, s := range []registry.Status{health.Healthy, health.Degraded} {
		if err := reg.SetStatus(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the registry shows it", func() bool { in, _ := r.Get(reg.Instance().Key()); return in.Status == s })
	}
	if err := reg.Deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range [][2]string{
		{"register", "orders-1=starting"}, {"status-change", "orders-1=healthy"}, {"status-change", "orders-1=degraded"}, {"deregister", "orders-1=degraded"},
	} {
		e := all.want(t, want[0], want[1])
		orders.want(t, want[0], want[1])
		if e.id <= last.id {
			t.Errorf("%s has the id %d after %d", e.name, e.id, last.id)
		}
		if e.stamps != 1 {
			t.Errorf("%s has no lastHeartbeat", e.name)
		}
		last = e
	}
	// Who comes back gets what he missed.
	again := watch(t, srv.URL+"/v1/watch", "Last-Event-ID", first)
	for _, want := range [][2]string{
		{"register", "orders-1=starting"}, {"status-change", "orders-1=healthy"}, {"status-change", "orders-1=degraded"}, {"deregister", "orders-1=degraded"},
	} {
		again.want(t, want[0], want[1])
	}
	narrow := watch(t, srv.URL+"/v1/watch?service=users", "Last-Event-ID", first)
	upToDate := watch(t, srv.URL+"/v1/watch", "Last-Event-ID", last.at)
	register(t, r, registry.Instance{Name: "users", ID: "users-2"})
	narrow.want(t, "register", "users-2=healthy")
	upToDate.want(t, "register", "users-2=healthy")
	// What is no position of this store is answered with the whole truth.
	_, store, _ := strings.Cut(last.at, "-")
	revision := strconv.FormatUint(last.id, 10)
	for _, id := range []string{"1", revision, revision + "-", "-" + store, "99999-" + store, revision + "-" + store + "x", "what?", "-", "+1-" + store, store, strings.Repeat("9", 400)} {
		again := watch(t, srv.URL+"/v1/watch", "Last-Event-ID", id)
		if e := again.want(t, "snapshot", "users-1=healthy users-2=healthy"); e.id < last.id {
			t.Errorf("the snapshot has the id %d after %d", e.id, last.id)
		}
	}
}

// A stream ends when the registry closes, and when its reader leaves.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	ended := make(chan struct{}, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		defer func() { ended <- struct{}{} }()
		c.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close) // after the streams' own
	leaves := watch(t, srv.URL+"/v1/watch")
	leaves.want(t, "snapshot", "")
	leaves.cancel()
	wait(t, ended)

	resp, err := srv.Client().Head(srv.URL + "/v1/watch") // does not wait for events it could not send
	wait(t, ended)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD: %v, %v", resp, err)
	}

	stays := watch(t, srv.URL+"/v1/watch")
	stays.want(t, "snapshot", "")
	r.Close()
	if e, err := stays.next(t); err != io.EOF {
		t.Errorf("after Close: %+v, %v", e, err)
	}
	wait(t, ended)
}

func wait(t *testing.T, ended chan struct{}) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the handler goes on")
	}
}

// pipes is a listener of connections within the process, which work in virtual
// time and buffer nothing.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Addr() net.Addr { return loopback }
func (p *pipes) Close() error   { close(p.done); return nil }

// served is a console in virtual time, with a hub of its own.
type served struct {
	registry *registry.Registry
	pipes    *pipes
}

func serveVirtual(t *testing.T, cfg console.Config) (*served, func()) {
	t.Helper()
	s := &served{registry: registry.Open(context.Background(), memregistry.New().Connect()), pipes: &pipes{make(chan net.Conn), make(chan struct{})}}
	cfg.Registry = s.registry
	srv := &http.Server{Handler: newConsole(t, cfg)}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(s.pipes) }()
	return s, func() {
		srv.Close()
		<-ended
		s.registry.Close()
	}
}

// connect opens a watch and returns the connection behind the response's head.
func (s *served) connect(t *testing.T, header string) (net.Conn, *stream) {
	t.Helper()
	return s.connectTo(t, "/v1/watch", header)
}

func (s *served) connectTo(t *testing.T, path, header string) (net.Conn, *stream) {
	t.Helper()
	client, server := net.Pipe()
	s.pipes.conns <- server
	go fmt.Fprintf(client, "GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", path, header)
	raw := bufio.NewReaderSize(client, 16) // takes no more than asked for
	resp, err := http.ReadResponse(raw, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v %v", resp, err)
	}
	return client, &stream{body: resp.Body, lines: bufio.NewReader(resp.Body)}
}

// A quiet stream has a sign of life every 15 s, and large events after long
// silence arrive: the limit is for a write, not for the time between two.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, stop := serveVirtual(t, console.Config{})
		defer stop()
		conn, reader := s.connect(t, "")
		defer conn.Close()
		reader.want(t, "snapshot", "")
		begin := time.Now()
		for range 3 {
			if e, err := reader.next(t); err != nil || e.name != "comment" {
				t.Fatalf("%+v, %v", e, err)
			}
		}
		if took := time.Since(begin); took != 45*time.Second {
			t.Errorf("3 heartbeats in %v", took)
		}
		time.Sleep(14 * time.Second) // longer than a write may take
		large := map[string]string{}
		for i := range 50 {
			large[fmt.Sprint("key", i)] = strings.Repeat("x", 900)
		}
		if _, err := s.registry.Register(t.Context(), registry.Instance{Name: "users", ID: "users-1", Address: "http://10.0.0.1:1", Metadata: large}); err != nil {
			t.Fatal(err)
		}
		reader.want(t, "register", "users-1=healthy")
	})
}

// A reader that takes nothing is cut after 10 s, and nobody waits for it.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, stop := serveVirtual(t, console.Config{})
		defer stop()
		stuck, _ := s.connect(t, "") // and it reads no more
		defer stuck.Close()
		conn, reader := s.connect(t, "")
		defer conn.Close()
		reader.want(t, "snapshot", "")
		begin := time.Now()
		for i := range 2000 { // more than a watcher may be behind
			reg, err := s.registry.Register(t.Context(), registry.Instance{Name: "users", ID: fmt.Sprint("users-", i), Address: "http://10.0.0.1:1"})
			if err != nil {
				t.Fatal(err)
			}
			reader.want(t, "register", fmt.Sprintf("users-%d=healthy", i))
			if err := reg.Deregister(t.Context()); err != nil {
				t.Fatal(err)
			}
			reader.want(t, "deregister", fmt.Sprintf("users-%d=healthy", i))
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("the other reader waited %v", took)
		}
		time.Sleep(11 * time.Second)
		if n, err := io.Copy(io.Discard, stuck); err != nil && !errors.Is(err, io.ErrClosedPipe) || n > 1<<10 {
			t.Errorf("the stuck reader still gets something: %d bytes, %v", n, err)
		}
		if time.Since(begin) > 12*time.Second {
			t.Errorf("it was cut only after %v", time.Since(begin))
		}
	})
}

// A reader that takes little at a time gets all of a large snapshot: the limit is
// for one that takes nothing.
func TestSteadyReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, stop := serveVirtual(t, console.Config{})
		defer stop()
		large := map[string]string{}
		for n := range 50 {
			large[fmt.Sprint(n)] = strings.Repeat("x", 1000)
		}
		for n := range 4 {
			if _, err := s.registry.Register(t.Context(), registry.Instance{Name: "users", ID: fmt.Sprint("users-", n), Address: "http://10.0.0.1:1", Metadata: large}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait() // until the registry shows them
		begin := time.Now()
		conn, reader := s.connect(t, "")
		defer conn.Close()
		reader.lines = bufio.NewReader(&steady{reader.body})
		reader.want(t, "snapshot", "users-0=healthy users-1=healthy users-2=healthy users-3=healthy")
		if took := time.Since(begin); took < 2*time.Second*10 {
			t.Errorf("it was read in %v, no longer than a write may take", took)
		}
	})
}

// steady takes at most what one read gives, twice a second.
type steady struct{ io.Reader }

func (s *steady) Read(p []byte) (int, error) {
	time.Sleep(time.Second / 2)
	return s.Reader.Read(p)
}

// Nobody waits for ever for a reader of a plain answer, either; and the next one
// on the connection has its own time.
func TestStuckReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, stop := serveVirtual(t, console.Config{})
		defer stop()
		large := map[string]string{}
		for n := range 50 {
			large[fmt.Sprint(n)] = strings.Repeat("x", 1000)
		}
		if _, err := s.registry.Register(t.Context(), registry.Instance{Name: "users", ID: "users-1", Address: "http://10.0.0.1:1", Metadata: large}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // until the registry shows it
		client, server := net.Pipe()
		defer client.Close()
		s.pipes.conns <- server
		answers := bufio.NewReader(client)
		for range 3 {
			go fmt.Fprint(client, "GET /v1/services HTTP/1.1\r\nHost: localhost\r\n\r\n")
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || n < 50_000 {
				t.Fatalf("%d bytes, %v", n, err)
			}
			time.Sleep(90 * time.Second)
		}
		go fmt.Fprint(client, "GET /v1/services HTTP/1.1\r\nHost: localhost\r\n\r\n")
		time.Sleep(61 * time.Second)
		_ = client.SetReadDeadline(time.Now().Add(time.Second)) // it fails if the server has gone, as it should
		if n, err := io.Copy(io.Discard, client); err != nil && !errors.Is(err, io.ErrClosedPipe) || n > 10_000 {
			t.Errorf("the stuck reader still gets something: %d bytes, %v", n, err)
		}
	})
}

// A stream lasts no longer than the token it was opened with.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, stop := serveVirtual(t, console.Config{Authenticator: auth.Func(func(context.Context, auth.Credentials) (*auth.Identity, error) {
			return &auth.Identity{Subject: "ada", Scopes: []string{console.ScopeAdmin}, Expires: time.Now().Add(5 * time.Second)}, nil
		})})
		defer stop()
		begin := time.Now()
		conn, reader := s.connect(t, "")
		defer conn.Close()
		reader.want(t, "snapshot", "")
		if e, err := reader.next(t); err != io.EOF {
			t.Errorf("%+v, %v", e, err)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("it lasted %v", took)
		}
	})
}
