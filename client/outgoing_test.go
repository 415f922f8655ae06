package client_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/deadline"
)

func TestPriorityGoesAlong(t *testing.T) {
	t.Parallel()
	var seen []string
	script := func(host string, n int, req *http.Request) reply {
		seen = append(seen, strings.Join(req.Header.Values(concurrency.Header), ","))
		return fine(host, n, req)
	}
	play(t, 1, script, func(s *stage) {
		ctx := concurrency.ContextWithPriority(s.Context(), concurrency.Critical)
		_, _, _ = s.get()
		_, _, _ = s.do(request(s.T, "GET", "http://users/", nil).WithContext(ctx))
		own := request(s.T, "GET", "http://users/", nil).WithContext(ctx)
		own.Header.Set(concurrency.Header, "low")
		_, _, _ = s.do(own)
	})
	if got := strings.Join(seen, ";"); got != ";critical;low" {
		t.Errorf("priorities %q", got)
	}
}

// What a request says itself about its caller's time stays as it is, unless less is left.
func TestDeadlineGoesDown(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, said string
		want       [2]string // on the first try and on the second, 300 ms later
	}{
		{"nothing", "", [2]string{"475", "190"}},
		{"less than is left", "100", [2]string{"100", "100"}},
		{"as the gateway does", "475", [2]string{"475", "190"}},
		{"more than is left", "60000", [2]string{"475", "190"}},
		{"what is no number", "soon", [2]string{"475", "190"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var seen []string
			script := func(_ string, _ int, req *http.Request) reply {
				seen = append(seen, req.Header.Get(deadline.Header), req.Header.Get(deadline.HeaderGRPC))
				if len(seen) == 2 {
					return reply{after: 300 * time.Millisecond, err: refusal()}
				}
				return reply{status: 200}
			}
			play(t, 2, script, func(s *stage) {
				ctx, cancel := context.WithTimeout(s.Context(), 500*time.Millisecond)
				defer cancel()
				req := request(s.T, "POST", "http://users/a.B/C", nil).WithContext(ctx)
				req.Header.Set("Content-Type", "application/grpc")
				if tt.said != "" {
					req.Header.Set(deadline.Header, tt.said)
					req.Header.Set(deadline.HeaderGRPC, tt.said+"m")
				}
				if _, _, err := s.do(req); err != nil {
					s.Error(err)
				}
				if req.Header.Get(deadline.Header) != tt.said {
					s.Error("the caller's own request was changed")
				}
			})
			grpc := func(ms string) string {
				if ms == tt.said {
					return ms + "m"
				}
				return ms + "000u"
			}
			want := []string{tt.want[0], grpc(tt.want[0]), tt.want[1], grpc(tt.want[1])}
			if diff := cmp.Diff(want, seen); diff != "" {
				t.Errorf("deadlines told (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGRPCDeadlineGoesAlong(t *testing.T) {
	t.Parallel()
	var seen string
	script := func(host string, n int, req *http.Request) reply {
		seen = req.Header.Get("Grpc-Timeout")
		return fine(host, n, req)
	}
	play(t, 1, script, func(s *stage) {
		ctx, cancel := context.WithTimeout(s.Context(), time.Second)
		defer cancel()
		req := request(s.T, "POST", "http://users/a.B/C", nil).WithContext(ctx)
		req.Header.Set("Content-Type", "application/grpc")
		if _, _, err := s.do(req); err != nil || seen != "950000u" && seen != "950000000n" && seen != "950m" {
			s.Errorf("%v, Grpc-Timeout %q, want 950 ms", err, seen)
		}
	})
}
