package users_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/examples/shop/users"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/service"
)

// deadline is for what should take a moment.
const deadline = 20 * time.Second

// start runs the service until stop is called.
func start(t *testing.T, s *service.Service) (url string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = func() error {
		cancel()
		return <-ended
	}
	select {
	case <-s.Listening():
	case err := <-ended:
		cancel()
		t.Fatalf("Run = %v", err)
	}
	return "http://" + s.Addr().String(), stop
}

// status polls /health until it says want.
func status(t *testing.T, url string, want health.Status) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var report health.Report
	for {
		resp := request(t, http.MethodGet, url+"/health", "")
		err := json.NewDecoder(resp.Body).Decode(&report)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if wantCode := map[bool]int{true: 200, false: 503}[want.Serving()]; report.Status == want && resp.StatusCode == wantCode {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("/health never was %s: %+v", want, report)
		}
	}
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: deadline}

func request(t *testing.T, method, url, body string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// A database that takes no writes: the client is told to come back, the log why,
// /health that the instance is of no use; reads go on, and all is well again once
// the disk is.
func TestBrokenDisk(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, b backend) {
		for _, f := range b.faults {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				testBrokenDisk(t, b, f)
			})
		}
	})
}

const unavailable = "The database can't do that at the moment."

func testBrokenDisk(t *testing.T, b backend, f fault) {
	address := b.address(t)
	store := openAt(t, address)
	s, log := newService(t, store, service.WithDrainDelay(0))
	url, stop := start(t, s)
	status(t, url, health.Healthy)
	u := create(t, store, "Ann", "ann@example.org")

	f.cause(t, store, address)
	if err := fill(t, store); !errors.Is(err, users.ErrUnavailable) {
		t.Errorf("Create = %v", err)
	}
	status(t, url, health.Unhealthy)
	w := call(s.Handler(), "POST", "/users", jsonType, `{"name":"Bob","email":"bob@example.org"}`)
	if got, want := answer(w), refusal(503, "unavailable", unavailable, "/users"); got != want {
		t.Errorf("POST:\n%s, want\n%s", got, want)
	}
	if text := log.String(); !strings.Contains(text, `"msg":"request failed"`) || !strings.Contains(text, `create user: the database is not available: `) {
		t.Errorf("the log does not say why:\n%s", text)
	}
	if got := call(s.Handler(), "GET", "/users/"+u.ID, "", ""); got.Code != 200 {
		t.Errorf("GET: %s", answer(got))
	}

	f.mend(t, store, address)
	status(t, url, health.Healthy)
	if got := call(s.Handler(), "POST", "/users", jsonType, `{"name":"Bob","email":"bob@example.org"}`); got.Code != 201 {
		t.Errorf("POST after all: %s", answer(got))
	}
	if err := stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
}

// An error nobody foresaw: neutral for the client, whole in the log.
func TestFailingDatabase(t *testing.T) {
	t.Parallel()
	onEach(t, testFailingDatabase)
}

func testFailingDatabase(t *testing.T, b backend) {
	store := openAt(t, b.address(t))
	h, log := newAPI(t, store)
	u := create(t, store, "Ann", "ann@example.org")
	users.Exec(t, store, "DROP TABLE users")
	for _, r := range [][2]string{{"GET", "/users"}, {"GET", "/users/" + u.ID}, {"DELETE", "/users/" + u.ID}} {
		want := refusal(500, "internal", "The request failed because of an error inside the service.", r[1])
		if got := answer(call(h, r[0], r[1], "", "")); got != want {
			t.Errorf("%s %s:\n%s", r[0], r[1], got)
		}
	}
	if n := strings.Count(strings.ReplaceAll(log.String(), `\"`, `"`), b.noTable); n != 3 {
		t.Errorf("the log has it %d times:\n%s", n, log)
	}
}

// The service closes the database when it stops, after the last request.
func TestNewRuns(t *testing.T) {
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) { testNewRuns(t, b) })
	}
}

func testNewRuns(t *testing.T, b backend) {
	address := b.address(t)
	// The service's own environment, not that of the process.
	environment := service.WithEnvironment(func(name string) string { return map[string]string{"KEELSON_DATABASE_URL": address}[name] })
	for i := range 2 {
		s, err := users.New(t.Context(), service.WithVersion("1.2.3"), service.WithDrainDelay(0), environment)
		if err != nil {
			t.Fatal(err)
		}
		url, stop := start(t, s)
		status(t, url, health.Healthy)
		resp := request(t, http.MethodPost, url+"/users", fmt.Sprintf(`{"name":"N","email":"n%d@example.org"}`, i))
		resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Errorf("POST: %s", resp.Status)
		}
		if err := stop(); err != nil {
			t.Errorf("Run = %v", err)
		}
		b.closed(t, address)
	}
	if n := len(list(t, openAt(t, address))); n != 2 {
		t.Errorf("%d users", n)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Setenv("KEELSON_DATABASE_URL", "mysql://shop:hunter2@db/shop")
	if _, err := users.New(t.Context()); err == nil || !strings.Contains(err.Error(), "not supported") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("New = %v", err)
	}
	t.Setenv("KEELSON_DATABASE_URL", "sqlite::memory:")
	t.Setenv("PORT", "many")
	if _, err := users.New(t.Context(), service.FromEnvironment()); err == nil || !strings.Contains(err.Error(), "PORT") {
		t.Errorf("New = %v", err)
	}
}
