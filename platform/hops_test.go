package platform_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/deadline"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/keelsontest"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/service"
)

// The whole way, with real services: the gateway's deadline and priority get to a
// service that another service calls.
func TestFleetPassesOn(t *testing.T) {
	t.Parallel()
	type arrival struct {
		told     int
		left     time.Duration
		priority string
	}
	look := func(r *http.Request) arrival {
		told, _ := strconv.Atoi(r.Header.Get(deadline.Header))
		at, _ := r.Context().Deadline()
		return arrival{told, time.Until(at), r.Header.Get(concurrency.Header)}
	}
	first, last, failed := make(chan arrival, 16), make(chan arrival, 16), make(chan error, 16)
	front := func(_ context.Context, opts ...service.Option) (*service.Service, error) {
		s, err := service.New("front", opts...)
		if err != nil {
			return nil, err
		}
		s.HandleFunc("GET /front/{how}", func(w http.ResponseWriter, r *http.Request) error {
			first <- look(r)
			if r.PathValue("how") == "slow" {
				<-r.Context().Done()
			}
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://back/", nil)
			if err != nil {
				return err
			}
			res, err := s.Client().Do(req)
			if err != nil {
				failed <- err
				return err
			}
			defer res.Body.Close()
			_, err = io.Copy(w, res.Body)
			return err
		})
		return s, nil
	}
	fleet := keelsontest.Start(t,
		keelsontest.Service("front", front),
		keelsontest.Handler("back", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			last <- look(r)
			_, _ = io.WriteString(w, "done")
		})),
		keelsontest.Route("/front/*", "front", keelsontest.Public(), func(r *gateway.Route) { r.Priority = concurrency.Critical }))
	ask := func(path string, header ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fleet.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := fleet.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(text)
	}

	if code, text := ask("/front/fast", concurrency.Header, "low"); code != http.StatusOK || text != "done" {
		t.Fatalf("%d %s", code, text)
	}
	a, b := <-first, <-last
	given := int(gateway.DefaultTimeout.Milliseconds())
	if a.told > given-100 || a.told < given/2 || a.left > time.Duration(a.told)*time.Millisecond || a.priority != "critical" {
		t.Errorf("of %d ms the first service was told %+v", given, a)
	}
	if b.told > a.told-100 || b.told < given/2 || b.left > time.Duration(b.told)*time.Millisecond || b.left >= a.left {
		t.Errorf("then the second %+v", b)
	}
	if b.priority != "critical" {
		t.Errorf("the second service was told priority %q", b.priority)
	}

	code, text := ask("/front/slow", deadline.Header, "200")
	if code != http.StatusGatewayTimeout || !strings.Contains(text, problem.CodeDeadline) {
		t.Errorf("%d %s", code, text)
	}
	if err := <-failed; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the first service's call failed with %v", err)
	}
	if n := len(last); n > 0 {
		t.Errorf("the second service was called %d times for nobody", n)
	}
}
