package client

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFateOfAnswer(t *testing.T) {
	t.Parallel()
	soon := http.Header{"Retry-After": {"1"}}
	for _, tt := range []struct {
		status int
		header http.Header
		want   fate
	}{
		{200, nil, answered},
		{204, nil, answered},
		{301, nil, answered},
		{404, nil, answered},
		{408, nil, answered},
		{429, nil, throttled},
		{429, soon, throttled},
		{500, nil, faulty},
		{500, soon, faulty},
		{501, nil, answered},
		{502, nil, faulty},
		{503, nil, faulty},
		{503, soon, shed},
		{504, nil, faulty},
		{505, nil, answered},
		{507, nil, hopeless},
		{599, nil, hopeless},
		{200, http.Header{"Grpc-Status": {"0"}}, answered},
		{200, http.Header{"Grpc-Status": {"5"}}, answered},
		{200, http.Header{"Grpc-Status": {"8"}}, shed},
		{200, http.Header{"Grpc-Status": {"14"}}, faulty},
		{200, http.Header{"Grpc-Status": {}}, answered},
		{404, http.Header{"Grpc-Status": {"14"}}, answered},
	} {
		if got := fateOfAnswer(tt.status, tt.header); got != tt.want {
			t.Errorf("%d %v: fate %d, want %d", tt.status, tt.header, got, tt.want)
		}
	}
}

func TestFateOfError(t *testing.T) {
	t.Parallel()
	const waited = time.Second
	for _, tt := range []struct {
		kind  Kind
		own   bool
		usual time.Duration
		want  fate
	}{
		{Refused, false, 0, refused},
		{Broken, false, 0, broken},
		{Canceled, false, 0, gone},
		{Timeout, true, 0, late},
		{Timeout, true, time.Minute, late},
		{Timeout, false, 0, overdue}, // nothing is known: it counts, or a service that hangs from the start would never be found out
		{Timeout, false, waited, overdue},
		{Timeout, false, waited + 1, impatient},
	} {
		if got := fateOfError(tt.kind, tt.own, waited, tt.usual); got != tt.want {
			t.Errorf("%v (own %v, usual %v): fate %d, want %d", tt.kind, tt.own, tt.usual, got, tt.want)
		}
	}
	// However fast the service usually is: its slow routes are not in its p95.
	if got := fateOfError(Timeout, false, waited-1, time.Millisecond); got != impatient {
		t.Errorf("a short wait is fate %d", got)
	}
}

// What must hold of the table whatever is changed in it.
func TestMeanings(t *testing.T) {
	t.Parallel()
	for f := range fates {
		m := f.means()
		if (m.repeat != never) != (m.reason != "") {
			t.Errorf("fate %d: a retry needs a reason to be counted by, and only a retry does: %+v", f, *m)
		}
		if m.detector == bad && m.breaker != bad {
			t.Errorf("fate %d: what is bad enough to eject an instance is a failed call: %+v", f, *m)
		}
		if m.repeat == always && f != refused {
			t.Errorf("fate %d: only what was not sent may be repeated whatever it is", f)
		}
	}
	for _, f := range []fate{gone, impatient, lost, abandoned} {
		if m := f.means(); m.repeat != never || m.balancer == bad || m.detector != neutral || m.breaker != neutral || m.limiter != neutral {
			t.Errorf("fate %d says nothing about anybody, but means %+v", f, *m)
		}
	}
	for _, f := range []fate{shed, throttled} {
		if m := f.means(); m.breaker == bad || m.detector == bad {
			t.Errorf("fate %d: an overload must not become an outage: %+v", f, *m)
		}
	}
}

func TestPushbackOf(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		header http.Header
		want   pushback
	}{
		{nil, pushback{}},
		{http.Header{"Retry-After": {"2"}}, pushback{asked: true, after: 2 * time.Second}},
		{http.Header{"Retry-After": {"Sun, 22 Nov 2026 12:00:03 GMT"}}, pushback{asked: true, after: 3 * time.Second}},
		{http.Header{"Retry-After": {"soon"}}, pushback{}},
		{http.Header{"Retry-After": {}}, pushback{}},
		{http.Header{"Grpc-Retry-Pushback-Ms": {"250"}}, pushback{asked: true, after: 250 * time.Millisecond}},
		{http.Header{"Grpc-Retry-Pushback-Ms": {"-1"}}, pushback{asked: true, never: true}},
		{http.Header{"Grpc-Retry-Pushback-Ms": {"x"}, "Retry-After": {"1"}}, pushback{asked: true, never: true}},
		{http.Header{"Grpc-Retry-Pushback-Ms": {"99999999999999"}}, pushback{asked: true, never: true, after: (1<<31 - 1) * time.Millisecond}},
	} {
		if diff := cmp.Diff(tt.want, pushbackOf(tt.header, now), cmp.AllowUnexported(pushback{})); diff != "" {
			t.Errorf("%v: (-want +got)\n%s", tt.header, diff)
		}
	}
}

func FuzzPushbackOf(f *testing.F) {
	f.Add("1", "")
	f.Add("Sun, 22 Nov 2026 12:00:03 GMT", "-5")
	f.Fuzz(func(t *testing.T, after, ms string) {
		for _, h := range []http.Header{{"Retry-After": {after}}, {"Grpc-Retry-Pushback-Ms": {ms}}} {
			if p := pushbackOf(h, time.Now()); p.after < 0 || !p.asked && (p.never || p.after != 0) {
				t.Errorf("%v: %+v", h, p)
			}
		}
	})
}

func TestChoose(t *testing.T) {
	t.Parallel()
	fine := outcome{resp: new(http.Response), fate: answered}
	sick := outcome{resp: new(http.Response), fate: faulty}
	none := outcome{err: errLate, fate: broken}
	for _, tt := range []struct {
		name          string
		first, second outcome
		want          int
	}{
		{"both answer", fine, fine, 0},
		{"the first answers", fine, sick, 0},
		{"the second answers", sick, fine, 1},
		{"the second answers, the first broke", none, fine, 1},
		{"both fail with an answer", sick, sick, 0},
		{"an answer, even a failure, is better than none", none, sick, 1},
		{"the same the other way round", sick, none, 0},
		{"no answer at all", none, none, 0},
	} {
		if got := choose(tt.first, tt.second); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestHedgeable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method string
		header http.Header
		body   bool
		want   bool
	}{
		{"GET", nil, false, true},
		{"", nil, false, true},
		{"HEAD", nil, false, true},
		{"OPTIONS", nil, false, true},
		{"GET", nil, true, false},
		{"PUT", nil, false, false},
		{"DELETE", nil, false, false},
		{"POST", http.Header{"Idempotency-Key": {"1"}}, false, false},
		{"GET", http.Header{"Accept": {"text/html, */*"}}, false, true},
		{"GET", http.Header{"Accept": {"text/event-stream"}}, false, false},
		{"GET", http.Header{"Accept": {"text/html", "text/event-stream;q=0.5"}}, false, false},
		{"GET", http.Header{"Upgrade": {"websocket"}}, false, false},
	} {
		req := &http.Request{Method: tt.method, Header: tt.header}
		if tt.body {
			req.Body = new(attempt)
		}
		if got := hedgeable(req); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
