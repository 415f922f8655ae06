package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
)

// subjects takes any token for its own subject's.
func subjects(_ context.Context, c auth.Credentials) (*auth.Identity, error) {
	return &auth.Identity{Subject: strings.TrimPrefix(c.Header("Authorization"), "Bearer "), Scopes: []string{console.ScopeAdmin}}, nil
}

var everywhere = &net.TCPAddr{IP: net.IPv4zero, Port: 3100}

func TestHostileRegistrations(t *testing.T) {
	t.Parallel()
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r})
	field := func(name, value string) map[string]any {
		return map[string]any{"name": "pay", "address": "http://10.0.0.1:3001", name: value}
	}
	big := map[string]string{}
	for n := range 60 {
		big[fmt.Sprint(n)] = strings.Repeat("x", 1020)
	}
	many := map[string]string{}
	for n := range 65 {
		many[fmt.Sprint(n)] = ""
	}
	var tags []string
	for n := range 33 {
		tags = append(tags, fmt.Sprint(n))
	}
	with := func(name string, value any) map[string]any {
		return map[string]any{"name": "pay", "address": "http://10.0.0.1:3001", name: value}
	}
	for pointer, bodies := range map[string][]map[string]any{
		"/name": {
			field("name", ""), field("name", "-pay"), field("name", "Pay"), field("name", "pay.users"), field("name", "pay users"), field("name", "../pay"),
			field("name", "pay\x00"), field("name", "pay\n"), field("name", "päy"), field("name", "рay"), field("name", "pay\u202e"), field("name", "*"), field("name", ">"),
			field("name", strings.Repeat("x", 64)),
		},
		"/id": {field("id", strings.Repeat("-", 129)), field("id", "PICK")},
		"/address": {
			field("address", ""), field("address", "http://"), field("address", "ftp://10.0.0.1"), field("address", "file:///etc/passwd"), field("address", "javascript:alert(1)"),
			field("address", "gopher://10.0.0.1:70"), field("address", "http://user:secret@10.0.0.1"), field("address", "http://user@10.0.0.1"), field("address", "http://10.0.0.1/admin"),
			field("address", "http://10.0.0.1?x=1"), field("address", "http://10.0.0.1#x"), field("address", "http://10.0.0.1:99999"), field("address", "http://10.0.0.1:0"),
			field("address", "http://a b:1"), field("address", "http://pay\r\nX: y:1"), field("address", "http://päy:1"), field("address", "http://%31%30.0.0.1"), field("address", "http://pay\x00:1"),
			field("address", "http://"+strings.Repeat("x", 600)+":1"), field("address", "http://*:1"), field("address", "http://10.0.0.1,10.0.0.2:1"),
			// Nobody's, or this machine's own services.
			field("address", "http://169.254.169.254"), field("address", "http://[fe80::1]:80"), field("address", "http://0.0.0.0:80"), field("address", "http://[::]:80"),
			field("address", "http://224.0.0.1:80"), field("address", "http://[::ffff:169.254.169.254]:80"), field("address", "http://2852039166/"), field("address", "http://0x7f.1:80"),
			field("address", "http://0251.0376.0251.0376:80"), field("address", "http://0xa9fea9fe:80"),
		},
		"/health": {
			field("health", "http://10.0.0.2:3001/health"), field("health", "http://169.254.169.254/latest/meta-data"), field("health", "//evil.example/health"),
			field("health", "http://user:secret@10.0.0.1/health"), field("health", "ftp://10.0.0.1/health"), field("health", "http://10.0.0.1:0/"), field("health", "http://10.0.0.1.evil.example/"),
			field("health", "http://10.0.0.1\\@evil.example/"), field("health", "/"+strings.Repeat("x", 600)), field("health", "http://[::ffff:10.0.0.1]/health"),
			field("health", "/health\r\nX-Evil: 1"), field("health", "http:/evil"),
		},
		"/version":  {field("version", strings.Repeat("x", 65)), field("version", "1\x00"), field("version", "\x1b[31m")},
		"/zone":     {field("zone", "a\nb")},
		"/tags":     {with("tags", tags), with("tags", []string{"a\tb"}), with("tags", []string{strings.Repeat("x", 65)})},
		"/metadata": {with("metadata", big), with("metadata", many), with("metadata", map[string]string{"a": strings.Repeat("x", 1025)}), with("metadata", map[string]string{"a\n": ""}), with("metadata", map[string]string{"": "\x7f"})},
	} {
		for _, body := range bodies {
			text, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			w := askWith(c, "POST", "/v1/services", string(text))
			p := decode(t, w)
			if w.Code != http.StatusUnprocessableEntity || len(p.Errors) != 1 || p.Errors[0].Pointer != pointer || !strings.Contains(p.Errors[0].Detail, ": ") {
				t.Errorf("%.100s: %d %s", text, w.Code, w.Body)
			}
			if strings.Contains(w.Body.String(), "secret") || strings.Contains(w.Body.String(), "evil") {
				t.Errorf("%.100s: the answer repeats what was sent", text)
			}
		}
	}
	// Ids have no bad characters: all of them are replaced.
	for _, id := range []string{"../../etc", "a.b", "*", ">", "a b", "\x00\x1b[2J", "ÄÖÜ", "\u202eevil", "K", "{id}", "%2e%2e", "<script>", strings.Repeat("ä", 100)} {
		text, err := json.Marshal(field("id", id))
		if err != nil {
			t.Fatal(err)
		}
		in := join(t, c, 201, string(text))
		if in.ID != registry.SanitizeID(in.ID) || utf8.RuneCountInString(in.ID) != utf8.RuneCountInString(id) {
			t.Errorf("%q became %q", id, in.ID)
		}
		if w := ask(c, "DELETE", "/v1/services/pay/"+in.ID); w.Code != http.StatusNoContent {
			t.Errorf("%q: %d", id, w.Code)
		}
	}
	// Keys that could mean many are nobody's.
	join(t, c, 201, `{"name":"pay","id":"stays","address":"http://10.0.0.1:1"}`)
	for _, path := range []string{"*/*", "%3E/%3E", "pay/*", "pay/%3E", "pay/stays.", "pay/%00", "pa*/stays", "pay./stays"} {
		if w := ask(c, "DELETE", "/v1/services/"+path); w.Code != http.StatusNoContent {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := ask(c, "GET", "/v1/services/pay/stays"); w.Code != http.StatusOK {
		t.Errorf("it was removed: %d", w.Code)
	}
}

// What only this machine can reach, only this machine may register.
func TestLoopbackFromElsewhere(t *testing.T) {
	t.Parallel()
	c := newConsole(t, console.Config{Registry: fleet(t), Listen: everywhere, Authenticator: auth.Func(subjects)})
	for n, address := range []string{
		"http://127.0.0.1:1", "http://127.8.9.10:1", "http://[::1]:1", "http://[::ffff:127.0.0.1]:1", "http://localhost:1", "http://LOCALHOST:1", "http://localhost.:1", "http://pay.localhost:1", "localhost:1",
	} {
		body := fmt.Sprintf(`{"name":"pay","id":"pay-%d","address":%q}`, n, address)
		for _, remote := range []string{"192.0.2.1:1234", "[2001:db8::1]:1234", "@", ""} {
			w := askWith(c, "POST", "/v1/services", body, "RemoteAddr", remote)
			if p := decode(t, w); w.Code != 422 || p.Errors[0].Pointer != "/address" || !strings.Contains(p.Errors[0].Detail, "only this machine could reach") {
				t.Errorf("%s from %q: %d %s", address, remote, w.Code, w.Body)
			}
		}
		for _, remote := range []string{"127.0.0.1:1234", "[::1]:1234", "[::ffff:127.0.0.1]:1234"} {
			if w := askWith(c, "POST", "/v1/services", body, "RemoteAddr", remote); w.Code != 201 && w.Code != 200 {
				t.Errorf("%s from %q: %d %s", address, remote, w.Code, w.Body)
			}
		}
	}
	if w := askWith(c, "POST", "/v1/services", `{"name":"pay","address":"http://localhost.example:1"}`, "RemoteAddr", "192.0.2.1:1"); w.Code != 201 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Where other machines share the registry, a loopback address would lead each of
// them to itself, whoever gives it.
func TestLoopbackOfASharedRegistry(t *testing.T) {
	t.Parallel()
	c := newConsole(t, console.Config{Registry: fleet(t), Shared: true})
	for _, address := range []string{"http://127.0.0.1:1", "http://[::1]:1", "localhost:1"} {
		w := askWith(c, "POST", "/v1/services", fmt.Sprintf(`{"name":"pay","address":%q}`, address))
		if p := decode(t, w); w.Code != 422 || p.Errors[0].Pointer != "/address" || !strings.Contains(p.Errors[0].Detail, "other machines") {
			t.Errorf("%s: %d %s", address, w.Code, w.Body)
		}
	}
	join(t, c, 201, `{"name":"pay","address":"http://10.0.0.1:1"}`)
}

// The log has what was done by hand, not what was only asked for.
func TestWhatIsNoted(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := fleet(t)
	p := &processes{more: make(chan struct{}), restart: func(context.Context) error { return console.ErrRestarting }}
	c := newConsole(t, console.Config{Registry: r, Processes: p, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	noted := func() int { return strings.Count(log.String(), "changed by hand") }
	for _, call := range [][2]string{
		{"DELETE", "/v1/services/pay/pay-1"}, {"DELETE", "/v1/services/" + strings.Repeat("Z", 3000) + "/x"}, {"POST", "/v1/services/pay/pay-1/drain"},
		{"POST", "/v1/processes/" + strings.Repeat("Z", 3000) + "/restart"}, {"POST", "/v1/processes/pay/restart"},
	} {
		ask(c, call[0], call[1])
		if noted() != 0 {
			t.Errorf("%s %.40s: nothing was done, and the log says %.300s", call[0], call[1], log.String())
			log.Reset()
		}
	}
	p.restart = func(context.Context) error { return nil }
	join(t, c, 201, `{"name":"pay","id":"pay-1","address":"http://10.0.0.1:1"}`)
	for n, call := range [][2]string{
		{"POST", "/v1/services/pay/pay-1/drain"}, {"DELETE", "/v1/services/pay/pay-1/drain"}, {"DELETE", "/v1/services/pay/pay-1"}, {"POST", "/v1/processes/pay/restart"},
	} {
		ask(c, call[0], call[1])
		if noted() != n+1 {
			t.Errorf("%s %s: %d changes are noted, want %d", call[0], call[1], noted(), n+1)
		}
	}
}

// One client can't flood the registry, and all together can't but to a bound.
func TestFlood(t *testing.T) {
	r := fleet(t)
	c := newConsole(t, console.Config{Registry: r, Listen: everywhere, Authenticator: auth.Func(subjects)})
	body := func(n int) string {
		return fmt.Sprintf(`{"name":"pay-%d","id":"i-%d","address":"http://10.0.0.1:3001","version":"1.0.0","tags":["a","b"],"metadata":{"team":"money"}}`, n%50, n)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var limited *problem.Problem
	for n := range 1100 {
		w := askWith(c, "POST", "/v1/services", body(n), "Authorization", "Bearer mallory")
		switch {
		case w.Code == http.StatusTooManyRequests:
			limited = decode(t, w)
			seconds, err := strconv.Atoi(w.Header().Get("Retry-After"))
			if err != nil || seconds < 1 || limited.Code != problem.CodeRateLimited || !limited.Retryable ||
				w.Header().Get("RateLimit-Policy") != `"registrations";q=1000;w=60` || w.Header().Get("RateLimit") == "" {
				t.Fatalf("%v %s", w.Header(), w.Body)
			}
		case w.Code != http.StatusCreated:
			t.Fatalf("%d: %d %s", n, w.Code, w.Body)
		case n < 900 && limited != nil:
			t.Fatalf("limited after fewer than %d", n)
		}
	}
	if limited == nil {
		t.Error("1,100 registrations were taken from one client")
	}
	if w := ask(c, "GET", "/v1/services/pay-1", "Authorization", "Bearer mallory"); w.Code != 200 {
		t.Errorf("what does not register is not limited: %d", w.Code)
	}
	// Nearly all the places are taken; many want the rest, at once.
	for n := range 8800 {
		if _, _, err := r.Announce(t.Context(), registry.Instance{
			Name: fmt.Sprint("pay-", n%50), ID: fmt.Sprint("i-", 2000+n), Address: "http://10.0.0.1:3001", Version: "1.0.0",
			Tags: []string{"a", "b"}, Metadata: map[string]string{"team": "money"}, Lease: registry.LeaseHeartbeats,
		}); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for client := range 8 {
		wg.Go(func() {
			for n := range 50 {
				w := askWith(c, "POST", "/v1/services", body(20_000+client*50+n), "Authorization", fmt.Sprint("Bearer mallory-", client))
				if w.Code != http.StatusCreated && w.Code != http.StatusServiceUnavailable {
					t.Errorf("%d %s", w.Code, w.Body)
					return
				}
			}
		})
	}
	wg.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n, _ := r.Announced(); n > 10_000 || n < 9_980 { // a place may be counted twice while it is being taken
		t.Errorf("%d instances were taken", n)
	}
	for n := range 30 { // the last places, one after the other
		askWith(c, "POST", "/v1/services", body(100_000+n), "Authorization", "Bearer eve")
	}
	if n, _ := r.Announced(); n != 10_000 {
		t.Errorf("%d instances, want all the places taken", n)
	}
	w := askWith(c, "POST", "/v1/services", body(1_000_000), "Authorization", "Bearer ada")
	if p := decode(t, w); w.Code != 503 || p.Code != problem.CodeUnavailable || !strings.Contains(p.Detail, "10,000") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// Who is in stays in.
	if w := askWith(c, "POST", "/v1/services", body(1), "Authorization", "Bearer ada"); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(c, "PUT", "/v1/services/pay-1/i-1/heartbeat", "Authorization", "Bearer ada"); w.Code != 204 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	instances, _ := r.Announced()
	grown := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(instances)
	t.Logf("%d bytes an instance", grown)
	if grown > 16<<10 {
		t.Errorf("%d bytes an instance", grown)
	}
}
