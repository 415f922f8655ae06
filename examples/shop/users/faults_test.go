package users_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keelson-go/keelson/examples/shop/users"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/internal/postgrestest"
	"github.com/keelson-go/keelson/service"
)

// The faults of a server, one after another on the same one: its disk settings
// are those of production.
func TestPostgresServerFaults(t *testing.T) {
	t.Parallel()
	server, err := postgrestest.Start(t.Context(), postgrestest.Durable())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("killed under load", func(t *testing.T) { testServerKilled(t, server) })
	t.Run("restarted", func(t *testing.T) { testServerRestarted(t, server) })
	t.Run("paused", func(t *testing.T) { testServerPaused(t, server) })
	t.Run("not there yet", func(t *testing.T) { testServerNotThereYet(t, server) })
}

// A server killed in the middle of writes loses nothing that was acknowledged,
// and has nothing twice. Meanwhile clients are told 503 and /health says
// unhealthy; all is well soon after the server is back.
func testServerKilled(t *testing.T, server *postgrestest.Server) {
	store := openAt(t, server.Database(t))
	s, _ := newService(t, store, service.WithDrainDelay(0))
	url, stop := start(t, s)
	status(t, url, health.Healthy)
	var mu sync.Mutex
	acknowledged, sent := map[string]string{}, map[string]bool{} // by email; the id
	stopped := make(chan struct{})
	var created atomic.Int64
	var wg sync.WaitGroup
	for writer := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stopped:
					return
				default:
				}
				email := fmt.Sprintf("u%d-%d@example.org", writer, i)
				mu.Lock()
				sent[email] = true
				mu.Unlock()
				w := call(s.Handler(), "POST", "/users", jsonType, `{"name":"U","email":"`+email+`"}`)
				switch w.Code {
				case 201:
					var u users.User
					if err := json.Unmarshal(w.Body.Bytes(), &u); err != nil {
						t.Error(err)
					}
					mu.Lock()
					acknowledged[email] = u.ID
					mu.Unlock()
					created.Add(1)
				case 503: // away
				default:
					t.Errorf("POST: %s", answer(w))
					return
				}
			}
		})
	}
	for range 2 {
		at := created.Load()
		eventually(t, "users are created", func() bool { return created.Load() > at+50 })
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		status(t, url, health.Unhealthy)
		if w := call(s.Handler(), "GET", "/users", "", ""); answer(w) != refusal(503, "unavailable", unavailable, "/users") {
			t.Errorf("GET: %s", answer(w))
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		status(t, url, health.Healthy)
	}
	at := created.Load()
	eventually(t, "users are created again", func() bool { return created.Load() > at+50 })
	close(stopped)
	wg.Wait()
	stored := map[string]string{}
	for _, u := range list(t, store) {
		if _, twice := stored[u.Email]; twice || !sent[u.Email] {
			t.Errorf("%s: twice: %t, sent: %t", u.Email, twice, sent[u.Email])
		}
		stored[u.Email] = u.ID
	}
	for email, id := range acknowledged {
		if stored[email] != id {
			t.Errorf("%s was acknowledged as %s, and is stored as %q", email, id, stored[email])
		}
	}
	if err := stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
}

// A restart cuts all connections. Reads that hit one say 503; there are no more of
// them than connections, and writes say whether they are in doubt.
func testServerRestarted(t *testing.T, server *postgrestest.Server) {
	s := openAt(t, with(server.Database(t), "pool_max_conns=3"))
	u := create(t, s, "Ann", "ann@example.org")
	var wg sync.WaitGroup
	for range 10 { // opens all connections
		wg.Go(func() {
			if _, err := s.Get(t.Context(), u.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	failed := 0
	for range 10 {
		if got, err := s.Get(t.Context(), u.ID); err == nil && got == u {
			continue
		} else if failed++; !errors.Is(err, users.ErrUnavailable) {
			t.Errorf("Get = %v, %v", got, err)
		}
	}
	if failed > 3 {
		t.Errorf("%d reads failed on 3 connections", failed)
	}
	create(t, s, "Bob", "bob@example.org")
}

// A server that hangs: requests end in time all the same, and /health tells.
func testServerPaused(t *testing.T, server *postgrestest.Server) {
	const limit = 500 * time.Millisecond
	store := openAt(t, server.Database(t))
	s, _ := newService(t, store, service.WithDrainDelay(0), service.WithRequestTimeout(limit))
	url, stop := start(t, s)
	status(t, url, health.Healthy)
	u := create(t, store, "Ann", "ann@example.org")
	if err := server.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, r := range []struct{ method, path, media, body string }{
		{"GET", "/users", "", ""},
		{"GET", "/users/" + u.ID, "", ""},
		{"POST", "/users", jsonType, `{"name":"Bob","email":"bob@example.org"}`},
		{"PUT", "/users/" + u.ID, jsonType, `{"name":"Anna","email":"ann@example.org"}`},
	} {
		for range 4 { // more than there are connections
			wg.Go(func() {
				started := time.Now()
				w := call(s.Handler(), r.method, r.path, r.media, r.body)
				if w.Code != 503 && w.Code != 504 {
					t.Errorf("%s %s: %s", r.method, r.path, answer(w))
				}
				if took := time.Since(started); took > 10*limit { // the machine may be busy
					t.Errorf("%s %s took %v", r.method, r.path, took)
				}
			})
		}
	}
	wg.Wait()
	status(t, url, health.Unhealthy)
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	status(t, url, health.Healthy)
	if w := call(s.Handler(), "GET", "/users/"+u.ID, "", ""); w.Code != 200 {
		t.Errorf("GET: %s", answer(w))
	}
	if err := stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
}

// A service that is started before its database waits for it, and says so.
func testServerNotThereYet(t *testing.T, server *postgrestest.Server) {
	address := server.Database(t)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	log, opened := new(logged), make(chan error, 1)
	go func() {
		s, err := users.OpenLogging(t.Context(), address, slog.New(slog.NewTextHandler(log, nil)))
		if err == nil {
			_, err = s.Create(t.Context(), "Ann", "ann@example.org")
			err = errors.Join(err, s.Close())
		}
		opened <- err
	}()
	eventually(t, "the log says so", func() bool { return strings.Contains(log.String(), `msg="waiting for the database"`) })
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	if password, _ := u.User.Password(); strings.Contains(log.String(), password) {
		t.Errorf("the password is in the log:\n%s", log)
	}
}

// A server that does not come is given up, with the reason; and so is waiting.
// Not parallel: it changes how long all stores wait.
func TestPostgresNeverThere(t *testing.T) {
	users.SetConnectWait(200 * time.Millisecond)
	defer users.SetConnectWait(time.Minute)
	const nobody = "postgres://shop:hunter2@/shop?host="
	_, err := users.Open(t.Context(), nobody+url.QueryEscape(t.TempDir()))
	if err == nil || !strings.Contains(err.Error(), "could not be reached in ") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("Open = %v", err)
	}
	users.SetConnectWait(time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := users.Open(ctx, nobody+url.QueryEscape(t.TempDir())); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Open = %v", err)
	}
}

// proxy stands between a store and its server, and can cut their connections
// between what is asked and the answer.
type proxy struct {
	cut atomic.Bool // at the next answer
	wg  sync.WaitGroup
}

// startProxy returns a proxy and the address to use it by.
func startProxy(t *testing.T, address string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	query, dir := u.Query(), t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, socket))
	if err != nil {
		t.Fatal(err)
	}
	p, server := new(proxy), filepath.Join(query.Get("host"), socket)
	p.serve(t, listener, func(client net.Conn) { p.join(t, client, server) })
	query.Set("host", dir)
	u.RawQuery = query.Encode()
	return p, u.String()
}

// socket is the file a server listens on, in its folder.
const socket = ".s.PGSQL.5432"

// serve calls join with each client until the test ends.
func (p *proxy) serve(t *testing.T, listener net.Listener, join func(client net.Conn)) {
	p.wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { join(client) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.wg.Wait()
	})
}

// join passes on what client and server say to each other until one has gone.
func (p *proxy) join(t *testing.T, client net.Conn, address string) {
	defer client.Close()
	server, err := net.Dial("unix", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer server.Close()
	p.wg.Go(func() {
		io.Copy(server, client)
		server.Close()
	})
	for buffer := make([]byte, 32<<10); ; {
		n, err := server.Read(buffer)
		if err != nil || p.cut.Load() {
			return
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// A connection cut between a commit and the answer: nobody knows what was done, and
// that is what the client is told. It is never told that nothing was.
func TestPostgresInDoubt(t *testing.T) {
	t.Parallel()
	address := postgrestest.URL(t)
	p, through := startProxy(t, address)
	direct, s := openAt(t, address), openAt(t, with(through, "pool_max_conns=1"))
	h, _ := newAPI(t, s)
	u := create(t, s, "Ann", "ann@example.org")
	const inDoubt = "The database was lost in the middle of the change, which may have been made. Look before you try again."
	for _, r := range []struct {
		method, path, body string
		done               func([]users.User) bool
	}{
		{"POST", "/users", `{"name":"Bob","email":"bob@example.org"}`, func(all []users.User) bool { return len(all) == 2 }},
		{"PUT", "/users/" + u.ID, `{"name":"Anna","email":"ann@example.org"}`, func(all []users.User) bool { return all[0].Name == "Anna" }},
		{"DELETE", "/users/" + u.ID, "", func(all []users.User) bool { return len(all) == 1 }},
	} {
		for range 2 { // a connection that works, and is not looked at before it is used again so soon
			if _, err := s.Get(t.Context(), u.ID); err != nil {
				t.Fatal(err)
			}
		}
		p.cut.Store(true)
		want := strings.Replace(refusal(503, "unavailable", inDoubt, r.path), `,"retryable":true`, "", 1)
		if got := answer(call(h, r.method, r.path, jsonType, r.body)); got != want {
			t.Errorf("%s:\n%s, want\n%s", r.method, got, want)
		}
		if all := list(t, direct); !r.done(all) {
			t.Errorf("%s was not done: %v", r.method, all)
		}
		p.cut.Store(false)
	}
	if _, err := s.Get(t.Context(), u.ID); !errors.Is(err, users.ErrNotFound) {
		t.Errorf("Get = %v", err)
	}
	p.cut.Store(true) // a read is not in doubt
	if _, err := s.List(t.Context(), "", 1); !errors.Is(err, users.ErrUnavailable) || errors.Is(err, users.ErrInDoubt) {
		t.Errorf("List = %v", err)
	}
	p.cut.Store(false)
}

// An administrator ends our sessions, in the middle of what they do: what becomes of
// that is in doubt, and the next ones work.
func TestPostgresSessionEnded(t *testing.T) {
	t.Parallel()
	address := postgrestest.URL(t)
	holder, s := openAt(t, address), openAt(t, with(address, "application_name=ended"))
	release := users.HoldWrite(t, holder)
	created := make(chan error, 1)
	go func() {
		_, err := s.Create(t.Context(), "Ann", "ann@example.org")
		created <- err
	}()
	eventually(t, "the create waits", func() bool { return users.One[int](t, holder, waiting) > 0 })
	users.Exec(t, holder, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ended'")
	if err := <-created; !errors.Is(err, users.ErrInDoubt) || errors.Is(err, users.ErrUnavailable) {
		t.Errorf("Create = %v", err)
	}
	release()
	create(t, s, "Ann", "ann@example.org")
	if all := list(t, s); len(all) != 1 {
		t.Errorf("users: %v", all)
	}
}
