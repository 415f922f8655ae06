package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/internal/manifest"
)

// asShop in the environment makes the test binary the shop itself.
const asShop = "SHOP_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asShop) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// shop is a running process of the shop.
type shop struct {
	url    string
	cmd    *exec.Cmd
	output <-chan string // all of it, once it has ended
}

// run starts the user service and waits until it serves.
func run(t *testing.T, database string) *shop {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // ends a process that hangs
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], "user-service", "--standalone")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), asShop+"=1", "PORT=0", "KEELSON_LOG_FORMAT=json", "KEELSON_DRAIN_DELAY=0s", "KEELSON_DATABASE_URL=sqlite://"+database)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	address, output := make(chan string, 1), make(chan string, 1)
	go func() {
		defer r.Close()
		var all strings.Builder
		for lines := bufio.NewScanner(r); lines.Scan(); {
			var line struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
				address <- line.Address
			}
			all.WriteString(lines.Text() + "\n")
		}
		close(address)
		output <- all.String()
	}()
	at, ok := <-address
	if !ok {
		t.Fatalf("the shop did not start: %v\n%s", cmd.Wait(), <-output)
	}
	return &shop{url: at, cmd: cmd, output: output}
}

// end sends a signal and returns how the process ended.
func (s *shop) end(t *testing.T, signal os.Signal) error {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Error(err)
	}
	err := s.cmd.Wait()
	output := <-s.output
	if t.Failed() {
		t.Logf("output:\n%s", output)
	}
	return err
}

// emails returns the addresses of all users, page by page.
func (s *shop) emails(t *testing.T) []string {
	t.Helper()
	var all []string
	for path := "/users?limit=200"; path != ""; {
		resp, err := client.Get(s.url + path)
		if err != nil {
			t.Fatal(err)
		}
		var page []struct{ Email string }
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, resp.Status, err)
		}
		for _, u := range page {
			all = append(all, u.Email)
		}
		path, _, _ = strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
	}
	slices.Sort(all)
	return all
}

var client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// A process that is killed in the middle of writes loses nothing it has
// acknowledged, and starts again on what it left.
func TestKill(t *testing.T) {
	t.Parallel()
	database := filepath.Join(t.TempDir(), "users.db")
	var mu sync.Mutex
	var acknowledged, sent []string
	for round := range 3 {
		s := run(t, database)
		enough := make(chan struct{})
		var created int
		var wg sync.WaitGroup
		for writer := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					email := fmt.Sprintf("u%d-%d-%d@example.org", round, writer, i)
					mu.Lock()
					sent = append(sent, email)
					mu.Unlock()
					resp, err := client.Post(s.url+"/users", "application/json", strings.NewReader(`{"name":"U","email":"`+email+`"}`))
					if err != nil {
						return // killed
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if resp.StatusCode != http.StatusCreated {
						t.Errorf("POST: %s", resp.Status)
						return
					}
					mu.Lock()
					acknowledged = append(acknowledged, email)
					if created++; created == 40+20*round {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		stopped := make(chan struct{})
		go func() { wg.Wait(); close(stopped) }()
		select {
		case <-enough:
		case <-stopped:
		}
		if err := s.end(t, os.Kill); err == nil {
			t.Error("the process was not killed")
		}
		<-stopped
	}

	s := run(t, database)
	stored := s.emails(t)
	for _, email := range acknowledged {
		if _, ok := slices.BinarySearch(stored, email); !ok {
			t.Errorf("%s was acknowledged and is lost", email)
		}
	}
	for _, email := range stored {
		if !slices.Contains(sent, email) {
			t.Errorf("%s was never sent", email)
		}
	}
	if len(acknowledged) < 40+60+80 {
		t.Errorf("only %d users were acknowledged", len(acknowledged))
	}
	if err := s.end(t, syscall.SIGTERM); err != nil {
		t.Errorf("the process ended with %v", err)
	}
}

// The project's manifest is valid and starts this shop.
func TestManifest(t *testing.T) {
	t.Parallel()
	m, err := manifest.Load("../../" + manifest.Name)
	if err != nil {
		t.Fatal(err)
	}
	if w := m.Warnings(); len(w) > 0 {
		t.Errorf("warnings: %v", w)
	}
	s, r := m.Services["user-service"], m.Gateway.Routes
	if !cmp.Equal(s.Args, []string{"user-service"}) || s.Port != 3001 || m.Gateway.RateLimit.Limit != 1000 || m.Gateway.RateLimit.Window != time.Minute {
		t.Errorf("service %+v, limit %+v", s, m.Gateway.RateLimit)
	}
	if folder, err := filepath.Abs("."); err != nil || m.Resolve(s.Package) != folder {
		t.Errorf("the package is %s, not %s (%v)", m.Resolve(s.Package), folder, err)
	}
	// In one process it is the same.
	own := config.Gateway
	if own.RateLimit.Requests != m.Gateway.RateLimit.Limit || own.RateLimit.Window != m.Gateway.RateLimit.Window || len(own.Routes) != len(r) {
		t.Errorf("in one process: limit %+v, routes %+v", own.RateLimit, own.Routes)
	}
	for i, route := range own.Routes {
		if route.Path != r[i].Path || route.Service != r[i].Service || route.StripPrefix != r[i].StripPrefix {
			t.Errorf("in one process: route %+v, want %+v", route, r[i])
		}
	}
	if len(r) != 1 || r[0].Path != "/api/users/*" || r[0].Service != "user-service" || r[0].StripPrefix != "/api" {
		t.Errorf("routes %+v", r)
	}
	if u, err := url.Parse("http://" + m.Gateway.Listen); err != nil || u.Port() != "3000" {
		t.Errorf("the gateway listens on %s", m.Gateway.Listen)
	}
}
