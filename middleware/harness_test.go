package middleware_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keelson-go/keelson/middleware"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/telemetry"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logs keeps what a logger writes, a record a line.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logs) logger() *slog.Logger {
	return slog.New(telemetry.NewLogHandler(slog.NewJSONHandler(l, nil)))
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// records returns the records with a message.
func (l *logs) records(t *testing.T, msg string) []map[string]any {
	t.Helper()
	var found []map[string]any
	for line := range strings.Lines(l.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if r["msg"] == msg {
			found = append(found, r)
		}
	}
	return found
}

// eventually waits until what asserts is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: still not so after 10 s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func newTelemetry(t *testing.T) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(telemetry.Config{Service: "test", Output: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

// seen gives the finished requests by "method route status".
func seen(t *testing.T, tel *telemetry.Telemetry) map[string]uint64 {
	t.Helper()
	families, err := tel.Registerer().(interface {
		Gather() ([]*family, error)
	}).Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, f := range families {
		if f.GetName() != telemetry.ServerDuration {
			continue
		}
		for _, m := range f.GetMetric() {
			label := map[string]string{}
			for _, l := range m.GetLabel() {
				label[l.GetName()] = l.GetValue()
			}
			key := label[telemetry.LabelMethod] + " " + label[telemetry.LabelRoute] + " " + label[telemetry.LabelStatus]
			counts[key] += m.GetHistogram().GetSampleCount()
		}
	}
	return counts
}

// stack is a server with all the middleware that watches.
func stack(t *testing.T, h http.Handler, more ...middleware.Middleware) (*httptest.Server, *logs, *telemetry.Telemetry) {
	t.Helper()
	log, tel := new(logs), newTelemetry(t)
	around := append([]middleware.Middleware{
		middleware.RequestID(), middleware.Trace(), middleware.AccessLog(log.logger(), middleware.AccessLogOptions{}),
		middleware.Metrics(tel), middleware.Recover(log.logger()),
	}, more...)
	srv := httptest.NewUnstartedServer(middleware.Chain(h, around...))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(t.Output(), nil), slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv, log, tel
}

// do sends a request and reads the whole answer.
func do(t *testing.T, srv *httptest.Server, method, path string, body io.Reader, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp, got, err
}

// wantProblem checks that an answer is a problem.
func wantProblem(t *testing.T, resp *http.Response, body []byte, status int, code string) *problem.Problem {
	t.Helper()
	resp.Body = io.NopCloser(bytes.NewReader(body))
	p, err := problem.Decode(resp)
	if err != nil {
		t.Fatalf("%s %s: %v", resp.Status, body, err)
	}
	if resp.StatusCode != status || p.Code != code {
		t.Fatalf("%s %s, want %d %s", resp.Status, body, status, code)
	}
	return p
}

// serve runs one request without a network.
func serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
