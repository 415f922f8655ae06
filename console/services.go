package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/problem"
	"github.com/keelson-go/keelson/registry"
)

type (
	// filterInput is read by Resolve: huma takes a parameter that is empty for
	// one that is not there, and one that can't be unescaped too, and a filter
	// that is overlooked shows what was not asked for.
	filterInput struct {
		Tag    []string `query:"tag,explode" doc:"Only instances with this tag; repeated, at most 32: with all of them"`
		Status []string `query:"status,explode" doc:"Only instances with this status: starting, healthy, degraded, unhealthy or draining; repeated: with one of them"`

		filters []registry.Filter
	}
	serviceInput struct {
		Name string `path:"name" doc:"The service's name"`
		filterInput
	}
	instanceInput struct {
		Name string `path:"name" doc:"The service's name"`
		ID   string `path:"id" doc:"The instance's id"`
	}
	instanceOutput  struct{ Body registry.Instance }
	instancesOutput struct {
		Body []registry.Instance `nullable:"false"`
	}
)

// Resolve implements huma.Resolver. Without a status, all are shown: this is for
// people, who look for what is wrong.
func (in *filterInput) Resolve(ctx huma.Context) []error {
	q, err := queryOf(ctx)
	if err != nil {
		return []error{err}
	}
	tags, err := tagsOf(q)
	if err != nil {
		return []error{err}
	}
	var states []registry.Status
	for _, s := range q["status"] {
		switch st := registry.Status(s); st {
		case health.Starting, health.Healthy, health.Degraded, health.Unhealthy, health.Draining:
			if !slices.Contains(states, st) {
				states = append(states, st)
			}
		default:
			return []error{badQuery("status", "It is unknown: use starting, healthy, degraded, unhealthy or draining.")}
		}
	}
	in.filters = []registry.Filter{registry.Tags(tags...), registry.WithStatus(states...)}
	return nil
}

// key is the instance's key. A service may ask for itself by the id it gave, of
// which registering replaced what an id can't have.
func (in *instanceInput) key() registry.Key {
	return registry.Key{Service: in.Name, ID: registry.SanitizeID(in.ID)}
}

// queryOf returns the query; one that can't be read is a problem.
func queryOf(ctx huma.Context) (url.Values, error) {
	u := ctx.URL()
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, badQuery("", "It can't be read: escape what is not a letter or digit as %XX.")
	}
	return q, nil
}

// tagsOf returns the tags of a query, in order and each once. Each is looked for
// in each instance.
func tagsOf(q url.Values) ([]string, error) {
	if len(q["tag"]) > registry.MaxTags {
		return nil, badQuery("tag", fmt.Sprintf("These are too many: give at most %d, for an instance has no more.", registry.MaxTags))
	}
	return slices.Compact(slices.Sorted(slices.Values(q["tag"]))), nil
}

// badQuery is the answer to a query parameter that can't be understood.
func badQuery(name, detail string) *problem.Problem {
	p := problem.New(http.StatusBadRequest, problem.CodeInvalid, "A query parameter is wrong.")
	pointer := "#query"
	if name != "" {
		pointer += problem.Pointer(name)
	}
	p.Errors = []problem.FieldError{{Pointer: pointer, Detail: detail}}
	return p
}

func (c *Console) services(_ context.Context, in *filterInput) (*instancesOutput, error) {
	all := []registry.Instance{}
	for _, name := range c.config.Registry.Services() {
		all = append(all, c.config.Registry.Discover(name, in.filters...)...)
	}
	return &instancesOutput{c.stampAll(all)}, nil
}

func (c *Console) service(_ context.Context, in *serviceInput) (*instancesOutput, error) {
	return &instancesOutput{c.stampAll(c.config.Registry.Discover(in.Name, in.filters...))}, nil
}

func (c *Console) instance(_ context.Context, in *instanceInput) (*instanceOutput, error) {
	one, ok := c.config.Registry.Get(in.key())
	if !ok {
		return nil, unknownInstance()
	}
	return &instanceOutput{c.stamp(one)}, nil
}

func unknownInstance() *problem.Problem {
	return problem.New(http.StatusNotFound, problem.CodeNotFound, "The registry has no such instance. If it is yours, register it: POST /v1/services.")
}

func (c *Console) drain(ctx context.Context, in *instanceInput) (*instanceOutput, error) {
	one, err := c.config.Registry.Drain(ctx, in.key())
	if err != nil {
		return nil, c.refuse(ctx, err)
	}
	c.note(ctx, "drain", one.Name, one.ID)
	return &instanceOutput{c.stamp(one)}, nil
}

func (c *Console) undrain(ctx context.Context, in *instanceInput) (*instanceOutput, error) {
	one, err := c.config.Registry.Undrain(ctx, in.key())
	if err != nil {
		return nil, c.refuse(ctx, err)
	}
	c.note(ctx, "undrain", one.Name, one.ID)
	return &instanceOutput{c.stamp(one)}, nil
}

// stamp returns i with the time of its last heartbeat, where it is known.
func (c *Console) stamp(i registry.Instance) registry.Instance {
	if c.config.LastHeartbeat != nil {
		i.LastHeartbeat = c.config.LastHeartbeat(i.Key())
	}
	return i
}

// stampAll stamps all, in place.
func (c *Console) stampAll(all []registry.Instance) []registry.Instance {
	for n := range all {
		all[n] = c.stamp(all[n])
	}
	return all
}
