package telemetry

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestJSONLog(t *testing.T) {
	t.Parallel()
	trace, _ := ParseTraceparent(parent)
	ctx := ContextWithRequestID(ContextWithTrace(t.Context(), trace), "r1")
	ids := map[string]any{"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331", "request_id": "r1"}

	cases := []struct {
		name string
		log  func(*slog.Logger)
		want map[string]any // beyond the ids and the service
	}{
		{"plain", func(l *slog.Logger) { l.InfoContext(ctx, "m", "k", 1) }, map[string]any{"k": 1.0}},
		{"with attributes", func(l *slog.Logger) { l.With("a", 1).InfoContext(ctx, "m", "k", 1) }, map[string]any{"a": 1.0, "k": 1.0}},
		{"in groups the ids stay on top", func(l *slog.Logger) {
			l.With("a", 1).WithGroup("g").With("b", 2).WithGroup("h").InfoContext(ctx, "m", "k", 1)
		}, map[string]any{"a": 1.0, "g": map[string]any{"b": 2.0, "h": map[string]any{"k": 1.0}}}},
		{"its own id is not doubled", func(l *slog.Logger) { l.InfoContext(ctx, "m", "request_id", "r1") }, map[string]any{}},
		{"nameless group, no attributes", func(l *slog.Logger) {
			slog.New(l.Handler().WithGroup("").WithAttrs(nil)).InfoContext(ctx, "m")
		}, map[string]any{}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			tel, err := open(Config{Service: "s", Version: "1", Instance: "i", Output: &out}, env())
			if err != nil {
				t.Fatal(err)
			}
			c.log(tel.Logger())
			if n := strings.Count(out.String(), `"request_id"`); n != 1 {
				t.Errorf("request_id is there %d times: %s", n, &out)
			}
			var got map[string]any
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v: %s", err, &out)
			}
			delete(got, "time")
			want := map[string]any{"level": "INFO", "msg": "m", "service.name": "s", "service.version": "1", "service.instance.id": "i"}
			for _, m := range []map[string]any{ids, c.want} {
				for k, v := range m {
					want[k] = v
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got): %s", diff)
			}
		})
	}
}

func TestGroupsDoNotMix(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tel, err := open(Config{Output: &out}, env())
	if err != nil {
		t.Fatal(err)
	}
	ctx := ContextWithRequestID(t.Context(), "r1")
	base := tel.Logger().WithGroup("g").With("a", 1).With("b", 2) // three steps leave room for a fourth
	one, two := base.With("one", 1), base.With("two", 2)
	one.InfoContext(ctx, "m")
	two.InfoContext(ctx, "m")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || strings.Contains(lines[0], "two") || strings.Contains(lines[1], "one") {
		t.Errorf("one logger's attributes are in the other's record: %s", &out)
	}
}

func TestLogLevelAndNoContext(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tel, err := open(Config{Output: &out, LogLevel: slog.LevelWarn}, env())
	if err != nil {
		t.Fatal(err)
	}
	tel.Logger().Info("quiet")
	tel.Logger().Warn("loud")
	if s := out.String(); strings.Contains(s, "quiet") || !strings.Contains(s, "loud") || strings.Contains(s, "trace_id") {
		t.Errorf("log: %s", s)
	}
}

func TestLogFormat(t *testing.T) {
	t.Parallel()
	// A pseudo-terminal's master is a character device that nobody reads here.
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatalf("open a terminal: %v", err)
	}
	t.Cleanup(func() { tty.Close() })
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { null.Close() })
	file, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	for _, c := range []struct {
		name string
		file *os.File
		want bool
	}{{"terminal", tty, true}, {"null device", null, false}, {"file", file, false}} {
		if got := isTerminal(c.file); got != c.want {
			t.Errorf("isTerminal(%s) is %v", c.name, got)
		}
	}

	for _, c := range []struct {
		name, format  string
		terminal      bool
		env           []string
		json, colours bool
	}{
		{name: "auto off a terminal", json: true},
		{name: "auto on a terminal", terminal: true, colours: true},
		{name: "NO_COLOR", terminal: true, env: []string{"NO_COLOR", "1"}},
		{name: "empty NO_COLOR", terminal: true, env: []string{"NO_COLOR", ""}, colours: true},
		{name: "text off a terminal", format: "text"},
		{name: "json on a terminal", format: "json", terminal: true, json: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			resource := map[string]string{LogService: "s", LogVersion: "1"}
			log, err := newLogger(Config{LogFormat: c.format, Output: &out}, c.terminal, resource, env(c.env...))
			if err != nil {
				t.Fatal(err)
			}
			log.Info("hello", "k", "v")
			s := out.String()
			if json.Valid(out.Bytes()) != c.json || strings.Contains(s, "\x1b[") != c.colours {
				t.Errorf("log: %q", s)
			}
			if !c.json && !c.colours && !strings.Contains(s, "hello service.name=s k=v") {
				t.Errorf("log: %q", s)
			}
		})
	}
	if _, err := open(Config{LogFormat: "xml"}, env()); err == nil || !strings.Contains(err.Error(), `LogFormat "xml"`) {
		t.Errorf("error %v", err)
	}
}
