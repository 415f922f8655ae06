package breaker_test

import (
	"context"
	"errors"
	"testing"

	"github.com/keelson-go/keelson/breaker"
)

func TestDoValue(t *testing.T) {
	t.Parallel()
	b := newBreaker(t, breaker.ConsecutiveFailures(1))
	tests := []struct {
		value string
		err   error
	}{{"whole", nil}, {"half", errDown}}
	for _, tt := range tests {
		v, err := breaker.Do(t.Context(), b, func(context.Context) (string, error) { return tt.value, tt.err })
		if v != tt.value || err != tt.err {
			t.Errorf("%q, %v; want %q, %v", v, err, tt.value, tt.err)
		}
	}
	v, err := breaker.Do(t.Context(), b, func(context.Context) (string, error) { return "called", nil })
	if v != "" || !errors.Is(err, breaker.ErrOpen) {
		t.Errorf("%q, %v; want a refusal and no value", v, err)
	}
	if m := b.Metrics(); m.Successes != 1 || m.Failures != 1 || m.Rejected != 1 {
		t.Errorf("%+v, want one of each", m)
	}
}
