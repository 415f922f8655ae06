package process

import (
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	const rest = " 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 20"
	tests := []struct {
		name, in string
		want     status
		fails    bool
	}{
		{name: "plain", in: "42 (sleep) S" + rest, want: status{start: "98765", pgid: 77}},
		{name: "zombie", in: "42 (sleep) Z" + rest, want: status{start: "98765", pgid: 77, zombie: true}},
		{name: "hostile name", in: "42 (a) Z 1 1 (\n) S" + rest, want: status{start: "98765", pgid: 77}},
		{name: "no name", in: "42 sleep S" + rest, fails: true},
		{name: "cut short", in: "42 (sleep) S 1 77 77", fails: true},
		{name: "start no number", in: strings.Replace("42 (sleep) S"+rest, "98765", "soon", 1), fails: true},
		{name: "group no number", in: strings.Replace("42 (sleep) S"+rest, "77", "x", 1), fails: true},
		{name: "empty", in: "", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseStat([]byte(tt.in))
			if (err != nil) != tt.fails || got != tt.want {
				t.Errorf("parseStat(%q) = %+v, %v; want %+v, failing %t", tt.in, got, err, tt.want, tt.fails)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (sleep) S 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 20"))
	f.Add([]byte("1 ()) Z"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseStat(b); err == nil && s.start == "" {
			t.Errorf("parseStat(%q) has no start time and no error", b)
		}
	})
}
