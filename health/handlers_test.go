package health_test

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/keelson-go/keelson/health"
)

func get(t *testing.T, h http.Handler, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w
}

func TestDetail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := health.New("1.2.3")
		add(t, h, "database", pass, health.Critical())
		add(t, h, "mail", fail)
		for name, f := range map[string]func() any{
			"metrics":  func() any { return map[string]any{"requestCount": 7} },
			"breakers": func() any { return map[string]any{} },
			"broken":   func() any { return math.NaN() },
			"panics":   func() any { panic("boom") },
			"name":     func() any { return "users" },
		} {
			if err := h.AddDetail(name, f); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(1500 * time.Millisecond)
		h.Set("registration", nil, false)
		w := get(t, h.Detail(), "GET", "/health")
		if w.Code != 503 {
			t.Errorf("starting: %d", w.Code)
		}
		run(t, h)
		synctest.Wait()
		h.Started()
		w = get(t, h.Detail(), "GET", "/health")
		at := time.Now().UTC().Format(time.RFC3339Nano)
		want := `{"status":"degraded","uptime":1.5,"version":"1.2.3","dependencies":{` +
			`"database":{"status":"healthy","critical":true,"responseTime":0,"lastCheck":"` + at + `"},` +
			`"mail":{"status":"unhealthy","responseTime":0,"lastCheck":"` + at + `","error":"connection refused"},` +
			`"registration":{"status":"healthy","responseTime":0,"lastCheck":"` + at + `"}},` +
			`"breakers":{},"broken":{"error":"json: unsupported value: NaN"},"metrics":{"requestCount":7},"name":"users","panics":{"error":"panic: boom"}}` + "\n"
		if diff := cmp.Diff(want, w.Body.String()); diff != "" || w.Code != 200 {
			t.Errorf("status %d (-want +got):\n%s", w.Code, diff)
		}
		for name, v := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
			if got := w.Header().Get(name); got != v {
				t.Errorf("%s = %q", name, got)
			}
		}
		var back health.Report
		if err := json.Unmarshal(w.Body.Bytes(), &back); err != nil {
			t.Fatal(err)
		}
		report := h.Report()
		report.Details = nil
		if diff := cmp.Diff(report, back); diff != "" {
			t.Errorf("decoded again (-sent +got):\n%s", diff)
		}
	})
}

// An empty Health still has all members of the contract.
func TestDetailEmpty(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const want = `{"status":"starting","uptime":0,"version":"","dependencies":{}}` + "\n"
		if got := get(t, health.New("").Detail(), "GET", "/health").Body.String(); got != want {
			t.Errorf("got %s want %s", got, want)
		}
	})
}

func TestStatusCodes(t *testing.T) {
	t.Parallel()
	steps := []struct {
		name string
		do   func(h *health.Health)
		code int
	}{
		{"starting", func(*health.Health) {}, 503},
		{"healthy", func(h *health.Health) { h.Started() }, 200},
		{"degraded", func(h *health.Health) { h.Set("a", errDown, false) }, 200},
		{"unhealthy", func(h *health.Health) { h.Set("a", errDown, true) }, 503},
		{"draining", func(h *health.Health) { h.Drain() }, 503},
	}
	h := health.New("1")
	for _, s := range steps {
		s.do(h)
		ready, detail, live := get(t, h.Ready(), "GET", "/readyz"), get(t, h.Detail(), "GET", "/health"), get(t, h.Live(), "GET", "/livez")
		if ready.Code != s.code || ready.Body.String() != s.name+"\n" {
			t.Errorf("%s: /readyz %d %q", s.name, ready.Code, ready.Body)
		}
		if detail.Code != s.code {
			t.Errorf("%s: /health %d", s.name, detail.Code)
		}
		if live.Code != 200 || live.Body.String() != "ok\n" {
			t.Errorf("%s: /livez %d %q", s.name, live.Code, live.Body)
		}
	}
	h.Dead(errors.New("deadlock in\nthe writer"))
	h.Dead(errors.New("another"))
	if live := get(t, h.Live(), "GET", "/livez"); live.Code != 503 || live.Body.String() != "dead: deadlock in the writer\n" {
		t.Errorf("dead: /livez %d %q", live.Code, live.Body)
	}
}

func TestReadyVerbose(t *testing.T) {
	t.Parallel()
	h := health.New("1")
	h.Started()
	add(t, h, "engine", pass, health.Critical())
	h.Set("cache", errors.New("line one\nline two"), false)
	h.Set("registration", nil, true)
	w := get(t, h.Ready(), "GET", "/readyz?verbose")
	const want = "degraded\n[-] cache: line one line two\n[?] engine (critical)\n[+] registration (critical)\n"
	if w.Body.String() != want || w.Code != 200 {
		t.Errorf("%d\n%s want\n%s", w.Code, w.Body, want)
	}
}

func TestMethods(t *testing.T) {
	t.Parallel()
	h := health.New("1")
	for name, handler := range map[string]http.Handler{"live": h.Live(), "ready": h.Ready(), "detail": h.Detail()} {
		w := get(t, handler, "POST", "/")
		if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: POST is %d, Allow %q", name, w.Code, w.Header().Get("Allow"))
		}
		if a, b := get(t, handler, "HEAD", "/").Code, get(t, handler, "GET", "/").Code; a != b {
			t.Errorf("%s: HEAD is %d, GET %d", name, a, b)
		}
	}
}

func TestErrorsAreShort(t *testing.T) {
	t.Parallel()
	h := health.New("1")
	for name, text := range map[string]string{
		"long": strings.Repeat("ü ", 500), "lines": " a\r\n\tb ", "not UTF-8": "a\xffb", "none": "",
	} {
		h.Set(name, errors.New(text), false)
	}
	for name, d := range h.Report().Dependencies {
		if n := utf8.RuneCountInString(d.Error); n == 0 || n > 200 || strings.ContainsAny(d.Error, "\r\n\t") || !utf8.ValidString(d.Error) {
			t.Errorf("%s: %q (%d characters)", name, d.Error, n)
		}
		if d.Status != health.Unhealthy {
			t.Errorf("%s: %s", name, d.Status)
		}
	}
	if got := h.Report().Dependencies["long"].Error; !strings.HasSuffix(got, "…") {
		t.Errorf("a cut text does not say so: %q", got)
	}
}

func TestAddDetailRefuses(t *testing.T) {
	t.Parallel()
	h := health.New("1")
	value := func() any { return 1 }
	if err := h.AddDetail("metrics", value); err != nil {
		t.Fatal(err)
	}
	if err := h.AddDetail("metrics", value); !errors.Is(err, health.ErrDuplicate) {
		t.Errorf("taken: %v", err)
	}
	for _, name := range []string{"", "status", "uptime", "version", "dependencies"} {
		if err := h.AddDetail(name, value); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
	if err := h.AddDetail("x", nil); err == nil {
		t.Error("a nil function was taken")
	}
}

// A detail may ask the Health it is part of.
func TestDetailMayAsk(t *testing.T) {
	t.Parallel()
	h := health.New("1")
	if err := h.AddDetail("again", func() any { return h.Status() }); err != nil {
		t.Fatal(err)
	}
	if got := h.Report().Details["again"]; got != health.Starting {
		t.Errorf("got %v", got)
	}
}
