package telemetry

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strings"
)

// The headers of W3C Trace Context, in the form [http.Header] keys have.
const (
	HeaderTraceparent = "Traceparent"
	HeaderTracestate  = "Tracestate"
)

const (
	traceparentLen = 55 // of version 00

	flagSampled = 1
	flagRandom  = 2
)

// Trace is the trace context of one operation (W3C Trace Context, level 2): the
// trace it belongs to and its own span. The zero Trace is none. It is a value;
// copies are independent.
type Trace struct {
	TraceID [16]byte
	SpanID  [8]byte
	// Sampled says that the caller may have recorded its part.
	Sampled bool
	// Random says that the last 7 bytes of the trace id are random.
	Random bool
	// State is the tracestate: other systems' entries, passed on as they came.
	State string
}

// NewTrace starts a trace that is not sampled, with random ids. They are unique,
// not secret.
func NewTrace() Trace {
	t := Trace{Random: true, SpanID: newSpanID()}
	for t.TraceID == [16]byte{} {
		binary.NativeEndian.PutUint64(t.TraceID[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(t.TraceID[8:], rand.Uint64())
	}
	return t
}

func newSpanID() (id [8]byte) {
	for id == [8]byte{} {
		binary.NativeEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// Valid tells whether t is a trace: neither of its ids is all zeros.
func (t Trace) Valid() bool { return t.TraceID != [16]byte{} && t.SpanID != [8]byte{} }

// Child returns a new span of the same trace. The child of no trace is a new one.
func (t Trace) Child() Trace {
	if !t.Valid() {
		return NewTrace()
	}
	t.SpanID = newSpanID()
	return t
}

// TraceIDString returns the trace id as 32 hexadecimal digits.
func (t Trace) TraceIDString() string { return hex.EncodeToString(t.TraceID[:]) }

// SpanIDString returns the span id as 16 hexadecimal digits.
func (t Trace) SpanIDString() string { return hex.EncodeToString(t.SpanID[:]) }

// String returns the traceparent of t, of version 00. Its flags are those of
// level 2, sampled and random; others are 0.
func (t Trace) String() string {
	text := t.traceparent()
	return string(text[:])
}

// Append appends the traceparent of t to b.
func (t Trace) Append(b []byte) []byte {
	text := t.traceparent()
	return append(b, text[:]...)
}

func (t *Trace) traceparent() (text [traceparentLen]byte) {
	copy(text[:], "00-")
	putHex(text[3:11], t.TraceID[0:4])
	putHex(text[11:19], t.TraceID[4:8])
	putHex(text[19:27], t.TraceID[8:12])
	putHex(text[27:35], t.TraceID[12:16])
	text[35] = '-'
	putHex(text[36:44], t.SpanID[0:4])
	putHex(text[44:52], t.SpanID[4:8])
	flags := byte('0')
	if t.Sampled {
		flags |= flagSampled
	}
	if t.Random {
		flags |= flagRandom
	}
	text[52], text[53], text[54] = '-', '0', flags
	return text
}

func putHex(text, id []byte) {
	binary.LittleEndian.PutUint64(text, toHex(binary.LittleEndian.Uint32(id)))
}

// Inject sets the trace headers of an outgoing request, in place of any that are
// there. An invalid trace removes them.
func (t Trace) Inject(h http.Header) {
	if !t.Valid() {
		delete(h, HeaderTraceparent)
		delete(h, HeaderTracestate)
		return
	}
	h[HeaderTraceparent] = []string{t.String()}
	if t.State != "" {
		h[HeaderTracestate] = []string{t.State}
	} else {
		delete(h, HeaderTracestate)
	}
}

// ExtractTrace reads the trace headers of a request that came in. As the
// standard asks, there is none unless exactly one valid traceparent came, and a
// bad tracestate is dropped without harm to the traceparent.
func ExtractTrace(h http.Header) (Trace, bool) {
	parents := h[HeaderTraceparent]
	if len(parents) != 1 {
		return Trace{}, false
	}
	t, ok := ParseTraceparent(parents[0])
	if !ok {
		return Trace{}, false
	}
	if states := h[HeaderTracestate]; len(states) > 0 {
		t.State, _ = ParseTracestate(strings.Join(states, ","))
	}
	return t, true
}

// ParseTraceparent reads a traceparent header (W3C Trace Context level 2,
// section 3.2). Digits must be lower-case; ids of all zeros and version ff are
// invalid. Of a version yet to come, the part that looks like version 00 is
// read. The result's State is empty.
func ParseTraceparent(s string) (Trace, bool) {
	if len(s) < traceparentLen || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return Trace{}, false
	}
	var t Trace
	id1, bad1 := fromHex(word(s[3:11]))
	id2, bad2 := fromHex(word(s[11:19]))
	id3, bad3 := fromHex(word(s[19:27]))
	id4, bad4 := fromHex(word(s[27:35]))
	span1, bad5 := fromHex(word(s[36:44]))
	span2, bad6 := fromHex(word(s[44:52]))
	// Version and flags together, filled up with zeros.
	rest, bad7 := fromHex(uint64(s[0]) | uint64(s[1])<<8 | uint64(s[53])<<16 | uint64(s[54])<<24 | '0'*(everyByte>>32<<32))
	binary.LittleEndian.PutUint32(t.TraceID[0:], id1)
	binary.LittleEndian.PutUint32(t.TraceID[4:], id2)
	binary.LittleEndian.PutUint32(t.TraceID[8:], id3)
	binary.LittleEndian.PutUint32(t.TraceID[12:], id4)
	binary.LittleEndian.PutUint32(t.SpanID[0:], span1)
	binary.LittleEndian.PutUint32(t.SpanID[4:], span2)
	version, flags := byte(rest), byte(rest>>8)
	switch {
	case bad1|bad2|bad3|bad4|bad5|bad6|bad7 != 0,
		version == 0xff,
		version == 0 && len(s) != traceparentLen,
		len(s) > traceparentLen && s[traceparentLen] != '-',
		!t.Valid():
		return Trace{}, false
	}
	t.Sampled = flags&flagSampled != 0
	t.Random = flags&flagRandom != 0
	return t, true
}

// word loads eight characters, the first into the lowest byte.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

const (
	maxTracestate        = 512 // bytes; the standard asks for no more
	maxTracestateMembers = 32
)

// ParseTracestate checks a tracestate (W3C Trace Context level 2, section 3.3):
// at most 32 members with lower-case keys, no key twice. One of over 512 bytes is
// refused, which the standard allows. Empty members and blanks around members
// are left out of the result.
func ParseTracestate(s string) (string, bool) {
	if len(s) > maxTracestate {
		return "", false
	}
	var keys []string
	var clean strings.Builder
	for member := range strings.SplitSeq(s, ",") {
		member = strings.Trim(member, " \t")
		if member == "" {
			continue
		}
		key, value, ok := strings.Cut(member, "=")
		if !ok || !stateKey(key) || !stateValue(value) || len(keys) == maxTracestateMembers {
			return "", false
		}
		for _, k := range keys {
			if k == key {
				return "", false
			}
		}
		keys = append(keys, key)
		if clean.Len() > 0 {
			clean.WriteByte(',')
		}
		clean.WriteString(member)
	}
	return clean.String(), true
}

// stateKey: a lower-case letter or digit, then up to 255 of those and _-*/@.
func stateKey(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alphanumeric := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alphanumeric && (i == 0 || strings.IndexByte("_-*/@", c) < 0) {
			return false
		}
	}
	return true
}

// stateValue: up to 256 printable ASCII characters but comma and equals sign,
// not ending in a blank.
func stateValue(s string) bool {
	if s == "" || len(s) > 256 || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == ',' || c == '=' {
			return false
		}
	}
	return true
}

type (
	traceKey     struct{}
	requestIDKey struct{}
)

// TraceContext is a context that carries a trace; [ContextWithTrace] makes one.
// It is exported for code that has an allocation per request anyway and puts the
// context into it. Neither field may change once it is in use.
type TraceContext struct {
	context.Context
	Trace Trace
}

// Value returns the trace for TraceFrom, and the parent's values.
func (c *TraceContext) Value(key any) any {
	if _, ok := key.(traceKey); ok {
		return &c.Trace
	}
	return c.Context.Value(key)
}

// ContextWithTrace returns a context that carries t, for logs and for requests
// sent on behalf of it.
func ContextWithTrace(ctx context.Context, t Trace) context.Context {
	return &TraceContext{Context: ctx, Trace: t}
}

// TraceFrom returns the trace ctx carries, and whether it is a valid one.
func TraceFrom(ctx context.Context) (Trace, bool) {
	if t, ok := ctx.Value(traceKey{}).(*Trace); ok && t.Valid() {
		return *t, true
	}
	return Trace{}, false
}

// ContextWithRequestID returns a context that carries the id of the request
// being served.
func ContextWithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the id of the request ctx belongs to, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
