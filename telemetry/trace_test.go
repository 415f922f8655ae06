package telemetry

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseTraceparent(t *testing.T) {
	t.Parallel()
	const ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
	cases := []struct {
		name, in string
		want     string // "" for invalid
	}{
		{"not sampled", "00-" + ids + "-00", "00-" + ids + "-00"},
		{"sampled", "00-" + ids + "-01", "00-" + ids + "-01"},
		{"random", "00-" + ids + "-02", "00-" + ids + "-02"},
		{"unknown flags are dropped", "00-" + ids + "-ff", "00-" + ids + "-03"},
		{"future version", "cc-" + ids + "-01", "00-" + ids + "-01"},
		{"future version, more fields", "cc-" + ids + "-01-what-the-future-will-be-like", "00-" + ids + "-01"},
		{"future version, empty field", "cc-" + ids + "-01-", "00-" + ids + "-01"},
		{"future version, other text", "cc-" + ids + "-01.what", ""},
		{"version 00 with more fields", "00-" + ids + "-01-what", ""},
		{"version 00 with a hyphen more", "00-" + ids + "-01-", ""},
		{"version ff", "ff-" + ids + "-01", ""},
		{"version upper-case", "CC-" + ids + "-01", ""},
		{"version no digit", "0g-" + ids + "-01", ""},
		{"trace id all zeros", "00-00000000000000000000000000000000-b7ad6b7169203331-01", ""},
		{"span id all zeros", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", ""},
		{"trace id upper-case", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", ""},
		{"span id no digit", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333.-01", ""},
		{"flags no digit", "00-" + ids + "-0x", ""},
		{"flags upper-case", "00-" + ids + "-0F", ""},
		{"underscores", "00_" + strings.ReplaceAll(ids, "-", "_") + "_01", ""},
		{"short", "00-" + ids + "-0", ""},
		{"empty", "", ""},
		{"blank before", " 00-" + ids + "-01", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, ok := ParseTraceparent(c.in)
			if ok != (c.want != "") {
				t.Fatalf("ok is %v", ok)
			}
			if ok && got.String() != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if !ok && got != (Trace{}) {
				t.Errorf("an invalid one left %+v", got)
			}
		})
	}
}

func FuzzParseTraceparent(f *testing.F) {
	f.Add(parent)
	f.Add("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more")
	f.Add("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("00-00000000000000000000000000000000-0000000000000000-00")
	f.Fuzz(func(t *testing.T, s string) {
		trace, ok := ParseTraceparent(s)
		if !ok {
			return
		}
		if !trace.Valid() || strings.HasPrefix(s, "ff") || trace.String()[2:53] != s[2:53] {
			t.Fatalf("%q was read as %s", s, trace)
		}
		if again, ok := ParseTraceparent(trace.String()); !ok || again != trace {
			t.Fatalf("%s does not come back: %s", trace, again)
		}
	})
}

func TestParseTracestate(t *testing.T) {
	t.Parallel()
	var many string
	for i := range 33 {
		many += string(rune('a'+i%26)) + string(rune('a'+i/26)) + "=1,"
	}
	cases := []struct{ name, in, want string }{
		{"one", "rojo=00f067aa0ba902b7", "rojo=00f067aa0ba902b7"},
		{"two and blanks", "rojo=1 ,\tcongo=t61rcWkgMzE", "rojo=1,congo=t61rcWkgMzE"},
		{"tenant", "fw529a3039@dt=FfD, 0a/*_-=1", "fw529a3039@dt=FfD,0a/*_-=1"},
		{"empty members", "a=1,,b=2,", "a=1,b=2"},
		{"nothing", "", ""},
		{"upper-case key", "Rojo=1", ""},
		{"key begins with a sign", "@a=1", ""},
		{"no value", "a=", ""},
		{"no equals sign", "a", ""},
		{"two equals signs", "a=b=c", ""},
		{"control character", "a=b\x01", ""},
		{"not ASCII", "a=é", ""},
		{"key twice", "a=1,a=2", ""},
		{"33 members", many, ""},
		{"32 members", many[:len(many)-5], many[:len(many)-6]},
		{"too long", "a=" + strings.Repeat("x", 200) + ",b=" + strings.Repeat("x", 200) + ",c=" + strings.Repeat("x", 200), ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got, _ := ParseTracestate(c.in); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzParseTracestate(f *testing.F) {
	f.Add("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")
	f.Add("a=1,, b=2 ,")
	f.Fuzz(func(t *testing.T, s string) {
		state, ok := ParseTracestate(s)
		if !ok && state != "" {
			t.Fatalf("refused and left %q", state)
		}
		if again, ok2 := ParseTracestate(state); ok && (!ok2 || again != state) {
			t.Fatalf("%q becomes %q", state, again)
		}
		if strings.ContainsAny(state, "\r\n\x00") || len(state) > maxTracestate {
			t.Fatalf("%q must not be sent", state)
		}
	})
}

func TestChild(t *testing.T) {
	t.Parallel()
	mother, _ := ParseTraceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03")
	mother.State = "a=1"
	child := mother.Child()
	if child.SpanID == mother.SpanID || !child.Valid() {
		t.Errorf("child is %s", child)
	}
	child.SpanID = mother.SpanID
	if diff := cmp.Diff(mother, child); diff != "" {
		t.Errorf("the child differs in more than its span: %s", diff)
	}
	if !(Trace{}).Child().Valid() {
		t.Error("the child of no trace is none")
	}
	if a, b := NewTrace(), NewTrace(); a.TraceID == b.TraceID || a.Sampled || !a.Random || !a.Valid() {
		t.Errorf("new traces: %s %s", a, b)
	}
}

func TestExtractAndInject(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		in   http.Header
		want http.Header // nil: no trace
	}{
		{"parent", http.Header{"Traceparent": {parent}}, http.Header{"Traceparent": {parent}}},
		{"states in two headers", http.Header{"Traceparent": {parent}, "Tracestate": {"a=1", "b=2"}}, http.Header{"Traceparent": {parent}, "Tracestate": {"a=1,b=2"}}},
		{"bad state", http.Header{"Traceparent": {parent}, "Tracestate": {"A"}}, http.Header{"Traceparent": {parent}}},
		{"two parents", http.Header{"Traceparent": {parent, parent}}, nil},
		{"state alone", http.Header{"Tracestate": {"a=1"}}, nil},
		{"bad parent", http.Header{"Traceparent": {"x"}, "Tracestate": {"a=1"}}, nil},
		{"nothing", http.Header{}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			trace, ok := ExtractTrace(c.in)
			if ok != (c.want != nil) {
				t.Fatalf("ok is %v", ok)
			}
			out := http.Header{"Traceparent": {"old"}, "Tracestate": {"old"}}
			trace.Inject(out)
			want := c.want
			if want == nil {
				want = http.Header{}
			}
			if diff := cmp.Diff(want, out); diff != "" {
				t.Errorf("injected (-want +got): %s", diff)
			}
		})
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	if _, ok := TraceFrom(t.Context()); ok {
		t.Error("a trace from nowhere")
	}
	if _, ok := TraceFrom(ContextWithTrace(t.Context(), Trace{})); ok {
		t.Error("the zero trace is none")
	}
	want := NewTrace()
	ctx, cancel := context.WithCancel(ContextWithRequestID(ContextWithTrace(t.Context(), want), "r1"))
	if got, ok := TraceFrom(ctx); !ok || got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := RequestID(ctx); got != "r1" {
		t.Errorf("request id %q", got)
	}
	if got := RequestID(t.Context()); got != "" {
		t.Errorf("request id %q from nowhere", got)
	}
	cancel()
	inner := ContextWithTrace(ctx, want.Child())
	if inner.Err() != context.Canceled {
		t.Error("the parent's end is not the child's")
	}
}
