package concurrency

import (
	"context"
	"fmt"
	"strings"
)

// Priority says how much a call matters when there are too many. The zero value
// is Normal. Values outside of Low to Critical count as the nearest of them.
type Priority int8

// The priorities, from the one that is refused first.
const (
	Low      Priority = iota - 1 // may wait or fail: a batch, a prefetch, a crawler
	Normal                       // everything that says nothing
	Critical                     // must come through: a payment, a login
)

// Header carries a call's priority from service to service, in words: see
// [ParsePriority]. Strangers may write anything into it, so whoever faces them
// replaces it.
const Header = "X-Request-Priority"

// priorities is how many there are.
const priorities = int(Critical-Low) + 1

var priorityNames = [priorities]string{"low", "normal", "critical"}

// index returns p's place in an array over all priorities.
func (p Priority) index() int { return int(min(max(p, Low), Critical) - Low) }

// String returns "low", "normal" or "critical".
func (p Priority) String() string { return priorityNames[p.index()] }

// MarshalText writes the priority as String does.
func (p Priority) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what [ParsePriority] reads.
func (p *Priority) UnmarshalText(text []byte) error {
	parsed, err := ParsePriority(string(text))
	if err == nil {
		*p = parsed
	}
	return err
}

// ParsePriority reads "low", "normal" or "critical", in whatever case. For
// everything else the error says so, and the priority is Normal.
func ParsePriority(s string) (Priority, error) {
	for i, name := range priorityNames {
		if strings.EqualFold(s, name) {
			return Priority(i) + Low, nil
		}
	}
	return Normal, fmt.Errorf("concurrency: unknown priority %.20q: use low, normal or critical", s)
}

type priorityKey struct{}

// ContextWithPriority returns ctx with the priority of what is done in it, for
// the calls that are made on the way.
func ContextWithPriority(ctx context.Context, p Priority) context.Context {
	return context.WithValue(ctx, priorityKey{}, p)
}

// PriorityFrom returns the priority of what is done in ctx; Normal if nobody said.
func PriorityFrom(ctx context.Context) Priority {
	p, _ := ctx.Value(priorityKey{}).(Priority)
	return p
}
