package middleware_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/middleware"
)

func TestTimeoutDeadline(t *testing.T) {
	t.Parallel()
	const none = -1
	cases := []struct {
		name   string
		limit  time.Duration
		header []string
		want   time.Duration // left when the handler starts; 0: 504 at once
	}{
		{"configured", time.Second, nil, time.Second},
		{"no limit, no header", 0, nil, none},
		{"no limit, header", 0, []string{"Request-Timeout", "250"}, 250 * time.Millisecond},
		{"header below the limit", time.Second, []string{"Request-Timeout", "250"}, 250 * time.Millisecond},
		{"header above the limit", time.Second, []string{"Request-Timeout", "5000"}, time.Second},
		{"the smallest wins", time.Minute, []string{"Request-Timeout", "3000", "Grpc-Timeout", "2S", "X-Envoy-Expected-Rq-Timeout-Ms", "2500"}, 2 * time.Second},
		{"the smallest of one header", time.Minute, []string{"Request-Timeout", "3000", "Request-Timeout", "70"}, 70 * time.Millisecond},
		{"Envoy", time.Minute, []string{"X-Envoy-Expected-Rq-Timeout-Ms", "15"}, 15 * time.Millisecond},
		{"Envoy's 0 is none", time.Minute, []string{"X-Envoy-Expected-Rq-Timeout-Ms", "0"}, time.Minute},
		{"gRPC hours", 0, []string{"Grpc-Timeout", "2H"}, 2 * time.Hour},
		{"gRPC minutes", 0, []string{"Grpc-Timeout", "2M"}, 2 * time.Minute},
		{"gRPC milliseconds", 0, []string{"Grpc-Timeout", "2m"}, 2 * time.Millisecond},
		{"gRPC microseconds", 0, []string{"Grpc-Timeout", "2u"}, 2 * time.Microsecond},
		{"gRPC nanoseconds", 0, []string{"Grpc-Timeout", "2n"}, 2},
		{"gRPC longest", time.Hour, []string{"Grpc-Timeout", "99999999H"}, time.Hour},
		{"gRPC too many digits", time.Hour, []string{"Grpc-Timeout", "123456789n"}, time.Hour},
		{"gRPC no unit", time.Hour, []string{"Grpc-Timeout", "12"}, time.Hour},
		{"gRPC other unit", time.Hour, []string{"Grpc-Timeout", "12s"}, time.Hour},
		{"not a number", time.Hour, []string{"Request-Timeout", "1s"}, time.Hour},
		{"plus sign", time.Hour, []string{"Request-Timeout", "+1"}, time.Hour},
		{"hyphen alone", time.Hour, []string{"Request-Timeout", "-"}, time.Hour},
		{"fraction", time.Hour, []string{"Request-Timeout", "1.5"}, time.Hour},
		{"empty", time.Hour, []string{"Request-Timeout", ""}, time.Hour},
		{"far too large", time.Hour, []string{"Request-Timeout", "99999999999999999999"}, time.Hour},
		{"over", time.Hour, []string{"Request-Timeout", "0"}, 0},
		{"long over", time.Hour, []string{"Request-Timeout", "-20"}, 0},
		{"over, no limit", 0, []string{"Request-Timeout", "-20"}, 0},
		{"gRPC over", time.Hour, []string{"Grpc-Timeout", "0m"}, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ran := false
				h := middleware.Timeout(c.limit)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					ran = true
					left := time.Duration(none)
					if deadline, ok := r.Context().Deadline(); ok {
						left = time.Until(deadline)
					}
					if left != c.want {
						t.Errorf("%v left, want %v", left, c.want)
					}
				}))
				r := httptest.NewRequest("GET", "/", nil)
				for i := 0; i < len(c.header); i += 2 {
					r.Header.Add(c.header[i], c.header[i+1])
				}
				w := serve(h, r)
				if ran != (c.want != 0) {
					t.Errorf("ran: %v", ran)
				}
				if c.want == 0 {
					wantProblem(t, w.Result(), w.Body.Bytes(), http.StatusGatewayTimeout, "deadline_exceeded")
				}
			})
		})
	}
}

func TestTimeoutAnswer(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		handler http.HandlerFunc
		status  int
	}{
		{"heeds its context and says nothing", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 504},
		{"answers late", func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			w.WriteHeader(http.StatusConflict)
		}, 409},
		{"answered in time", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			<-r.Context().Done()
		}, 200},
		{"silent in time", func(w http.ResponseWriter, r *http.Request) {}, 200},
		{"a deadline of its own", func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), time.Millisecond)
			defer cancel()
			<-ctx.Done()
		}, 200},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := new(logs)
				h := middleware.Chain(c.handler, middleware.AccessLog(log.logger(), middleware.AccessLogOptions{}), middleware.Trace(), middleware.Timeout(time.Second))
				w := serve(h, httptest.NewRequest("GET", "/", nil))
				if c.status == http.StatusGatewayTimeout {
					if p := wantProblem(t, w.Result(), w.Body.Bytes(), 504, "deadline_exceeded"); p.TraceID == "" {
						t.Errorf("problem %+v", p)
					}
				} else if w.Code != c.status {
					t.Errorf("status %d, want %d", w.Code, c.status)
				}
				if r := log.records(t, "request"); r[0]["status"] != float64(c.status) {
					t.Errorf("log: %s", log)
				}
			})
		})
	}
}

// After the handler the context ends, so that what it started can end.
func TestTimeoutCancelsAtTheEnd(t *testing.T) {
	t.Parallel()
	var ctx context.Context
	h := middleware.Timeout(time.Minute)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ctx = r.Context() }))
	serve(h, httptest.NewRequest("GET", "/", nil))
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("the context's error is %v", ctx.Err())
	}
}

func FuzzTimeoutHeaders(f *testing.F) {
	f.Add("250", "2S", "15")
	f.Add("-1", "99999999H", "0")
	f.Add("1e9", "１S", " 1")
	f.Fuzz(func(t *testing.T, request, grpc, envoy string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Request-Timeout"] = []string{request}
		r.Header["Grpc-Timeout"] = []string{grpc}
		r.Header["X-Envoy-Expected-Rq-Timeout-Ms"] = []string{envoy}
		ran := false
		w := serve(middleware.Timeout(time.Hour)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ran = true
			if deadline, ok := r.Context().Deadline(); !ok || time.Until(deadline) > time.Hour {
				t.Fatalf("deadline %v, %v", deadline, ok)
			}
			w.WriteHeader(http.StatusNoContent)
		})), r)
		if ran != (w.Code == http.StatusNoContent) || !ran && w.Code != http.StatusGatewayTimeout {
			t.Fatalf("ran %v, status %d", ran, w.Code)
		}
		// Only what begins like a number may have stopped the request.
		if !ran && strings.Trim(request, "-0") != "" && !strings.HasPrefix(request, "-") && strings.Trim(grpc[:max(len(grpc)-1, 0)], "0") != "" {
			t.Fatalf("%q %q %q: 504", request, grpc, envoy)
		}
	})
}
