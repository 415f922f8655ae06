package natsidempotency

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func FuzzRecord(f *testing.F) {
	f.Add([]byte{})
	f.Add(record{Owner: "me"}.encode())
	f.Add(record{Owner: "me", Room: room}.encode())
	f.Add(record{Owner: "me", Completed: true, Answer: []byte("answer")}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decode(b)
		if err != nil {
			return
		}
		if !bytes.Equal(r.encode(), b) {
			t.Errorf("%x was read as %+v", b, r)
		}
		again, err := decode(r.encode())
		if diff := cmp.Diff(r, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	})
}

// The server would cut 1.9 s to 1 s, and then two would hold one key.
func TestSecondsRoundUp(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]time.Duration{
		0: time.Second, time.Millisecond: time.Second, time.Second: time.Second, time.Second + 1: 2 * time.Second, 1900 * time.Millisecond: 2 * time.Second, time.Hour: time.Hour,
	} {
		if got := seconds(d); got != want {
			t.Errorf("%v is %v, want %v", d, got, want)
		}
	}
}
