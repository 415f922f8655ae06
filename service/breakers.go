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

// report is what /health shows.
func (b *breakers) report() map[string]any {
	b.mu.Lock()
	all := maps.Clone(b.byName)
	b.mu.Unlock()
	shown := map[string]any{}
	for name, one := range all {
		shown[name] = one.Snapshot()
	}
	return shown
}
