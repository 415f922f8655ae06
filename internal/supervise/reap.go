//go:build unix

package supervise

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/keelson-go/keelson/internal/process"
)

// killWait is how long a killed group may take to disappear.
const killWait = 5 * time.Second

// Reap ends what is left of the children of an earlier run that was killed:
// the groups of those processes that are still running, and are still the very
// same. Each group gets SIGTERM, and SIGKILL after grace or when ctx ends. Reap
// returns the processes it has ended; it fails if it may not signal one, or one
// lives on.
func Reap(ctx context.Context, grace time.Duration, left ...process.ID) ([]process.ID, error) {
	left = slices.DeleteFunc(slices.Clone(left), func(id process.ID) bool { return !id.LeadsGroup() })
	if len(left) == 0 {
		return nil, nil
	}
	for _, id := range left {
		if err := process.SignalGroup(id.PID, syscall.SIGTERM); err != nil {
			return nil, fmt.Errorf("reap: %w", err)
		}
	}
	alive := func(id process.ID) bool { return process.GroupAlive(id.PID) }
	rest := awaitNone(ctx, grace, left, alive)
	for _, id := range rest {
		if err := process.SignalGroup(id.PID, syscall.SIGKILL); err != nil {
			return nil, fmt.Errorf("reap: %w", err)
		}
	}
	if rest = awaitNone(context.WithoutCancel(ctx), killWait, rest, alive); len(rest) > 0 {
		return nil, fmt.Errorf("reap: process %d does not end", rest[0].PID)
	}
	return left, nil
}

// awaitNone waits until none of ids is alive, ctx ends or the time is over,
// and returns those that are left.
func awaitNone(ctx context.Context, limit time.Duration, ids []process.ID, alive func(process.ID) bool) []process.ID {
	over := time.NewTimer(limit)
	defer over.Stop()
	tick := time.NewTicker(groupPoll)
	defer tick.Stop()
	ids = slices.Clone(ids)
	for {
		ids = slices.DeleteFunc(ids, func(id process.ID) bool { return !alive(id) })
		if len(ids) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-over.C:
			return ids
		case <-ctx.Done():
			return ids
		}
	}
}
