package console

import (
	"context"
	"net/http"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/problem"
)

type (
	// System is what a process says about itself and what it runs on. There is
	// nothing secret in it.
	System struct {
		Version      string                       `json:"version"`
		PID          int                          `json:"pid"`
		StartedAt    time.Time                    `json:"startedAt,omitzero"`
		Status       health.Status                `json:"status"`
		Gateway      Listener                     `json:"gateway"`
		Admin        Listener                     `json:"admin"`
		Engine       Engine                       `json:"engine"`
		Registry     RegistryState                `json:"registry"`
		Dependencies map[string]health.Dependency `json:"dependencies"` // as in /health
	}
	// Listener is where a part of the system answers.
	Listener struct {
		URL string `json:"url"` // base URL; empty if it is not in this process
	}
	// Engine is what keeps the system's state.
	Engine struct {
		Kind       string `json:"kind"`                 // "embedded" or "external"
		URL        string `json:"url,omitempty"`        // without credentials; empty if it does not listen
		Directory  string `json:"directory,omitempty"`  // of an embedded one; empty: in memory
		Durability string `json:"durability,omitempty"` // of an embedded one
	}
	// RegistryState is how this process stands to the registry.
	RegistryState struct {
		Synced    bool   `json:"synced"`          // there has been a complete snapshot
		Error     string `json:"error,omitempty"` // why the store is not followed now
		Leading   bool   `json:"leading"`         // this process checks the instances
		Services  int    `json:"services"`
		Instances int    `json:"instances"`
	}
	systemOutput struct{ Body System }
)

// system answers what Config.System says. What the console's own registry knows
// is filled in here.
func (c *Console) system(context.Context, *struct{}) (*systemOutput, error) {
	if c.config.System == nil {
		return nil, problem.New(http.StatusNotFound, problem.CodeNotFound, "This process tells nothing about its system.")
	}
	s := c.config.System()
	r := c.config.Registry
	s.Registry.Synced, s.Registry.Error = r.Synced(), ""
	if err := r.Err(); err != nil {
		s.Registry.Error = err.Error()
	}
	s.Registry.Services, s.Registry.Instances = len(r.Services()), len(r.List())
	if s.Dependencies == nil {
		s.Dependencies = map[string]health.Dependency{}
	}
	return &systemOutput{s}, nil
}
