package deadline

import (
	"context"
	"fmt"
	"time"
)

// Attribute is the name of the extension attribute (CloudEvents 1.0) that tells
// until when a message is worth handling: RFC 3339 with milliseconds, in UTC, like
// "2026-11-22T21:04:05.250Z".
const Attribute = "deadline"

const (
	messageLayout = "2006-01-02T15:04:05.000Z"
	// A time with nanoseconds and an offset has 35 characters.
	maxMessage = 64
)

// ToMessage tells ctx's deadline to whoever handles the message, by one call of set
// with [Attribute] and the time, cut to whole milliseconds. Without a deadline it does
// nothing. A context that is about to end makes a message that nobody handles: give
// one of the message's own.
func ToMessage(ctx context.Context, set func(name, value string)) {
	at, ok := ctx.Deadline()
	if !ok {
		return
	}
	at = at.UTC()
	if y := at.Year(); y < 0 || y > 9999 {
		return // RFC 3339 has no such year, and it is as good as none
	}
	var buf [32]byte // AppendFormat needs more than the result for a moment
	set(Attribute, string(at.AppendFormat(buf[:0], messageLayout)))
}

// FromMessage returns ctx with the deadline of a message, whose attributes get
// returns, "" for one it has not. Without one, ctx itself comes back. The earlier of
// ctx's deadline and the message's holds.
//
// If the message's time is over the error is [ErrOver]: drop it, or park it where a
// person sees it. Another error means that the attribute is no time; then nothing is
// known, and the message may be handled as one without a deadline. In either case the
// context is ctx itself. The CancelFunc is never nil and is to be called when the
// message has been handled.
func FromMessage(ctx context.Context, get func(name string) string) (context.Context, context.CancelFunc, error) {
	text := get(Attribute)
	if text == "" {
		return ctx, nothing, nil
	}
	at, err := parseTime(text)
	if err != nil {
		return ctx, nothing, err
	}
	if time.Until(at) <= 0 {
		return ctx, nothing, ErrOver
	}
	bounded, cancel := context.WithDeadline(ctx, at)
	return bounded, cancel, nil
}

func nothing() {}

func parseTime(text string) (time.Time, error) {
	var at time.Time
	if len(text) > maxMessage || at.UnmarshalText([]byte(text)) != nil {
		return at, fmt.Errorf("attribute %s is %.64q: write a time by RFC 3339, like 2026-11-22T21:04:05.250Z", Attribute, text)
	}
	return at, nil
}
