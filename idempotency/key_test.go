package idempotency_test

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keelson-go/keelson/idempotency"
)

func TestParseKey(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		values []string
		want   string // "!" for an error
	}{
		{nil, ""},
		{[]string{"8e03978e-40d5-43dd-bc93-6894a57f9324"}, "8e03978e-40d5-43dd-bc93-6894a57f9324"},
		{[]string{`"8e03978e-40d5-43dd-bc93-6894a57f9324"`}, "8e03978e-40d5-43dd-bc93-6894a57f9324"},
		{[]string{`"a\"b\\c"`}, `a"b\c`},
		{[]string{`a"b`}, `a"b`},
		{[]string{strings.Repeat("k", 255)}, strings.Repeat("k", 255)},
		{[]string{`"` + strings.Repeat(`\"`, 255) + `"`}, strings.Repeat(`"`, 255)},
		{[]string{strings.Repeat("k", 256)}, "!"},
		{[]string{""}, "!"},
		{[]string{`""`}, "!"},
		{[]string{`"`}, "!"},
		{[]string{`"a`}, "!"},
		{[]string{`"a\`}, "!"},
		{[]string{`"a\n"`}, "!"},
		{[]string{`"a";p=1`}, "!"},
		{[]string{`"a b"`}, "!"},
		{[]string{"a b"}, "!"},
		{[]string{"é"}, "!"},
		{[]string{"a\x00"}, "!"},
		{[]string{"a", "a"}, "!"},
	} {
		got, err := idempotency.ParseKey(tt.values)
		if err != nil {
			got = "!"
		}
		if got != tt.want || err != nil && !errors.Is(err, idempotency.ErrKey) {
			t.Errorf("%q: %q, %v", tt.values, got, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("key")
	f.Add(`"a\"b"`)
	f.Add(`"`)
	f.Fuzz(func(t *testing.T, value string) {
		key, err := idempotency.ParseKey([]string{value})
		if err != nil {
			return
		}
		if len(key) < 1 || len(key) > idempotency.MaxKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("%q is no key", key)
		}
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		if again, err := idempotency.ParseKey([]string{quoted}); again != key || err != nil {
			t.Errorf("%q in quotes is %q, %v", key, again, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	for _, a := range []idempotency.Answer{
		{}, {Status: 200, Omitted: true}, {Status: 201, Header: http.Header{"A": {"1", "\xff"}, "B": nil}, Body: []byte("body")},
	} {
		b, _ := a.MarshalBinary()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a, again idempotency.Answer
		if a.UnmarshalBinary(b) != nil {
			return
		}
		written, err := a.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalBinary(bytes.Clone(written)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(a, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
