package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/auth"
	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/internal/process"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/registry"
)

// devProject makes the working folder a project whose system is at admin.
func devProject(t *testing.T, admin string) *auth.DevKey {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	self, err := process.Self()
	if err != nil {
		t.Fatal(err)
	}
	f := runfile.File{ID: self, StartedAt: time.Now(), Admin: admin, Children: []runfile.Child{}}
	if err := runfile.Write(runfile.Path(dir), f); err != nil {
		t.Fatal(err)
	}
	key, err := auth.LoadOrCreateDevKey(filepath.Join(dir, runfile.Folder, "dev.key"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// verify returns the identity in a token that the key has made.
func verify(t *testing.T, key *auth.DevKey, token string) *auth.Identity {
	t.Helper()
	jwt, err := auth.NewJWT(t.Context(), key.JWTConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer jwt.Close()
	id, err := jwt.Authenticate(t.Context(), auth.HeaderFunc(func(string) string { return "Bearer " + token }))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestBearer(t *testing.T) {
	const far = "http://192.0.2.7:3100"
	key := devProject(t, far)
	a := &app{env: func(string) string { return "" }}
	bearer := func(base, source string) string {
		t.Helper()
		token, err := a.bearer(base, source)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	base, source, err := a.admin()
	if err != nil || base != far {
		t.Fatalf("admin() = %q, %v", base, err)
	}
	id := verify(t, key, bearer(base, source))
	if !id.HasScopes(console.ScopeAdmin) || time.Until(id.Expires) > mintedTTL+time.Minute {
		t.Errorf("%+v", id)
	}
	if got := bearer("http://127.0.0.1:3100", source); got != "" {
		t.Error("a token is made for loopback, which needs none")
	}
	if got := bearer(far, "--url"); got != "" {
		t.Error("the project's key signs for an address that was merely given")
	}
	a.env = func(k string) string { return map[string]string{"KEELSON_TOKEN": " from-env\n"}[k] }
	if got := bearer(far, "--url"); got != "from-env" {
		t.Errorf("KEELSON_TOKEN: %q", got)
	}
	a.token = "from-flag"
	if got := bearer(base, source); got != "from-flag" {
		t.Errorf("--token: %q", got)
	}
	a.token = "two\nlines"
	if _, err := a.bearer(base, source); err == nil || strings.Contains(err.Error(), "lines") {
		t.Errorf("a token of two lines: %v", err)
	}
}

// No key is made where there is none: the system could not know it.
func TestNoKeyIsMadeForATalk(t *testing.T) {
	devProject(t, "http://192.0.2.7:3100")
	path := filepath.Join(runfile.Folder, "dev.key")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	a := &app{env: func(string) string { return "" }}
	base, source, err := a.admin()
	if err != nil {
		t.Fatal(err)
	}
	if token, err := a.bearer(base, source); token != "" || err != nil {
		t.Errorf("%q, %v", token, err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("there is a key now: %v", err)
	}
}

// offLoopback is an address of this machine that is not on loopback.
func offLoopback(t *testing.T) net.IP {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP
		}
	}
	return net.IPv4zero // which reaches this machine as well, and counts as off loopback
}

// Against an admin API that listens off loopback, commands bring a token: the
// one they are given, or one that the project's key signs.
func TestAdminAPIOffLoopback(t *testing.T) {
	l, err := net.Listen("tcp", net.JoinHostPort(offLoopback(t).String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	admin := "http://" + l.Addr().String()
	key := devProject(t, admin)
	jwt, err := auth.NewJWT(t.Context(), key.JWTConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(jwt.Close)
	r := newRig(t, func(c *console.Config) { c.Listen, c.Authenticator = l.Addr(), jwt })
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: r.server.Config.Handler}}
	s.Start()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })

	if got := keelson(t, nil, "services", "-o", "json"); got.code != exitOK || strings.TrimSpace(got.stdout) != "[]" {
		t.Errorf("by the run file: %+v", got)
	}
	got := keelson(t, nil, "services", "--url", admin)
	if got.code != exitAuth || !strings.Contains(got.stderr, "KEELSON_TOKEN") {
		t.Errorf("by the address alone: %+v", got)
	}
	weak, err := key.Mint(auth.TokenRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got = keelson(t, map[string]string{"KEELSON_TOKEN": weak}, "services", "--url", admin)
	if got.code != exitAuth || !strings.Contains(got.stderr, console.ScopeAdmin) || strings.Contains(got.stderr, weak) {
		t.Errorf("with a token that does not allow it: %+v", got)
	}
	good, err := key.Mint(auth.TokenRequest{Scopes: []string{console.ScopeAdmin}})
	if err != nil {
		t.Fatal(err)
	}
	if got := keelson(t, nil, "services", "--url", admin, "--token", good); got.code != exitOK {
		t.Errorf("with --token: %+v", got)
	}
}

// A redirect is not followed, so the token goes nowhere else.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	var strayed []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		strayed = append(strayed, req.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	s := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer s.Close()
	for _, command := range []string{"services", "services watch", "status", "services show a b"} {
		got := keelson(t, map[string]string{"KEELSON_TOKEN": "secret"}, append(strings.Fields(command), "--url", s.URL)...)
		if got.code != exitFailed || !strings.Contains(got.stderr, "307") || strings.Contains(got.stderr, "secret") {
			t.Errorf("%s: %+v", command, got)
		}
	}
	if strayed != nil {
		t.Errorf("asked elsewhere, with %q", strayed)
	}
}

func TestBadAddresses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"nonsense", "ftp://127.0.0.1", "http://", "http://127.0.0.1 :3100"} {
		if got := keelson(t, nil, "status", "--url", url); got.code != exitUsage || !strings.Contains(got.stderr, "no URL") {
			t.Errorf("%q: %+v", url, got)
		}
	}
	// What is secret in one is not repeated, whether it is a URL or not.
	for _, url := range []string{
		"http://ann:hunter2@127.0.0.1:3100", "http://ann:%zzhunter2@127.0.0.1:3100", "ann:hunter2@127.0.0.1:3100",
		"http://127.0.0.1:3100/?token=hunter2", "127.0.0.1:3100#hunter2",
	} {
		got := keelson(t, nil, "status", "--url", url)
		if got.code != exitUsage || strings.Contains(got.stderr, "hunter2") || !strings.Contains(got.stderr, "hint: ") {
			t.Errorf("%s: %+v", url, got)
		}
	}
}

// What answers nonsense is said not to be Keelson, and can't paint the terminal.
func TestStrangers(t *testing.T) {
	t.Parallel()
	answers := map[string]struct {
		status      int
		media, body string
		says        string
	}{
		"a page":           {200, "text/html", "<html>", "can't be understood"},
		"an object":        {200, "application/json", `{"a":1`, "can't be understood"},
		"another's error":  {500, "text/plain", "oops", "not as Keelson does"},
		"an empty problem": {503, "application/problem+json", "{}", "503"},
		"escape sequences": {404, "application/problem+json", `{"detail":"\u001b[2Jgone\u202e"}`, "gone"},
	}
	for name, tt := range answers {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", tt.media)
			w.WriteHeader(tt.status)
			_, _ = w.Write([]byte(tt.body))
		}))
		for _, command := range []string{"services", "status", "services list a"} {
			got := keelson(t, nil, append(strings.Fields(command), "--url", s.URL)...)
			if got.code == exitOK || !strings.Contains(got.stderr, tt.says) || strings.ContainsAny(got.stderr, "\x1b\u202e") {
				t.Errorf("%s, %s: %+v", name, command, got)
			}
		}
		s.Close()
	}
}

// What answers well-formed nothings has done nothing, and nobody is told otherwise.
func TestHollowAnswers(t *testing.T) {
	t.Parallel()
	for _, answer := range []struct {
		status int
		body   string
	}{{200, "{}"}, {200, "null"}, {204, ""}} {
		url := newStub(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(answer.status)
			_, _ = w.Write([]byte(answer.body)) // of 204 it is none
		})
		for _, command := range []string{
			"services", "services show a b", "services pick a", "services drain a b --yes", "services undrain a b",
			"services deregister a b --yes", "services register a --address http://h:1", "status", "services watch",
		} {
			got := keelson(t, nil, append(strings.Fields(command), "--url", url)...)
			if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "something else seems to listen there") {
				t.Errorf("%d %q, %s: %+v", answer.status, answer.body, command, got)
			}
		}
		if got := keelson(t, nil, "services", "heartbeat", "a", "b", "--url", url); (got.code == exitOK) != (answer.status == http.StatusNoContent) {
			t.Errorf("%d %q, heartbeat: %+v", answer.status, answer.body, got)
		}
	}
}

func TestAskable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		gateway, base, source string
		want                  bool
	}{
		{"http://127.0.0.1:3000", "http://127.0.0.1:3100", "the default", true},
		{"http://127.0.0.1:3000", "http://localhost:3100", "--url", true},
		{"http://10.0.0.5:3000", "http://10.0.0.5:3100", "--url", true},
		{"http://127.0.0.1:3000", "http://10.0.0.5:3100", "--url", false}, // it is 10.0.0.5's
		{"http://127.0.0.1:3000", "http://0.0.0.0:3100", "/shop/.keelson/" + runfile.Name, true},
	} {
		if got := askable(tt.gateway, tt.base, tt.source); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

// An answer that begins and does not go on is none, and no stranger's.
func TestAnswerThatStalls(t *testing.T) {
	t.Parallel()
	url := newStub(t, func(w http.ResponseWriter, req *http.Request) {
		_, _ = w.Write([]byte("["))
		_ = http.NewResponseController(w).Flush()
		<-req.Context().Done()
	})
	a := &app{url: url, env: func(string) string { return "" }}
	resp, err := a.get(t.Context(), "/v1/services")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := context.AfterFunc(ctx, func() { resp.Body.Close() })
	defer stop()
	cancel(context.DeadlineExceeded)
	_, err = decode[[]registry.Instance](ctx, a, resp)
	if f, ok := errors.AsType[*failure](err); !ok || f.code != exitTimeout || !strings.Contains(f.message, "does not answer") {
		t.Errorf("%+v", err)
	}
}
