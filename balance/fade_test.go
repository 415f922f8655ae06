package balance

import (
	"math"
	"testing"
	"time"
)

func TestFade(t *testing.T) {
	t.Parallel()
	for age := -time.Second; age < 10*time.Minute; age += 97 * time.Millisecond {
		want := math.Exp2(-float64(max(age, 0)) / float64(halfLife))
		want = max(want, math.Exp2(-60))
		got := fade(int64(age))
		if got < want*0.93 || got > want*1.07 {
			t.Fatalf("fade(%v) = %g, want %g", age, got, want)
		}
		if next := fade(int64(age + time.Millisecond)); next > got {
			t.Fatalf("fade rises at %v: %g, then %g", age, got, next)
		}
	}
	if got := fade(math.MaxInt64); got != math.Exp2(-60) {
		t.Errorf("fade of an endless time = %g, want 2^-60", got)
	}
	if got := fade(int64(2 * halfLife)); got != 0.25 {
		t.Errorf("fade of two half-lives = %g, want 0.25", got)
	}
}
