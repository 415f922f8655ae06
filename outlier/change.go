package outlier

import (
	"fmt"
	"time"
)

// Reason is why an instance was ejected.
type Reason uint8

// The reasons; see [Config].
const (
	ConsecutiveFailures Reason = iota
	FailureRate
	Slow
	reasons // how many there are
)

var reasonNames = [reasons]string{ConsecutiveFailures: "consecutive-failures", FailureRate: "failure-rate", Slow: "slow"}

// String returns "consecutive-failures", "failure-rate" or "slow".
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// MarshalText writes the reason as String does.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (r *Reason) UnmarshalText(text []byte) error {
	for i, name := range reasonNames {
		if name == string(text) {
			*r = Reason(i)
			return nil
		}
	}
	return fmt.Errorf("outlier: unknown reason %.20q: use consecutive-failures, failure-rate or slow", text)
}

// Kind is what happened to an instance.
type Kind uint8

// The kinds of changes.
const (
	Ejected  Kind = iota // it is out of rotation
	Probing              // it is back for single calls, to prove itself
	Returned             // it is back, and its share grows
)

var kindNames = [...]string{Ejected: "ejected", Probing: "probing", Returned: "returned"}

// String returns "ejected", "probing" or "returned".
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Change is something that happened to an instance.
type Change struct {
	Kind    Kind
	ID      string // of the instance
	Address string
	Reason  Reason // why it is or was ejected
	At      time.Time
	Until   time.Time // of Ejected: when it may be tried again; else zero
}

// OnChange adds a listener. Listeners are called one after another, in the order of the
// changes, by the call of InRotation or Report that made the change, before it returns
// or, if another call is just telling listeners, by that one. No lock is held: a
// listener may use the detector. It should be quick, as a request waits for it. What a
// listener panics with goes up to that call.
func (d *Detector) OnChange(f func(Change)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listeners = append(d.listeners, f)
}

// changed puts a change into the queue. d.mu is held.
func (d *Detector) changed(c Change, now time.Duration) {
	if len(d.listeners) == 0 {
		return
	}
	c.At = d.epoch.Add(now)
	d.queue = append(d.queue, c)
}

// tell calls the listeners for what is in the queue. Only one goroutine does so at
// a time, which keeps the order; it goes on until the queue is empty.
func (d *Detector) tell() {
	for d.tellNext() {
	}
}

func (d *Detector) tellNext() bool {
	d.mu.Lock()
	if d.telling || len(d.queue) == 0 {
		d.mu.Unlock()
		return false
	}
	change, listeners := d.queue[0], d.listeners
	d.queue = d.queue[1:]
	d.telling = true
	d.mu.Unlock()
	defer func() { // also if a listener panics
		d.mu.Lock()
		d.telling = false
		d.mu.Unlock()
	}()
	for _, f := range listeners {
		f(change)
	}
	return true
}

// Snapshot is a detector's state for people and dashboards.
type Snapshot struct {
	Endpoints int               `json:"endpoints"` // of the set that InRotation last had
	Out       []Instance        `json:"out"`       // those of them that do not have their share, in the order of IDs
	Ejections map[Reason]uint64 `json:"ejections"` // so far, by reason: all reasons are there
}

// Instance is one that is ejected or probing.
type Instance struct {
	ID      string    `json:"id"`
	Address string    `json:"address"`
	Reason  Reason    `json:"reason"`
	Probing bool      `json:"probing"` // its ejection is over, and it gets single calls to prove itself
	Since   time.Time `json:"since"`   // when it was ejected, or when the probing began
	Until   time.Time `json:"until"`   // when the ejection ends or ended
	Times   int       `json:"times"`   // how often it was ejected, one time soon after the other
}

// Ejected returns how many instances are out of rotation: those that are not probing.
func (s Snapshot) Ejected() int {
	n := 0
	for _, in := range s.Out {
		if !in.Probing {
			n++
		}
	}
	return n
}

// Snapshot returns the state and the counters. An instance whose ejection is over is
// ejected until InRotation is called.
func (d *Detector) Snapshot() Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.current.Load()
	s := Snapshot{Endpoints: len(v.members), Ejections: make(map[Reason]uint64, reasons)}
	for r, n := range d.ejections {
		s.Ejections[Reason(r)] = n
	}
	for _, m := range v.members {
		if state := m.state.Load(); state != serving {
			s.Out = append(s.Out, Instance{
				ID: m.endpoint.ID, Address: m.endpoint.Address, Reason: m.reason, Probing: state == probing,
				Since: d.epoch.Add(m.since), Until: d.epoch.Add(m.until), Times: m.times,
			})
		}
	}
	return s
}
