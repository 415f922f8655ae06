package breaker_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/breaker"
)

func TestSnapshotJSON(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t)
		_ = b.Do(t.Context(), succeeds)
		trip(t, b)
		_ = b.Do(t.Context(), succeeds)
		got, err := json.MarshalIndent(b.Snapshot(), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		at, _ := json.Marshal(time.Now())
		want := fmt.Sprintf(`{
 "state": "open",
 "failureCount": 5,
 "metrics": {
  "requests": 6,
  "successes": 1,
  "failures": 5,
  "cancelled": 0,
  "timeouts": 0,
  "slow": 0,
  "rejected": 1,
  "opens": 1,
  "stateChangedAt": %s,
  "openedAt": %[1]s
 }
}`, at)
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Error(diff)
		}
		var back breaker.Snapshot
		if err := json.Unmarshal(got, &back); err != nil || back.State != breaker.Open {
			t.Errorf("read back %+v, %v", back, err)
		}
		if err := json.Unmarshal([]byte(`{"state":"ajar"}`), &back); err == nil {
			t.Error("an unknown state was read without an error")
		}
	})
}

func TestListenersHoldNoLock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t)
		var got []string
		b.OnStateChange(func(c breaker.Change) {
			got = append(got, fmt.Sprint("1 ", c.From, " ", c.To))
			if c.Name != "payment" || c.At.IsZero() {
				t.Errorf("%+v", c)
			}
			if c.To == breaker.Open { // uses the breaker, and changes its state once more
				time.Sleep(31 * time.Second)
				if err := b.Do(t.Context(), succeeds); err != nil {
					t.Error(err)
				}
				_ = b.Snapshot()
			}
		})
		b.OnStateChange(func(c breaker.Change) { got = append(got, fmt.Sprint("2 ", c.From, " ", c.To)) })
		for range 5 {
			_ = b.Do(t.Context(), fails)
		}
		want := []string{
			"1 closed open", "2 closed open",
			"1 open half-open", "2 open half-open",
			"1 half-open closed", "2 half-open closed",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestListenerPanicsGoUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBreaker(t, breaker.ConsecutiveFailures(1))
		calls := 0
		b.OnStateChange(func(breaker.Change) {
			if calls++; calls == 1 {
				panic("listener")
			}
		})
		func() {
			defer func() {
				if recover() != "listener" {
					t.Error("the listener's panic did not reach the caller")
				}
			}()
			_ = b.Do(t.Context(), fails)
		}()
		time.Sleep(31 * time.Second)
		if err := b.Do(t.Context(), succeeds); err != nil {
			t.Fatal(err)
		}
		if calls != 3 {
			t.Errorf("%d calls of the listener, want 3: it is not called any more after a panic", calls)
		}
	})
}
