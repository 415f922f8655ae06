package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// asked is an instance as the API shows it.
type asked struct {
	registry.Instance
	TTL int `json:"ttl"`
}

// join registers, and wants the status.
func join(t *testing.T, c http.Handler, status int, body string, header ...string) asked {
	t.Helper()
	w := askWith(c, "POST", "/v1/services", body, header...)
	var in asked
	if w.Code != status || json.Unmarshal(w.Body.Bytes(), &in) != nil {
		t.Fatalf("%s: %d %s, want %d", body, w.Code, w.Body, status)
	}
	return in
}

// A service in another language, which knows nothing of Keelson but one call:
// over the network, with a server of its own kind.
func TestForeignService(t *testing.T) {
	t.Parallel()
	hub := memregistry.New()
	fleet := registry.Open(context.Background(), hub.Connect())
	t.Cleanup(fleet.Close)
	checker := registry.NewChecker(fleet)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- checker.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })

	var checks atomic.Int32
	pay := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Powered-By", "Express")
		if r.URL.Path == "/health" {
			checks.Add(1)
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			fmt.Fprint(w, `{"status":"UP","pid":4711}`)
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(pay.Close)
	u, err := url.Parse(pay.URL)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(newConsole(t, console.Config{Registry: fleet, LastHeartbeat: checker.LastHeartbeat}))
	t.Cleanup(srv.Close)
	call := func(method, path, body string) (int, []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b
	}

	body := fmt.Sprintf(`{"name":"user-service","address":"http://127.0.0.1:%[1]s","port":%[1]s,"health":"http://127.0.0.1:%[1]s/health","version":"1.0.0","tags":[],"metadata":{}}`, u.Port())
	eventually(t, "the registry is there", fleet.Synced)
	status, answer := call("POST", "/v1/services", body)
	var in asked
	if err := json.Unmarshal(answer, &in); err != nil || status != http.StatusCreated || in.TTL != 15 || in.ID == "" || in.Status != "starting" {
		t.Fatalf("%d %s", status, answer)
	}
	// It never sends a heartbeat: passing its checks is enough.
	eventually(t, "it is picked", func() bool {
		status, answer := call("GET", "/v1/services/user-service/pick", "")
		return status == http.StatusOK && strings.Contains(string(answer), `"status":"healthy"`) && strings.Contains(string(answer), `"lastHeartbeat"`)
	})
	before, _ := fleet.Get(in.Key())
	if status, _ := call("POST", "/v1/services", body); status != http.StatusOK {
		t.Errorf("registered again: %d", status)
	}
	if after, _ := fleet.Get(in.Key()); cmp.Diff(before, after) != "" {
		t.Errorf("registering again was a blip: %s", cmp.Diff(before, after))
	}
	if status, _ := call("PUT", "/v1/services/user-service/"+in.ID+"/heartbeat", ""); status != http.StatusNoContent {
		t.Errorf("heartbeat: %d", status)
	}
	for range 2 {
		if status, answer := call("DELETE", "/v1/services/user-service/"+in.ID, ""); status != http.StatusNoContent || len(answer) != 0 {
			t.Errorf("deregister: %d %s", status, answer)
		}
	}
	for path, want := range map[string]int{"/heartbeat": 404, "": 404} {
		method := map[string]string{"/heartbeat": "PUT", "": "GET"}[path]
		if status, _ := call(method, "/v1/services/user-service/"+in.ID+path, ""); status != want {
			t.Errorf("%s %s after it went: %d", method, path, status)
		}
	}
	if checks.Load() == 0 {
		t.Error("nobody checked it")
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	w := askWith(c, "POST", "/v1/services", `{"name":"pay","address":"http://10.0.0.1:3001","zone":"north","tags":["b","a"],"metadata":{"team":"money"}}`)
	if w.Code != http.StatusCreated || w.Header().Get("Location") != "/v1/services/pay/pay-10-0-0-1-3001" || w.Header().Get("RateLimit") == "" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	var first map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &first); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{
		"id": "pay-10-0-0-1-3001", "name": "pay", "address": "http://10.0.0.1:3001", "port": 3001.0, "tags": []any{"b", "a"}, "zone": "north",
		"metadata": map[string]any{"team": "money"}, "status": "healthy", "lease": "heartbeats", "registeredAt": first["registeredAt"], "ttl": 15.0,
	}, first); diff != "" {
		t.Error(diff)
	}
	// What it got can be sent back as it is, and what was read, too.
	got := ask(c, "GET", "/v1/services/pay/pay-10-0-0-1-3001").Body.String()
	for _, body := range []string{w.Body.String(), got} {
		if again := join(t, c, 200, body); !again.RegisteredAt.Equal(parseTime(t, first["registeredAt"])) {
			t.Errorf("%s: %+v", body, again)
		}
	}
	// And whatever else stands in the fields that the registry sets.
	if in := join(t, c, 200, strings.Replace(got, `"status":"healthy"`, `"status":{"x":[1]},"ttl":"?","announced":null,"lastHeartbeat":false`, 1)); in.Status != "healthy" {
		t.Errorf("%+v", in)
	}
	// Everything that can be left out.
	if in := join(t, c, 201, `{"name":"pay","address":"10.0.0.2","port":9,"health":null,"tags":null,"metadata":null,"id":null,"version":null,"zone":null}`); in.Lease != registry.LeaseHeartbeats {
		t.Errorf("%+v", in)
	}
	if in := join(t, c, 201, `{"name":"pay","address":"10.0.0.3:9","health":"/health","id":"Pay/3 ä"}`); in.ID != "pay-3--" || in.Status != "starting" {
		t.Errorf("%+v", in)
	}
	// A service may call itself by the id it gave.
	if w := ask(c, "PUT", "/v1/services/pay/Pay%2F3%20%C3%A4/heartbeat"); w.Code != http.StatusNoContent {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(c, "POST", "/v1/services/pay/pay-3--/drain"); w.Code != 200 || !strings.Contains(w.Body.String(), `"status":"draining"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(c, "DELETE", "/v1/services/pay/pay-3--/drain"); w.Code != 200 || !strings.Contains(w.Body.String(), `"status":"starting"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func parseTime(t *testing.T, v any) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, v.(string))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestRegisterRefuses(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	deep := `{"name":"pay","address":"http://h:1","status":` + strings.Repeat("[", 30_000) + strings.Repeat("]", 30_000) + `}`
	for _, tc := range []struct {
		body    string
		status  int
		code    string
		pointer string // of the first error
	}{
		{``, 400, problem.CodeMalformed, ""},
		{`{`, 400, problem.CodeMalformed, ""},
		{`{"name":"pay","address":"http://h:1"} {}`, 400, problem.CodeMalformed, ""},
		{`{"name":"pay","address":"http://h:1"}x`, 400, problem.CodeMalformed, ""},
		{"\xef\xbb\xbf{}", 400, problem.CodeMalformed, ""},
		{deep, 400, problem.CodeMalformed, ""},
		{`null`, 422, problem.CodeInvalid, ""},
		{`[]`, 422, problem.CodeInvalid, ""},
		{`{}`, 422, problem.CodeInvalid, "/address"},
		{`{"name":"pay"}`, 422, problem.CodeInvalid, "/address"},
		{`{"name":"pay","address":null}`, 422, problem.CodeInvalid, "/address"},
		{`{"name":7,"address":"http://h:1"}`, 422, problem.CodeInvalid, "/name"},
		{`{"name":"Pay","address":"http://h:1"}`, 422, problem.CodeInvalid, "/name"},
		{`{"name":"pay","address":"http://h:1","Address":"http://i:1"}`, 422, problem.CodeInvalid, "/Address"},
		{`{"name":"pay","address":"http://h:1","address":"http://i:1"}`, 422, problem.CodeInvalid, "/address"},
		{`{"name":"pay","address":"http://h:1","colour":"red"}`, 422, problem.CodeInvalid, "/colour"},
		{`{"name":"pay","address":"http://h:1","$schema":"x"}`, 422, problem.CodeInvalid, "/$schema"},
		{`{"name":"pay","address":"http://h:1","port":2}`, 422, problem.CodeInvalid, "/port"},
		{`{"name":"pay","address":"http://h:1","port":"1"}`, 422, problem.CodeInvalid, "/port"},
		{`{"name":"pay","address":"h","port":1.5}`, 422, problem.CodeInvalid, "/port"},
		{`{"name":"pay","address":"h","port":65536}`, 422, problem.CodeInvalid, "/port"},
		{`{"name":"pay","address":"h","port":-1}`, 422, problem.CodeInvalid, "/port"},
		{`{"name":"pay","address":"h","port":99999999999999999999}`, 422, problem.CodeInvalid, "/port"},
		{`{"name":"pay","address":"h"}`, 422, problem.CodeInvalid, "/port"},
		{`{"name":"pay","address":"http://h:1","health":"http://other:1/health"}`, 422, problem.CodeInvalid, "/health"},
		{`{"name":"pay","address":"http://h:1","tags":"a"}`, 422, problem.CodeInvalid, "/tags"},
		{`{"name":"pay","address":"http://h:1","tags":[1]}`, 422, problem.CodeInvalid, "/tags/0"},
		{`{"name":"pay","address":"http://h:1","tags":[""]}`, 422, problem.CodeInvalid, "/tags"},
		{`{"name":"pay","address":"http://h:1","metadata":{"a/b":1}}`, 422, problem.CodeInvalid, "/metadata/a~1b"},
		{`{"name":"pay","address":"http://h:1","metadata":{"a":"1","a":"2"}}`, 422, problem.CodeInvalid, "/metadata/a"},
		{`{"name":"pay","address":"http://h:1","metadata":[]}`, 422, problem.CodeInvalid, "/metadata"},
		{`{"name":"pay","address":"http://h:1","id":"pick"}`, 422, problem.CodeInvalid, "/id"},
		{`{"name":"pay","address":"http://h:1","id":"` + strings.Repeat("x", 129) + `"}`, 422, problem.CodeInvalid, "/id"},
		{`{"name":"` + strings.Repeat("x", 70_000) + `"}`, 413, problem.CodeTooLarge, ""},
	} {
		w := askWith(c, "POST", "/v1/services", tc.body)
		p := decode(t, w)
		if w.Code != tc.status || p.Code != tc.code || len(p.Errors) > 0 != (tc.status == 422) {
			t.Errorf("%.80s: %d %s", tc.body, w.Code, w.Body)
			continue
		}
		if tc.pointer != "" && (p.Errors[0].Pointer != tc.pointer || p.Errors[0].Detail == "") {
			t.Errorf("%.80s: %v, want %s", tc.body, p.Errors, tc.pointer)
		}
		if strings.Contains(w.Body.String(), "99999999") || strings.Contains(w.Body.String(), "other:1") {
			t.Errorf("%.80s: the answer repeats what was sent: %s", tc.body, w.Body)
		}
	}
	const good = `{"name":"pay","address":"http://h:1"}`
	for media, want := range map[string]int{"text/plain": 415, "": 415, "application/x-www-form-urlencoded": 415, "multipart/form-data; boundary=x": 415,
		"application/problem+json": 415, "application/json; charset=utf-8": 201, "Application/JSON": 200} {
		if media == "Application/JSON" {
			continue // after the first
		}
		if w := askWith(c, "POST", "/v1/services", good, "Content-Type", media); w.Code != want {
			t.Errorf("%q: %d %s", media, w.Code, w.Body)
		}
	}
	if w := askWith(c, "POST", "/v1/services", good, "Content-Type", "Application/JSON"); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if n := len(r.List()); n != 1 {
		t.Errorf("%d instances, want only the good one", n)
	}
	// A body of unknown length is cut off, too.
	req := httptest.NewRequest("POST", "/v1/services", io.MultiReader(strings.NewReader(`{"name":"`), bytes.NewReader(make([]byte, 1<<20))))
	req.Host, req.ContentLength = "localhost", -1
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	if c.ServeHTTP(w, req); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// An instance that has joined by itself is not stolen, but an operator may
// remove it.
func TestOwnLease(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	g := register(t, r, registry.Instance{Name: "users", ID: "users-1"})
	const body = `{"name":"users","id":"users-1","address":"http://10.0.0.66:1"}`
	for _, w := range []*httptest.ResponseRecorder{
		askWith(c, "POST", "/v1/services", body), ask(c, "PUT", "/v1/services/users/users-1/heartbeat"),
	} {
		if p := decode(t, w); w.Code != http.StatusConflict || p.Code != problem.CodeConflict {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if w := ask(c, "DELETE", "/v1/services/users/users-1"); w.Code != http.StatusNoContent {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	eventually(t, "it comes back", func() bool { in, ok := r.Get(g.Instance().Key()); return ok && in.Address == "http://10.0.0.1:8080" })
}

// A store that is away is said to be, and an instance it has lost is told to
// register again.
func TestStoreIsAway(t *testing.T) {
	t.Parallel()
	d := memregistry.New().Connect()
	r := registry.Open(context.Background(), d)
	t.Cleanup(r.Close)
	eventually(t, "the registry is there", r.Synced)
	c := newConsole(t, console.Config{Registry: r})
	in := join(t, c, 201, `{"name":"pay","address":"http://10.0.0.1:1"}`)
	d.Disconnect()
	eventually(t, "it is known", func() bool { return r.Err() != nil })
	for _, w := range []*httptest.ResponseRecorder{
		askWith(c, "POST", "/v1/services", `{"name":"pay","address":"http://10.0.0.2:1"}`),
		ask(c, "PUT", "/v1/services/pay/"+in.ID+"/heartbeat"), ask(c, "PUT", "/v1/services/pay/unknown/heartbeat"),
		ask(c, "DELETE", "/v1/services/pay/"+in.ID), ask(c, "POST", "/v1/services/pay/"+in.ID+"/drain"),
	} {
		if p := decode(t, w); w.Code != http.StatusServiceUnavailable || p.Code != problem.CodeUnavailable || !p.Retryable || w.Header().Get("Retry-After") == "" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	}
	if w := ask(c, "GET", "/v1/services/pay/"+in.ID); w.Code != http.StatusOK {
		t.Errorf("what is known can be asked for still: %d", w.Code)
	}
}
