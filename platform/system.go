package platform

import (
	"cmp"
	"os"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/engine"
)

// system is what the admin API tells about this process.
func (p *Platform) system() console.System {
	report := p.health.Report()
	r := p.running.Load()
	s := console.System{
		Version: report.Version, PID: os.Getpid(), StartedAt: p.startedAt, Status: report.Status,
		Gateway: console.Listener{URL: p.GatewayURL()}, Admin: console.Listener{URL: p.AdminURL()},
		Engine:       console.Engine{Kind: "external", URL: r.url},
		Registry:     console.RegistryState{Leading: r.checker.Leading()},
		Dependencies: report.Dependencies,
	}
	if p.config.External.URL == "" {
		s.Engine = console.Engine{Kind: "embedded", URL: r.url, Directory: p.config.Engine.Dir}
		if s.Engine.Directory != "" { // in memory nothing is durable
			s.Engine.Durability = string(cmp.Or(p.config.Engine.Durability, engine.Fast))
		}
	}
	return s
}
