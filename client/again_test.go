package client

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keelson-go/keelson/retry"
)

func policy() *retry.Policy {
	return &retry.Policy{MaxAttempts: 3, MaxAfter: DefaultMaxAfter}
}

func TestAgain(t *testing.T) {
	t.Parallel()
	const half = 0.5 // of the first backoff, 25 ms
	for _, tt := range []struct {
		name string
		m    moment
		wait time.Duration
		ok   bool
	}{
		{"refused goes elsewhere at once", moment{fate: refused, other: true}, 0, true},
		{"refused with nowhere else to go", moment{fate: refused}, 12500 * time.Microsecond, true},
		{"failed", moment{fate: faulty, idempotent: true, other: true}, 12500 * time.Microsecond, true},
		{"failed and not idempotent", moment{fate: faulty, other: true}, 0, false},
		{"broken and not idempotent", moment{fate: broken, other: true}, 0, false},
		{"the third attempt was the last", moment{fate: faulty, idempotent: true, other: true, attempts: 3}, 0, false},
		{"the second backs off twice as long", moment{fate: faulty, idempotent: true, other: true, attempts: 2}, 25 * time.Millisecond, true},
		{"Retry-After of one instance is not another's", moment{fate: shed, idempotent: true, other: true, pushback: pushback{asked: true, after: time.Second}}, 12500 * time.Microsecond, true},
		{"Retry-After is waited for where there is no other", moment{fate: shed, idempotent: true, pushback: pushback{asked: true, after: time.Second}}, 1012500 * time.Microsecond, true},
		{"unless it is too long", moment{fate: shed, idempotent: true, pushback: pushback{asked: true, after: DefaultMaxAfter + 1}}, 0, false},
		{"or longer than the caller waits", moment{fate: shed, idempotent: true, pushback: pushback{asked: true, after: time.Second}, left: time.Second}, 1012500 * time.Microsecond, false},
		{"never means never", moment{fate: shed, idempotent: true, other: true, pushback: pushback{asked: true, never: true}}, 0, false},
		{"no time for the backoff", moment{fate: faulty, idempotent: true, other: true, left: 10 * time.Millisecond}, 12500 * time.Microsecond, false},
		{"no time for the try after it", moment{fate: faulty, idempotent: true, other: true, left: 13 * time.Millisecond}, 12500 * time.Microsecond, false},
		{"next to no time", moment{fate: refused, other: true, left: time.Millisecond}, 0, false},
		{"no time at all", moment{fate: refused, other: true, left: -1}, 0, false},
		{"an answer is an answer", moment{fate: answered, idempotent: true, other: true}, 0, false},
	} {
		m := tt.m
		m.random = half
		if m.attempts == 0 {
			m.attempts = 1
		}
		if m.left == 0 {
			m.left = unbounded
		}
		if wait, ok := again(policy(), m); ok != tt.ok || wait != tt.wait {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, wait, ok, tt.wait, tt.ok)
		}
	}
}

func TestAgainProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := moment{
			fate:       fate(rapid.IntRange(0, int(fates)-1).Draw(t, "fate")),
			attempts:   rapid.IntRange(1, 5).Draw(t, "attempts"),
			idempotent: rapid.Bool().Draw(t, "idempotent"),
			other:      rapid.Bool().Draw(t, "other"),
			left:       time.Duration(rapid.Int64().Draw(t, "left")),
			random:     rapid.Float64Range(0, 0.999).Draw(t, "random"),
			pushback: pushback{
				asked: rapid.Bool().Draw(t, "asked"),
				after: time.Duration(rapid.Int64Min(0).Draw(t, "after")),
			},
		}
		wait, ok := again(policy(), m)
		switch {
		case !ok:
			return
		case m.attempts >= 3:
			t.Errorf("a try after the last: %+v", m)
		case !m.idempotent && m.fate != refused:
			t.Errorf("what may have been done is done again: %+v", m)
		case wait < 0 || wait >= m.left-time.Millisecond || m.left < 0:
			t.Errorf("a wait of %v, with %v left", wait, m.left)
		case wait > DefaultMaxAfter+retry.DefaultMax:
			t.Errorf("a wait of %v", wait)
		case !m.other && m.pushback.asked && wait < m.pushback.after:
			t.Errorf("back after %v, asked for %v", wait, m.pushback.after)
		}
	})
}
