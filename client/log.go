package client

import (
	"context"
	"log/slog"

	"github.com/keelson-go/keelson/breaker"
	"github.com/keelson-go/keelson/outlier"
)

// WithLogger has log told what changes by itself: a breaker that opens or closes, an
// instance that is ejected or back. It takes the place of [WithBreakerChange] and
// [WithOutlierChange]; of them the last one counts.
func WithLogger(log *slog.Logger) Option {
	return func(s *settings) {
		s.onBreaker = func(c breaker.Change) {
			level := slog.LevelInfo
			switch c.To {
			case breaker.Open:
				level = slog.LevelWarn
			case breaker.HalfOpen: // it comes after each open time, and says nothing yet
				level = slog.LevelDebug
			}
			log.Log(context.Background(), level, "circuit breaker", "upstream", c.Name, "state", c.To.String(), "was", c.From.String())
		}
		s.onOutlier = func(service string, c outlier.Change) {
			level := slog.LevelInfo
			attrs := []any{"upstream", service, "instance", c.ID, "state", c.Kind.String(), "reason", c.Reason.String()}
			switch c.Kind {
			case outlier.Ejected:
				level = slog.LevelWarn
				attrs = append(attrs, "until", c.Until)
			case outlier.Probing:
				level = slog.LevelDebug
			}
			log.Log(context.Background(), level, "outlier", attrs...)
		}
	}
}
