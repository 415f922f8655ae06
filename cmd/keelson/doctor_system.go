package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keelson-go/keelson/console"
	"github.com/keelson-go/keelson/engine"
	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/internal/manifest"
	"github.com/keelson-go/keelson/internal/runfile"
	"github.com/keelson-go/keelson/registry"
)

// systemLook is what the admin API says of its system, and when.
type systemLook struct {
	console.System
	base, source    string
	asked, answered time.Time
	date            time.Time // by its clock, in whole seconds
}

// lookAtSystem asks the admin API. What is known of it is returned with an error
// as well.
func (a *app) lookAtSystem(ctx context.Context) (s systemLook, err error) {
	if s.base, s.source, err = a.admin(); err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	s.asked = time.Now()
	resp, err := a.get(ctx, "/v1/system")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	s.answered = time.Now()
	s.date, _ = http.ParseTime(resp.Header.Get("Date")) // without one there is nothing to compare
	s.System, err = decode[console.System](ctx, a, resp)
	return s, err
}

// unknown is the finding of a check that needs a running system.
func unknown(name string) []finding {
	return []finding{{name, skipped, "no system answers", ""}}
}

func (p *patient) checkAdmin(context.Context) []finding {
	s, err := p.system()
	return []finding{judgeAdmin(s, err, p.runs)}
}

func judgeAdmin(s systemLook, err error, runs bool) finding {
	const name = "admin API"
	if err == nil {
		f := finding{name, fine, fmt.Sprintf("%s answers in %.1f ms, version %s", s.base, milliseconds(s.answered.Sub(s.asked)), orText(s.Version, "unknown")), ""}
		if r := s.Registry; !r.Synced || r.Error != "" {
			f.Verdict, f.Message = broken, fmt.Sprintf("%s is not in step with the engine: %s", s.base, orText(r.Error, "it has not read the registry yet"))
			f.Fix = "see that the engine runs and can be reached from there"
		}
		return f
	}
	f := finding{name, broken, err.Error(), "see what it says, or name the system with --url"}
	if known, ok := errors.AsType[*failure](err); ok {
		f.Fix = orText(known.hint, f.Fix)
		if known.detail != "" {
			f.Message += ": " + strings.TrimSpace(known.detail)
		}
		// Port 3100 was only a guess.
		if s.source == "the default" && !runs && (known.code == exitUnreachable || known.code == exitFailed) {
			return finding{name, skipped, "no system runs here, and none answers at " + s.base, ""}
		}
	}
	return f
}

func (p *patient) checkEngine(ctx context.Context) []finding {
	cfg, from := engineOf(p.app.env, p.run, p.runs, p.manifest)
	if from == "" {
		why := "no system runs here, and KEELSON_ENGINE_URL is not set"
		if p.runs {
			why = "the running system's engine takes no connections from outside"
		}
		return []finding{{"engine", skipped, why, ""}}
	}
	cfg.Name = "keelson doctor"
	e, err := engine.Connect(ctx, cfg)
	if err != nil {
		return []finding{judgeEngine(cfg.URL, from, 0, err)}
	}
	defer e.Close()
	began := time.Now()
	err = e.Check(ctx)
	return []finding{judgeEngine(cfg.URL, from, time.Since(began), err)}
}

// engineOf returns how to reach the engine, and what says so: the environment,
// the run file or the manifest, in that order, as for a service that is started by
// hand.
func engineOf(env func(string) string, run runfile.File, runs bool, m *manifest.Manifest) (cfg engine.Config, from string) {
	switch {
	case env("KEELSON_ENGINE_URL") != "":
		return engine.Config{URL: env("KEELSON_ENGINE_URL"), Credentials: env("KEELSON_ENGINE_CREDENTIALS")}, "KEELSON_ENGINE_URL"
	case runs && run.Engine.URL != "":
		return engine.Config{URL: run.Engine.URL, Credentials: run.Engine.Credentials}, "the run file"
	case m != nil && m.Engine.URL != "":
		return engine.Config{URL: m.Engine.URL, Credentials: credentialsOf(m)}, "engine.url in " + filepath.Base(m.Path)
	}
	return engine.Config{}, ""
}

func judgeEngine(url, from string, took time.Duration, err error) finding {
	f := finding{"engine", broken, "", ""}
	switch {
	case err == nil:
		return finding{"engine", fine, fmt.Sprintf("%s (from %s): JetStream answers in %.1f ms", url, from, milliseconds(took)), ""}
	case isA[*engine.ConfigError](err):
		f.Fix = "mend it: it is from " + from
	case errors.Is(err, engine.ErrCredentials):
		f.Fix = "give credentials that are good there: KEELSON_ENGINE_CREDENTIALS, or engine.credentials in " + manifest.Name
	case errors.Is(err, engine.ErrTLS):
		f.Fix = "see that the certificate is good for that name, and of an authority this machine trusts"
	case errors.Is(err, engine.ErrNoJetStream):
		f.Fix = "switch JetStream on for that account (nats-server -js), and see that its cluster has a leader"
	case errors.Is(err, engine.ErrUnreachable):
		f.Fix = "start it, or see what stands between: a firewall, a wrong address"
	default:
		f.Fix = "see the engine's own log"
	}
	f.Message = err.Error()
	return f
}

func (p *patient) checkGateway(ctx context.Context) []finding {
	s, err := p.system()
	url := s.Gateway.URL
	if url == "" && p.runs {
		url = p.run.Gateway
	}
	switch {
	case url == "" && err != nil:
		return unknown("gateway")
	case url == "":
		return []finding{{"gateway", skipped, "the system names none", ""}}
	case s.base != "" && !askable(url, s.base, s.source):
		return []finding{{"gateway", skipped, url + " is on another machine's loopback", ""}}
	}
	ctx, cancel := context.WithTimeout(ctx, checkupTimeout)
	defer cancel()
	return judgeGateway(url, askHealth(ctx, url+"/health"))
}

func judgeGateway(url string, c checkup) []finding {
	const name = "gateway"
	var found []finding
	switch {
	case c.well():
		found = append(found, finding{name, fine, fmt.Sprintf("%s is %s (%.1f ms)", url, said(&c), c.ResponseTime), ""})
	case !c.Reachable:
		found = append(found, finding{name, broken, fmt.Sprintf("%s does not answer: %s", url, c.Error), "restart the system, and look at what it says"})
	default:
		found = append(found, finding{name, broken, fmt.Sprintf("%s: %s", url, c.Error), "mend what it depends on; see " + c.URL})
	}
	for _, n := range c.failing() {
		found = append(found, judgeDependency(name, n, c.Report.Dependencies[n]))
	}
	return found
}

// judgeDependency judges a dependency that fails.
func judgeDependency(check, name string, d health.Dependency) finding {
	f := finding{check, doubtful, fmt.Sprintf("%s is %s", name, dependencyText(d)), "see that " + name + " runs and can be reached from there"}
	if d.Critical {
		f.Verdict = broken
	}
	return f
}

func (p *patient) checkRotation(context.Context) []finding {
	all, err := p.instances()
	if err != nil { // why is the admin API's own check
		return unknown("rotation")
	}
	return judgeRotation(all)
}

func judgeRotation(all []registry.Instance) []finding {
	const name = "rotation"
	var out []finding
	for _, in := range all {
		if in.Status.Serving() {
			continue
		}
		key := in.Key().String()
		f := finding{name, doubtful, fmt.Sprintf("%s is %s, not in rotation%s", key, in.Status, byHand(in)), "keelson services show " + key}
		switch {
		case in.Status == health.Unhealthy:
			f.Verdict = broken
		case in.Status == health.Draining && in.Announced != "":
			f.Fix = "keelson services undrain " + key
		}
		out = append(out, f)
	}
	switch {
	case len(all) == 0:
		return []finding{{name, doubtful, "no instance is registered", "start a service: name it in " + manifest.Name + ", or see `keelson services register --help`"}}
	case len(out) == 0:
		return []finding{{name, fine, fmt.Sprintf("%s of %s, all in rotation", plural(len(all), "instance"), plural(len(services(all)), "service")), ""}}
	}
	return out
}

func (p *patient) checkServices(ctx context.Context) []finding {
	all, err := p.instances()
	if err != nil {
		return unknown("services")
	}
	return judgeServices(checkUpAll(ctx, all))
}

// judgeServices judges what instances say when they are asked directly.
func judgeServices(all []shown) []finding {
	byName := map[string][]shown{}
	for _, in := range all {
		byName[in.Name] = append(byName[in.Name], in)
	}
	var found []finding
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		before := len(found)
		well := 0
		for _, in := range byName[name] {
			c, key := in.Checkup, in.Key().String()
			switch {
			case c.well():
				well++
			case !c.Reachable && in.Status.Serving():
				found = append(found, finding{name, doubtful, fmt.Sprintf("%s can't be reached from here: %s", key, c.Error), "none needed, if it is in another network; else: keelson services show " + key})
			case !c.Reachable:
				found = append(found, finding{name, broken, fmt.Sprintf("%s does not answer: %s", key, c.Error), "start it; if it is gone for good: keelson services deregister " + key})
			default:
				found = append(found, finding{name, broken, fmt.Sprintf("%s: %s", key, c.Error), "look at its log, and at " + c.URL})
			}
			for _, n := range c.failing() {
				f := judgeDependency(name, n, c.Report.Dependencies[n])
				f.Message = key + ": " + f.Message
				found = append(found, f)
			}
		}
		if len(found) == before {
			found = append(found, finding{name, fine, plural(well, "instance") + " well", ""})
		}
	}
	return found
}
