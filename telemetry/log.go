package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"github.com/lmittmann/tint"
)

// newLogger builds the process's logger. In JSON each record tells the service,
// its version and its instance; text is read by a person who knows what he
// started, and gets the service alone.
func newLogger(cfg Config, terminal bool, resource map[string]string, getenv func(string) string) (*slog.Logger, error) {
	format := cfg.LogFormat
	if format == "" {
		format = "json"
		if terminal {
			format = "text"
		}
	}
	var h slog.Handler
	names := []string{LogService}
	switch format {
	case "json":
		h = slog.NewJSONHandler(cfg.Output, &slog.HandlerOptions{Level: cfg.LogLevel})
		names = append(names, LogVersion, LogInstance)
	case "text":
		h = tint.NewTextHandler(cfg.Output, &tint.Options{Level: cfg.LogLevel, NoColor: !terminal || getenv("NO_COLOR") != ""})
	default:
		return nil, fmt.Errorf("LogFormat %q is not known: set json, text, or nothing for text on a terminal and json elsewhere", cfg.LogFormat)
	}
	var attrs []slog.Attr
	for _, name := range names {
		if value := resource[name]; value != "" {
			attrs = append(attrs, slog.String(name, value))
		}
	}
	return slog.New(NewLogHandler(h.WithAttrs(attrs))), nil
}

// isTerminal tells whether somebody is likely to watch w: a character device
// that is not the null device.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// NewLogHandler returns a handler that adds trace_id, span_id and request_id from
// the record's context to what next gets, always at the top level, whatever
// groups are open. An attribute the record has already, outside groups, is not
// added again. It is as safe for concurrent use as next.
func NewLogHandler(next slog.Handler) slog.Handler {
	return &contextHandler{next: next, top: next}
}

type contextHandler struct {
	next slog.Handler
	// top is the handler before the first group, and inside is what has been
	// done to it since, for records that get attributes at the top level.
	top    slog.Handler
	inside []func(slog.Handler) slog.Handler
}

func (h *contextHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *contextHandler) Handle(ctx context.Context, record slog.Record) error {
	attrs := contextAttrs(ctx)
	if len(attrs) == 0 {
		return h.next.Handle(ctx, record)
	}
	if len(h.inside) == 0 {
		record.Attrs(func(a slog.Attr) bool {
			attrs = slices.DeleteFunc(attrs, func(own slog.Attr) bool { return own.Key == a.Key })
			return true
		})
		record = record.Clone()
		record.AddAttrs(attrs...)
		return h.next.Handle(ctx, record)
	}
	next := h.top.WithAttrs(attrs)
	for _, f := range h.inside {
		next = f(next)
	}
	return next.Handle(ctx, record)
}

func (h *contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	next := h.next.WithAttrs(attrs)
	if len(h.inside) == 0 {
		return &contextHandler{next: next, top: next}
	}
	return h.step(next, func(in slog.Handler) slog.Handler { return in.WithAttrs(attrs) })
}

func (h *contextHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.step(h.next.WithGroup(name), func(in slog.Handler) slog.Handler { return in.WithGroup(name) })
}

func (h *contextHandler) step(next slog.Handler, f func(slog.Handler) slog.Handler) slog.Handler {
	return &contextHandler{next: next, top: h.top, inside: append(slices.Clip(h.inside), f)}
}

func contextAttrs(ctx context.Context) []slog.Attr {
	if ctx == nil {
		return nil
	}
	var attrs []slog.Attr
	if t, ok := TraceFrom(ctx); ok {
		attrs = append(attrs, slog.String(LogTraceID, t.TraceIDString()), slog.String(LogSpanID, t.SpanIDString()))
	}
	if id := RequestID(ctx); id != "" {
		attrs = append(attrs, slog.String(LogRequestID, id))
	}
	return attrs
}
