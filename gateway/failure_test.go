package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/client"
	"github.com/keelson-go/keelson/concurrency"
	"github.com/keelson-go/keelson/deadline"
	"github.com/keelson-go/keelson/gateway"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/retry"
)

// openError is what an open breaker refuses calls with.
func openError(t *testing.T) error {
	b, err := breaker.New("up", breaker.ConsecutiveFailures(1), breaker.OpenTime(time.Hour), breaker.OpenJitter(0))
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Do(t.Context(), func(context.Context) error { return syscall.ECONNREFUSED })
	return b.Do(t.Context(), func(context.Context) error { return nil })
}

// limitError is what a limit that is reached refuses calls with.
func limitError(t *testing.T) error {
	l, err := concurrency.New(concurrency.Fixed(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = l.TryAcquire(concurrency.Normal); err != nil {
		t.Fatal(err)
	}
	_, err = l.TryAcquire(concurrency.Normal)
	return err
}

// budgetError is what a call ends with when there is no budget left to retry it.
func budgetError(t *testing.T, cause error) error {
	b, err := retry.NewBudget(retry.BudgetOptions{Ratio: 0.01, Reserve: 1, PerSecond: 0.001})
	if err != nil {
		t.Fatal(err)
	}
	for b.Withdraw() {
	}
	return retry.Do(t.Context(), retry.Policy{Budget: b}, func(context.Context) error { return cause })
}

// What the client layer refuses is told as what it is.
func TestRefusalsOfTheClientLayer(t *testing.T) {
	t.Parallel()
	const notAgain = "not tried again"
	for _, c := range []struct {
		name       string
		err        error
		status     int
		code       string
		low, high  int // of Retry-After; 0: there is none
		retryable  bool
		detailHas  string
		detailHasn string
	}{
		{"breaker open", openError(t), 503, problem.CodeCircuitOpen, 3000, 3600, true, "up", notAgain},
		{"limit reached", limitError(t), 503, problem.CodeOverloaded, 1, 3, true, "up", notAgain},
		{"no instance", &registry.NoInstanceError{Service: "up"}, 503, problem.CodeNoHealthyInstance, 1, 1, true, "up", notAgain},
		{"no budget", budgetError(t, syscall.ECONNREFUSED), 502, problem.CodeUpstreamFailed, 0, 0, false, notAgain, "refused by"},
		{"no budget, too slow", budgetError(t, context.DeadlineExceeded), 504, problem.CodeUpstreamTimeout, 0, 0, false, "did not answer in time", ""},
		{"refused", syscall.ECONNREFUSED, 502, problem.CodeUpstreamFailed, 0, 0, false, "up", notAgain},
		{"not begun", deadline.ErrOver, 504, problem.CodeUpstreamTimeout, 0, 0, false, "up", notAgain},
	} {
		for how, err := range map[string]error{
			"bare":        c.err,
			"wrapped":     fmt.Errorf("call up at 127.0.0.1:1: %w", c.err),
			"by a client": &client.Error{Service: "up", Instance: "up-127.0.0.1", Attempts: 1, Err: fmt.Errorf("dial 127.0.0.1: %w", c.err)},
		} {
			t.Run(c.name+" "+how, func(t *testing.T) {
				t.Parallel()
				e := newEdge(t, gateway.Config{Routes: []gateway.Route{open("/*")}}, gateway.Deps{
					Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, err }),
				})
				res, text := e.do("GET", "/", "")
				wantProblem(t, res, text, c.status, c.code)
				after, _ := strconv.Atoi(res.Header.Get("Retry-After"))
				if after < c.low || after > c.high || (c.high == 0) != (res.Header.Get("Retry-After") == "") {
					t.Errorf("Retry-After: %q, want %d to %d", res.Header.Get("Retry-After"), c.low, c.high)
				}
				if strings.Contains(text, `"retryable":true`) != c.retryable || !strings.Contains(text, c.detailHas) ||
					c.detailHasn != "" && strings.Contains(text, c.detailHasn) {
					t.Error(text)
				}
				reason := strings.Trim(strconv.Quote(c.err.Error()), `"`)
				eventually(t, "the reason is logged", func() bool { return strings.Contains(e.logs.String(), reason) })
			})
		}
	}
}

// Where the caller's own time is over, it is not the service that was slow.
func TestRefusedForTheCallersDeadline(t *testing.T) {
	t.Parallel()
	e := newEdge(t, gateway.Config{Routes: []gateway.Route{open("/*")}}, gateway.Deps{
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			at, _ := r.Context().Deadline()
			for time.Until(at) > 0 { // the timer may be late, the clock is not
				<-time.After(time.Until(at))
			}
			return nil, errors.Join(deadline.Check(r.Context()))
		}),
	})
	res, text := e.do("GET", "/", "", "Request-Timeout", "30")
	wantProblem(t, res, text, http.StatusGatewayTimeout, problem.CodeDeadline)
}
