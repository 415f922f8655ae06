package client

import (
	"net/http"
	"strconv"
	"time"

	"github.com/keelson-go/keelson/retry"
)

// fate is how one try ended and, for the last one, how the whole call did.
type fate uint8

const (
	abandoned fate = iota // it never ended: a panic goes up
	answered              // an answer that is none of the next four
	throttled             // 429: this caller asks too often
	shed                  // it has too much to do and says when to come back
	faulty                // 500, 502, 503, 504, gRPC's UNAVAILABLE: another try may do better
	hopeless              // another 5xx: failed, and would fail again
	refused               // no connection: nothing was sent
	broken                // the connection broke before an answer
	late                  // no answer within the AttemptTimeout or the TotalTimeout
	overdue               // the caller's time is over, after a wait that is long for this service
	impatient             // the caller's time is over, sooner than answers may be expected
	gone                  // the caller has cancelled
	lost                  // another try of the same race has answered first
	fates
)

// repeat says for which requests a fate may be followed by another try.
type repeat uint8

const (
	never     repeat = iota
	idemponly        // those that may safely be done twice
	always           // all: nothing was sent
)

// verdict is what a fate means to somebody who counts.
type verdict uint8

const (
	neutral verdict = iota // says nothing
	good
	bad
	overload // to the limiter: fewer at a time would be better
)

// meaning is what follows from a fate, and for whom.
type meaning struct {
	repeat   repeat
	balancer verdict // to the picker, which then sends less there; neutral counts the time only
	detector verdict // to the outlier detector, which takes sick instances out
	breaker  verdict // to the service's breaker, if it is the fate of the whole call
	limiter  verdict // to the limiter, likewise; good is a sample of the latency
	reason   string  // of the retry, in [Stats]
}

// meanings is the whole of the policy about who learns what.
//
// An instance that sheds load is alive and helps itself: the balancer sends less
// there, but to take it out would put its load on the others, and to open the breaker
// would turn an overload into an outage. A caller that is too fast (429) or leaves says
// nothing about the instance. A caller whose time is over does, if it has waited for
// long as this service goes; else a caller in a hurry could take healthy instances out.
var meanings = [fates]meaning{
	abandoned: {never, neutral, neutral, neutral, neutral, ""},
	answered:  {never, good, good, good, good, ""},
	throttled: {idemponly, good, neutral, good, neutral, "throttled"},
	shed:      {idemponly, bad, neutral, good, overload, "overloaded"},
	faulty:    {idemponly, bad, bad, bad, neutral, "failed"},
	hopeless:  {never, bad, bad, bad, neutral, ""},
	refused:   {always, bad, bad, bad, neutral, "refused"},
	broken:    {idemponly, bad, bad, bad, neutral, "broken"},
	late:      {idemponly, bad, bad, bad, overload, "timeout"},
	overdue:   {never, neutral, bad, bad, overload, ""},
	impatient: {never, neutral, neutral, neutral, neutral, ""},
	gone:      {never, neutral, neutral, neutral, neutral, ""},
	lost:      {never, neutral, neutral, neutral, neutral, ""},
}

func (f fate) means() *meaning { return &meanings[f] }

// wins reports whether an answer of that fate ends a race at once. Any other may be
// bettered by the try that is still under way.
func (f fate) wins() bool { return f == answered }

// gRPC's codes that mean an instance can't take the call.
const (
	grpcResourceExhausted = "8"
	grpcUnavailable       = "14"
)

// fateOfAnswer looks at an answer's head. A gRPC call that fails before it answered
// anything has its status there too, beside a 200.
func fateOfAnswer(status int, h http.Header) fate {
	switch status {
	case http.StatusOK:
		switch grpcStatus(h) {
		case grpcUnavailable:
			return faulty
		case grpcResourceExhausted:
			return shed
		}
		return answered
	case http.StatusTooManyRequests:
		return throttled
	case http.StatusServiceUnavailable:
		if h["Retry-After"] != nil {
			return shed
		}
		return faulty
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusGatewayTimeout:
		return faulty
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return answered // about the request, not about the instance
	}
	if status >= 500 {
		return hopeless
	}
	return answered
}

func grpcStatus(h http.Header) string {
	if v := h["Grpc-Status"]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// pushback is what an answer says about when to come back.
type pushback struct {
	asked bool
	never bool // do not
	after time.Duration
}

// pushbackOf reads Retry-After, and Grpc-Retry-Pushback-Ms (gRFC A6), in which
// anything but a number that is not negative means never.
func pushbackOf(h http.Header, now time.Time) pushback {
	if v := h["Grpc-Retry-Pushback-Ms"]; len(v) > 0 {
		ms, err := strconv.ParseUint(v[0], 10, 31)
		return pushback{asked: true, never: err != nil, after: time.Duration(ms) * time.Millisecond}
	}
	if v := h["Retry-After"]; len(v) > 0 {
		if d, ok := retry.ParseRetryAfter(v[0], now); ok {
			return pushback{asked: true, after: d}
		}
	}
	return pushback{}
}

// longWait is the least wait after which a caller whose time is over says something
// about the service. The p95 alone does not: a service has slower routes than most of
// its calls show, and callers in a hurry on those could have it taken for broken.
const longWait = time.Second

// fateOfError says how a try without an answer ended. waited is for how long; usual is
// what nearly all answers of the service take at most, 0 if that is not known.
func fateOfError(k Kind, own bool, waited, usual time.Duration) fate {
	switch k {
	case Refused:
		return refused
	case Canceled:
		return gone
	case Timeout:
		switch {
		case own:
			return late
		case waited >= max(usual, longWait):
			return overdue
		}
		return impatient
	}
	return broken
}

// idempotent reports whether a request may be done twice: by its method (RFC 9110,
// section 9.2.2), or because its key lets the instances recognise it.
func idempotent(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return req.Header["Idempotency-Key"] != nil
}
