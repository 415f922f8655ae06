package service_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
	"github.com/keelson-go/keelson/service"
	"github.com/keelson-go/keelson/telemetry"
)

const patience = 20 * time.Second // for what takes milliseconds on an idle machine

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logs keeps what a service logs.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// record returns the one record with a message.
func (l *logs) record(t *testing.T, msg string) map[string]any {
	t.Helper()
	var found map[string]any
	for line := range strings.Lines(l.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if r["msg"] == msg {
			if found != nil {
				t.Fatalf("%q was logged twice:\n%s", msg, l)
			}
			found = r
		}
	}
	if found == nil {
		t.Fatalf("%q was not logged:\n%s", msg, l)
	}
	return found
}

// newService returns a service with a quick drain whose log the test keeps.
func newService(t *testing.T, name string, opts ...service.Option) (*service.Service, *logs) {
	t.Helper()
	log := new(logs)
	tel, err := telemetry.New(telemetry.Config{Service: name, Output: log, LogFormat: "json"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := service.New(name, append([]service.Option{service.WithTelemetry(tel), service.WithDrainDelay(20 * time.Millisecond)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return s, log
}

// process is a service that runs.
type process struct {
	*service.Service
	url    string
	cancel context.CancelFunc
	ended  chan struct{}
	err    error
}

// start runs a service until the test ends, at the latest, and returns when it
// is ready.
func start(t *testing.T, s *service.Service) *process {
	t.Helper()
	p := run(t, s)
	<-s.Listening()
	p.url = "http://" + s.Addr().String()
	eventually(t, "the service is ready", func() bool { return status(t, p.url+"/readyz") == http.StatusOK })
	return p
}

// run runs a service until the test ends, at the latest.
func run(t *testing.T, s *service.Service) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{Service: s, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.err = s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-p.ended
	})
	return p
}

// stop stops the service and returns what Run did.
func (p *process) stop(t *testing.T) error {
	t.Helper()
	p.cancel()
	return p.wait(t)
}

func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		t.Fatal("Run has not returned")
		return nil
	}
}

// eventually polls until ok; what says what was waited for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// client keeps no connections, so that none outlives its test.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// status asks url; 0 is no answer.
func status(t testing.TB, url string) int {
	resp, _, err := send(t, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	return resp.StatusCode
}

func send(t testing.TB, method, url string, body io.Reader, header ...string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp, string(got), err
}

// must is send that has to succeed.
func must(t testing.TB, method, url string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	resp, got, err := send(t, method, url, body, header...)
	if err != nil {
		t.Fatal(err)
	}
	return resp, got
}

// fleet opens a registry on a hub of its own or the one given.
func fleet(t *testing.T, hub *memregistry.Hub) (*registry.Registry, *memregistry.Driver) {
	t.Helper()
	driver := hub.Connect()
	r := registry.Open(context.Background(), driver, registry.WithTTL(time.Second))
	t.Cleanup(r.Close)
	if err := r.WaitSynced(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r, driver
}

// only returns the one instance of a service, whatever its status.
func only(r *registry.Registry, name string) (registry.Instance, bool) {
	all := r.Discover(name, registry.WithStatus())
	if len(all) != 1 {
		return registry.Instance{}, false
	}
	return all[0], true
}
