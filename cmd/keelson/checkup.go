package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
)

// checkupTimeout bounds asking one program for its health.
const checkupTimeout = 2 * time.Second

// checkup is what a program says of its health when it is asked directly, from
// here: that it can't be reached from here proves little.
type checkup struct {
	URL          string         `json:"url"`
	Reachable    bool           `json:"reachable"`
	Code         int            `json:"code,omitempty"` // the HTTP status
	ResponseTime float64        `json:"responseTime"`   // ms
	Error        string         `json:"error,omitempty"`
	Report       *health.Report `json:"report,omitempty"` // of programs that speak as Keelson's do

	instance string // who answered, if it said so
}

// well reports whether it answered, and that it can serve.
func (c checkup) well() bool { return c.Reachable && c.Error == "" }

// failing returns the names of the dependencies that fail.
func (c checkup) failing() []string {
	if c.Report == nil {
		return nil
	}
	return failing(c.Report.Dependencies)
}

func failing(all map[string]health.Dependency) []string {
	names := slices.Sorted(maps.Keys(all))
	return slices.DeleteFunc(names, func(n string) bool { return all[n].Status != health.Unhealthy })
}

// checkUp asks an instance for its health, or tries to connect if it has none.
func checkUp(ctx context.Context, in registry.Instance) checkup {
	ctx, cancel := context.WithTimeout(ctx, checkupTimeout)
	defer cancel()
	var c checkup
	if in.Health == "" {
		c = knock(ctx, in.Address)
	} else {
		c = askHealth(ctx, in.Health)
	}
	if c.instance != "" && c.instance != in.ID {
		c.Error = "another instance answers there: " + clean(c.instance)
	}
	return c
}

// shown is an instance with what it says when it is asked directly.
type shown struct {
	registry.Instance
	Checkup checkup `json:"checkup"`
}

// checkUpAll asks several instances at once, some at a time.
func checkUpAll(ctx context.Context, all []registry.Instance) []shown {
	results := make([]shown, len(all))
	slots := make(chan struct{}, 16)
	var asking sync.WaitGroup
	for i, in := range all {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			results[i] = shown{in, checkUp(ctx, in)}
		})
	}
	asking.Wait()
	return results
}

// knock connects and goes away again.
func knock(ctx context.Context, address string) checkup {
	c := checkup{URL: address}
	u, err := url.Parse(address)
	if err != nil {
		c.Error = "its address is no URL"
		return c
	}
	began := time.Now()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	c.ResponseTime = milliseconds(time.Since(began))
	if err != nil {
		c.Error = why(ctx, err)
		return c
	}
	c.Reachable = true
	conn.Close()
	return c
}

// askHealth asks a URL such as /health of a program.
func askHealth(ctx context.Context, address string) checkup {
	c := checkup{URL: address}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		c.Error = "its health URL is none"
		return c
	}
	began := time.Now()
	resp, err := straight.Do(req)
	c.ResponseTime = milliseconds(time.Since(began))
	if err != nil {
		c.Error = why(ctx, err)
		return c
	}
	defer resp.Body.Close()
	c.Reachable, c.Code, c.instance = true, resp.StatusCode, resp.Header.Get(registry.InstanceHeader)
	var report health.Report
	if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&report) == nil && report.Status != "" {
		c.Report = &report
	}
	if resp.StatusCode/100 != 2 {
		c.Error = "it answers " + resp.Status
		if c.Report != nil {
			c.Error += ", " + clean(string(report.Status))
		}
	}
	return c
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// why is the reason a connection failed, in one line without the address.
func why(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return fmt.Sprintf("no answer in %v", checkupTimeout)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err
	}
	return clean(err.Error())
}
