package health

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// maxError is the length, in characters, an error is cut to for showing.
const maxError = 200

// A Report is everything a Health knows at one moment. Its JSON is what
// [Health.Detail] answers; that decodes into a Report again, without Details.
type Report struct {
	Status       Status                `json:"status"`
	Uptime       float64               `json:"uptime"` // seconds since New, to the millisecond
	Version      string                `json:"version"`
	Dependencies map[string]Dependency `json:"dependencies"` // checks and conditions by name
	Details      map[string]any        `json:"-"`            // what AddDetail added, top-level members in the JSON
}

// A Dependency is the last result of a check, or a condition last reported.
type Dependency struct {
	Status       Status    `json:"status"`             // Healthy, Unhealthy or Unknown
	Critical     bool      `json:"critical,omitempty"` // its failure makes the process Unhealthy
	ResponseTime float64   `json:"responseTime"`       // milliseconds, to the microsecond; 0 for a condition
	LastCheck    time.Time `json:"lastCheck,omitzero"` // UTC; zero if it never ran
	Error        string    `json:"error,omitempty"`    // why it fails: one line, at most 200 characters
}

// AddDetail puts f's value into every report as a top-level member of that name.
// f is called for each report, concurrently with others, with no lock held, and
// must be quick. If it panics, or its value has no JSON form, the member is an
// object with an "error" instead, and the rest of the report is as ever.
//
// A name that is empty, taken (ErrDuplicate) or one of the report's own members,
// and a nil f, are errors.
func (h *Health) AddDetail(name string, f func() any) error {
	var err error
	switch name {
	case "":
		err = errors.New("the name is empty: give it one, like \"metrics\"")
	case "status", "uptime", "version", "dependencies":
		err = errors.New("the report has this member itself: choose another name")
	}
	if f == nil {
		err = errors.New("the function is nil: give one")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && h.details[name] != nil {
		err = ErrDuplicate
	}
	if err != nil {
		return fmt.Errorf("health: add detail %q: %w", name, err)
	}
	h.details[name] = f
	return nil
}

// Report returns the state now. It runs no check. It is the caller's own.
func (h *Health) Report() Report {
	h.mu.Lock()
	r := Report{
		Status:       h.status,
		Uptime:       math.Round(time.Since(h.began).Seconds()*1e3) / 1e3,
		Version:      h.version,
		Dependencies: make(map[string]Dependency, len(h.deps)),
		Details:      make(map[string]any, len(h.details)),
	}
	for name, d := range h.deps {
		r.Dependencies[name] = d.report()
	}
	details := maps.Clone(h.details)
	h.mu.Unlock()
	for name, f := range details {
		r.Details[name] = detail(f)
	}
	return r
}

// report shows a dependency; Health.mu is held.
func (d *dependency) report() Dependency {
	r := Dependency{
		Status:       Healthy,
		Critical:     d.critical,
		ResponseTime: math.Round(float64(d.took)/1e3) / 1e3,
		LastCheck:    d.at.UTC(),
	}
	switch {
	case !d.ran:
		r.Status, r.LastCheck = Unknown, time.Time{}
	case d.failure != "":
		r.Status, r.Error = Unhealthy, d.failure
	}
	return r
}

// failedDetail stands in for a detail that can't be shown.
type failedDetail struct {
	Error string `json:"error"`
}

func detail(f func() any) (v any) {
	defer func() {
		if p := recover(); p != nil {
			v = failedDetail{oneLine(fmt.Errorf("panic: %v", p))}
		}
	}()
	return f()
}

// MarshalJSON gives the report's own members first, then the details by name.
func (r Report) MarshalJSON() ([]byte, error) {
	type own Report // without this method
	out, err := json.Marshal(own(r))
	if err != nil {
		return nil, err
	}
	out = out[:len(out)-1] // the closing brace
	for _, name := range slices.Sorted(maps.Keys(r.Details)) {
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(r.Details[name])
		if err != nil {
			if value, err = json.Marshal(failedDetail{oneLine(err)}); err != nil {
				return nil, err
			}
		}
		out = append(out, ',')
		out = append(out, key...)
		out = append(out, ':')
		out = append(out, value...)
	}
	return append(out, '}'), nil
}

// oneLine is an error's text without line breaks, cut to maxError characters. It
// is "" for nil only.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	text := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "?")), " ")
	if runes := []rune(text); len(runes) > maxError {
		return string(runes[:maxError-1]) + "…"
	}
	return cmp.Or(text, "failed without a text")
}
