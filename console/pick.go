package console

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/keelson-go/keelson/balance"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
)

// maxPickers bounds the pickers that are kept; one for consistent hashing may
// hold 256 KiB.
const maxPickers = 512

type (
	// pickerKey says what a picker is for. filter is "" without filters.
	pickerKey struct{ service, strategy, filter string }
	// choice is a picker and what it picks from, which is worked out once for each
	// state of the service: consistent hashing has a table for each set, too.
	choice struct {
		picker balance.Picker
		all    *balance.Set // the endpoints of the service
		some   *balance.Set // those that the filters leave
	}
)

// pickInput is read by Resolve, for the reasons filterInput has.
type pickInput struct {
	Name     string   `path:"name" doc:"The service's name"`
	Strategy string   `query:"strategy" doc:"How to choose; left out: the default one. An unknown one is answered with those there are"`
	Tag      []string `query:"tag,explode" doc:"Only instances with this tag; repeated, at most 32: with all of them"`
	Zone     string   `query:"zone" doc:"Only instances in this zone"`
	Key      string   `query:"key" doc:"What to choose by, such as a user's id, for strategies that give the same key the same instance"`

	filters []registry.Filter
	filter  string // the same, as text
}

// Resolve implements huma.Resolver.
func (in *pickInput) Resolve(ctx huma.Context) []error {
	q, err := queryOf(ctx)
	if err != nil {
		return []error{err}
	}
	in.Strategy, in.Key = q.Get("strategy"), q.Get("key")
	by := url.Values{}
	if q.Has("tag") {
		if by["tag"], err = tagsOf(q); err != nil {
			return []error{err}
		}
		in.filters = append(in.filters, registry.Tags(by["tag"]...))
	}
	if q.Has("zone") {
		by.Set("zone", q.Get("zone"))
		in.filters = append(in.filters, registry.Zone(by.Get("zone")))
	}
	in.filter = by.Encode()
	return nil
}

func (c *Console) pick(_ context.Context, in *pickInput) (*instanceOutput, error) {
	from, err := c.choice(pickerKey{in.Name, in.Strategy, in.filter}, in.filters)
	if err != nil {
		return nil, badQuery("strategy", "It is unknown: use one of "+strings.Join(balance.Strategies(), ", ")+".")
	}
	var chosen *balance.Endpoint
	if by, ok := from.picker.(balance.KeyPicker); ok && in.Key != "" {
		chosen = by.PickKey(from.some, in.Key)
	} else {
		chosen = from.picker.Pick(from.some)
	}
	if chosen != nil {
		if one, ok := c.config.Registry.Get(registry.Key{Service: in.Name, ID: chosen.ID}); ok {
			return &instanceOutput{c.stamp(one)}, nil
		}
	}
	return nil, problem.New(http.StatusServiceUnavailable, problem.CodeNoHealthyInstance, "No instance that is asked for is in rotation.")
}

// among returns the endpoints of those instances, with the load they have seen.
func among(set *balance.Set, instances []registry.Instance) *balance.Set {
	wanted := make(map[string]bool, len(instances))
	for _, in := range instances {
		wanted[in.ID] = true
	}
	var some []*balance.Endpoint
	for e := range set.All() {
		if wanted[e.ID] {
			some = append(some, e)
		}
	}
	return balance.NewSet(some)
}

// choice returns the picker of k, which remembers whose turn it is, and what it
// is to pick from. It is kept only if there is something.
func (c *Console) choice(k pickerKey, filters []registry.Filter) (choice, error) {
	c.mu.Lock()
	now, kept := c.choices[k]
	c.mu.Unlock()
	all := c.config.Registry.Endpoints(k.service)
	if kept && now.all == all {
		return now, nil
	}
	if !kept {
		var err error
		if now.picker, err = balance.New(k.strategy); err != nil {
			return now, err
		}
	}
	// Whatever changes in a service, also a tag, makes another set.
	now.all, now.some = all, all
	if len(filters) > 0 {
		now.some = among(all, c.config.Registry.Discover(k.service, filters...))
	}
	if !kept && now.some.Len() == 0 {
		return now, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other, ok := c.choices[k]; ok {
		now.picker = other.picker // somebody was faster
	} else if len(c.choices) >= maxPickers {
		for old := range c.choices { // any one
			delete(c.choices, old)
			break
		}
	}
	c.choices[k] = now
	return now, nil
}
