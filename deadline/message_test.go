package deadline_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keelson-go/keelson/deadline"
)

func attribute(value string) func(string) string {
	return func(name string) string {
		if name == "deadline" {
			return value
		}
		return ""
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // it is 2000-01-01T00:00:00Z
		sender, cancel := context.WithTimeout(t.Context(), time.Minute+1234567)
		defer cancel()
		var sent string
		deadline.ToMessage(sender, func(name, value string) { sent = name + "=" + value })
		if sent != "deadline=2000-01-01T00:01:00.001Z" {
			t.Fatalf("sent %s", sent)
		}
		get := attribute("2000-01-01T00:01:00.001Z")
		time.Sleep(30 * time.Second) // in the queue, in virtual time
		ctx, cancel, err := deadline.FromMessage(t.Context(), get)
		defer cancel()
		at, ok := ctx.Deadline()
		if err != nil || !ok || time.Until(at) != 30*time.Second+time.Millisecond {
			t.Errorf("%v left, %t, %v", time.Until(at), ok, err)
		}
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		ctx, cancel, err = deadline.FromMessage(soon, get)
		defer cancel()
		if at, _ := ctx.Deadline(); err != nil || time.Until(at) != time.Second {
			t.Errorf("the handler's own second became %v, %v", time.Until(at), err)
		}
		time.Sleep(31 * time.Second)
		ctx, cancel, err = deadline.FromMessage(t.Context(), get)
		defer cancel()
		if !errors.Is(err, deadline.ErrOver) || !errors.Is(err, context.DeadlineExceeded) || ctx != t.Context() {
			t.Errorf("after its time: %v", err)
		}
	})
}

func TestMessageWithoutDeadline(t *testing.T) {
	t.Parallel()
	deadline.ToMessage(t.Context(), func(name, value string) { t.Errorf("set %s %s", name, value) })
	far, cancel := context.WithDeadline(t.Context(), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))
	defer cancel()
	deadline.ToMessage(far, func(name, value string) { t.Errorf("set %s %s", name, value) })
	ctx, cancel, err := deadline.FromMessage(t.Context(), attribute(""))
	defer cancel()
	if ctx != t.Context() || err != nil {
		t.Errorf("%v, %v", ctx, err)
	}
}

func TestMessageMalformed(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"soon", "1700000000", "2026-11-22", "2026-11-22T21:04:05", "2026-11-22 21:04:05Z", "2026-02-30T21:04:05Z",
		"+2026-11-22T21:04:05Z", "2026-11-22T21:04:05." + strings.Repeat("0", 60) + "Z"} {
		ctx, cancel, err := deadline.FromMessage(t.Context(), attribute(value))
		if cancel == nil || err == nil || errors.Is(err, deadline.ErrOver) || ctx != t.Context() || !strings.Contains(err.Error(), "RFC 3339") {
			t.Errorf("%s: %v", value, err)
		}
		cancel()
	}
}

func FuzzFromMessage(f *testing.F) {
	f.Add("2999-11-22T21:04:05.250Z")
	f.Add("2026-11-22T21:04:05+02:00")
	f.Add("0000-01-01T00:00:00Z")
	f.Add("9999-12-31T23:59:60Z")
	f.Fuzz(func(t *testing.T, value string) {
		ctx, cancel, err := deadline.FromMessage(t.Context(), attribute(value))
		defer cancel()
		at, bounded := ctx.Deadline()
		if bounded && (err != nil || time.Until(at) <= -time.Minute) || value != "" && !bounded && err == nil {
			t.Fatalf("%q: %v, %t, %v", value, at, bounded, err)
		}
		if bounded {
			// What is sent on is the same time, cut to milliseconds.
			deadline.ToMessage(ctx, func(_, again string) {
				other, cancel, err := deadline.FromMessage(t.Context(), attribute(again))
				defer cancel()
				if same, _ := other.Deadline(); err != nil || at.Sub(same) < 0 || at.Sub(same) >= time.Millisecond {
					t.Fatalf("%q became %q: %v", value, again, err)
				}
			})
		}
	})
}
