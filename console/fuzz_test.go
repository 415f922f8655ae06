package console_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func fuzzed(f *testing.F) (*registry.Registry, *console.Console) {
	f.Helper()
	r := registry.Open(context.Background(), memregistry.New().Connect())
	f.Cleanup(r.Close)
	if err := r.WaitSynced(f.Context()); err != nil {
		f.Fatal(err)
	}
	var clients atomic.Int64 // each of whom may register
	c, err := console.New(console.Config{Registry: r, Listen: loopback, Authenticator: auth.Func(func(context.Context, auth.Credentials) (*auth.Identity, error) {
		return &auth.Identity{Subject: strconv.FormatInt(clients.Add(1), 10), Scopes: []string{console.ScopeAdmin}}, nil
	})})
	if err != nil {
		f.Fatal(err)
	}
	return r, c
}

// Whatever is sent is answered with JSON and no failure, and what is accepted is
// there, under the key that the answer has.
func FuzzRegister(f *testing.F) {
	for _, body := range []string{
		`{"name":"user-service","address":"http://localhost:3001","port":3001,"health":"http://localhost:3001/health","version":"1.0.0","tags":[],"metadata":{}}`,
		`{"name":"pay","address":"10.0.0.1","port":1,"id":"ä.*>","zone":"n","tags":["a"],"metadata":{"a":"b"}}`,
		`{"name":"pay","name":"x"}`, `[`, `{"name":{"name":1}}`, `{"name":"pay","address":"http://0x7f.1"}`, "null", "1e999", `{"status":1e999}`,
	} {
		f.Add(body)
	}
	r, c := fuzzed(f)
	f.Fuzz(func(t *testing.T, body string) {
		w := askWith(c, "POST", "/v1/services", body)
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%d %q", w.Code, w.Body)
		}
		switch w.Code {
		case 400, 413, 422:
			return
		case 200, 201:
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		var in asked
		if err := json.Unmarshal(w.Body.Bytes(), &in); err != nil {
			t.Fatalf("%q: %v", w.Body, err)
		}
		k, err := registry.ParseKey(in.Key().String())
		if err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
		if _, ok := r.Get(k); !ok {
			t.Fatalf("%s is not there", k)
		}
		if w := ask(c, "GET", "/v1/services/"+k.Service+"/"+k.ID); w.Code != 200 {
			t.Fatalf("%s: %d %s", k, w.Code, w.Body)
		}
		if w := ask(c, "DELETE", "/v1/services/"+k.Service+"/"+k.ID); w.Code != 204 {
			t.Fatalf("%s: %d %s", k, w.Code, w.Body)
		}
		if _, ok := r.Get(k); ok {
			t.Fatalf("%s is there still", k)
		}
	})
}

// Whatever is asked for is answered, or refused with the place that is wrong.
func FuzzQuery(f *testing.F) {
	paths := []string{"/v1/services", "/v1/services/users", "/v1/services/users/pick", "/v1/watch", "/v1/targets", "/v1/services/users/users-1"}
	for n, q := range []string{"tag=a&tag=b", "status=healthy", "strategy=random&zone=&tag=%zz", "service=users", "a;b", "key=%00&strategy=consistent-hash", "status=&status"} {
		f.Add(uint(n), q, "1-x")
	}
	r, c := fuzzed(f)
	reg, err := r.Register(f.Context(), registry.Instance{Name: "users", ID: "users-1", Address: "http://10.0.0.1:1", Tags: []string{"a"}})
	if err != nil {
		f.Fatal(err)
	}
	eventually(f, "it is there", func() bool { _, ok := r.Get(reg.Instance().Key()); return ok })
	f.Fuzz(func(t *testing.T, n uint, query, last string) {
		path := paths[n%uint(len(paths))]
		req := httptest.NewRequest("GET", "/", nil)
		req.URL = &url.URL{Path: path, RawQuery: query}
		req.Host = "localhost"
		req.Header.Set("Last-Event-ID", last)
		if path == "/v1/watch" {
			req.Method = "HEAD" // or it would not end
		}
		w := httptest.NewRecorder()
		c.ServeHTTP(w, req)
		switch {
		case w.Code == 400 && strings.Contains(w.Body.String(), `"pointer":"#query`):
		case w.Code == 503 && strings.HasSuffix(path, "/pick"):
		case w.Code != 200:
			t.Fatalf("%s?%s: %d %s", path, query, w.Code, w.Body)
		case req.Method == "GET" && !json.Valid(w.Body.Bytes()):
			t.Fatalf("%s?%s: %q", path, query, w.Body)
		}
	})
}
