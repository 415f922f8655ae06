package platform_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/platform"
	"github.com/keelson-go/keelson/service"
)

// wire is a listener that remembers what came over its connections.
type wire struct {
	net.Listener
	mu   sync.Mutex
	seen bytes.Buffer
}

func (w *wire) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wired{c, w}, nil
}

// carried reports whether a request for path came over a connection.
func (w *wire) carried(path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Contains(w.seen.String(), " "+path+" HTTP/1.1")
}

type wired struct {
	net.Conn
	wire *wire
}

func (c *wired) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.wire.seen.Write(p[:n])
	return n, err
}

// tapped returns an option that has a service listen where the test can look.
func tapped(t *testing.T) (*wire, service.Option) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l}
	t.Cleanup(func() { l.Close() })
	return w, service.WithListener(w)
}

// asking has a service call another one and pass the answer on.
func asking(path, of string) func(s *service.Service, opts []service.Option) {
	return func(s *service.Service, _ []service.Option) {
		s.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) error {
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, of, nil)
			if err != nil {
				return err
			}
			resp, err := s.Client().Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			fmt.Fprintf(w, "%s by ", s.Instance())
			_, err = io.Copy(w, resp.Body)
			return err
		})
	}
}

// In one process a request goes from the gateway to a service and on to another
// without a connection between them; unless that is switched off. What changes
// protocols takes a connection either way.
func TestCallsWithoutSockets(t *testing.T) {
	t.Parallel()
	for name, sockets := range map[string]bool{"in process": false, "over sockets": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := routes("orders", "users")
			cfg.Routes = append(cfg.Routes,
				gateway.Route{Path: "/api/ask", Service: "orders", StripPrefix: "/api", Public: true},
				gateway.Route{Path: "/api/talk", Service: "orders", StripPrefix: "/api", Public: true})
			p := listen(t, platform.Config{Gateway: cfg, NoInProcess: sockets})
			ordersWire, ordersAt := tapped(t)
			usersWire, usersAt := tapped(t)
			p.AddService("users", named("users"), usersAt)
			p.AddService("orders", named("orders", asking("/ask", "http://users/users"), func(s *service.Service, _ []service.Option) {
				s.Handle("GET /talk", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					c, err := websocket.Accept(w, r, nil)
					if err != nil {
						t.Errorf("accept: %v", err)
						return
					}
					defer c.CloseNow()
					kind, word, err := c.Read(r.Context())
					if err == nil {
						err = c.Write(r.Context(), kind, append(word, ", too"...))
					}
					if err != nil {
						t.Errorf("talk: %v", err)
					}
				}))
			}), ordersAt)
			stop := up(t, p)
			if err := p.WaitServices(t.Context()); err != nil {
				t.Fatal(err)
			}
			code, body := get(t, p.GatewayURL()+"/api/ask")
			if code != http.StatusOK || body != "orders-1 by users-1" {
				t.Errorf("%d %s", code, body)
			}
			if ordersWire.carried("/ask") != sockets || usersWire.carried("/users") != sockets {
				t.Errorf("over a connection: to orders %v, to users %v; want %v", ordersWire.carried("/ask"), usersWire.carried("/users"), sockets)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			c, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(p.GatewayURL(), "http")+"/api/talk", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, word, err := c.Read(ctx); err != nil || string(word) != "hello, too" {
				t.Errorf("%q, %v", word, err)
			}
			c.CloseNow()
			if !ordersWire.carried("/talk") {
				t.Error("the WebSocket did not take a connection")
			}
			if err := stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
		})
	}
}

// Two services may have an instance of the same id; each gets its own calls.
func TestSameInstanceOfTwoServices(t *testing.T) {
	t.Parallel()
	p := listen(t, platform.Config{Gateway: routes("orders", "users")})
	for _, name := range []string{"users", "orders"} {
		p.AddService(name, named(name, func(s *service.Service, _ []service.Option) {
			s.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) error {
				_, err := io.WriteString(w, "not of "+s.Name())
				return err
			})
		}), service.WithInstance("one"))
	}
	stop := up(t, p)
	for _, name := range []string{"users", "orders"} {
		if code, body := get(t, p.GatewayURL()+"/api/"+name); code != http.StatusOK || body != "one" {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// A service that is called while the process stops finishes its answer: the gateway
// goes first, and waits for it.
func TestDrainWithoutSockets(t *testing.T) {
	t.Parallel()
	p := listen(t, platform.Config{Gateway: routes("users")})
	entered, release := make(chan struct{}), make(chan struct{})
	p.AddService("users", func(_ context.Context, opts ...service.Option) (*service.Service, error) {
		s, err := service.New("users", append(opts, service.WithLogOutput(io.Discard), service.WithDrainDelay(0))...)
		if err != nil {
			return nil, err
		}
		s.HandleFunc("GET /users", func(w http.ResponseWriter, _ *http.Request) error {
			close(entered)
			<-release
			_, err := io.WriteString(w, "done")
			return err
		})
		return s, nil
	})
	stop := up(t, p)
	got := make(chan string, 1)
	go func() {
		code, body := get(t, p.GatewayURL()+"/api/users")
		got <- fmt.Sprint(code, " ", body)
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	eventually(t, "the gateway refuses", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.GatewayURL(), "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(release)
	if answer := <-got; answer != "200 done" {
		t.Errorf("answer: %s", answer)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}
