package embedded

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// serverLog gives the server's warnings and errors to slog and drops the rest.
// It keeps the first fatal message: the server reports by it, and only by it,
// why it could not start.
type serverLog struct {
	log     *slog.Logger
	secrets *strings.Replacer

	mu    sync.Mutex
	fatal string
}

func newServerLog(s *settings) *serverLog {
	return &serverLog{
		log:     s.Logger,
		secrets: strings.NewReplacer(s.password, "[redacted]", s.system, "[redacted]"),
	}
}

func (l *serverLog) text(format string, v []any) string {
	return l.secrets.Replace(strings.TrimSpace(fmt.Sprintf(format, v...)))
}

func (l *serverLog) Noticef(string, ...any) {}
func (l *serverLog) Debugf(string, ...any)  {}
func (l *serverLog) Tracef(string, ...any)  {}

func (l *serverLog) Warnf(format string, v ...any) {
	// Said of any password not given as a bcrypt hash. Ours never touch a disk
	// and a hash would cost every connection its time.
	if strings.HasPrefix(format, "Plaintext passwords detected") {
		return
	}
	l.log.Warn("engine", "message", l.text(format, v))
}

func (l *serverLog) Errorf(format string, v ...any) {
	l.log.Error("engine", "message", l.text(format, v))
}

func (l *serverLog) Fatalf(format string, v ...any) {
	text := l.text(format, v)
	l.mu.Lock()
	first := l.fatal == ""
	if first {
		l.fatal = text
	}
	l.mu.Unlock()
	if !first {
		l.log.Error("engine", "message", text)
	}
}

// failure is the fatal message, if there was one.
func (l *serverLog) failure() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}
