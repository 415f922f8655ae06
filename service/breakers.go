package service

import (
	"maps"
	"sync"

	"github.com/keelson-go/keelson/breaker"
)

// breakers are the circuit breakers of a service by name.
type breakers struct {
	mu     sync.Mutex
	byName map[string]*breaker.Breaker
}

func (b *breakers) get(name string, opts []breaker.Option) (*breaker.Breaker, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if have := b.byName[name]; have != nil {
		return have, nil
	}
	made, err := breaker.New(name, opts...)
	if err != nil {
		return nil, err
	}
	if b.byName == nil {
		b.byName = map[string]*breaker.Breaker{}
	}
	b.byName[name] = made
	return made, nil
}

// report is what /health shows: the breakers of a service, and those of its client
// for the services it calls, unless there is one of that name already.
func (b *breakers) report(calls map[string]breaker.Snapshot) map[string]breaker.Snapshot {
	b.mu.Lock()
	own := maps.Clone(b.byName)
	b.mu.Unlock()
	for name, one := range own {
		calls[name] = one.Snapshot()
	}
	return calls
}
