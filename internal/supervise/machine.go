package supervise

import "time"

// State is where a child is in its life.
type State string

// The states of a child, in the order they come first.
const (
	// Building: its Build function runs, or it waits for its dependencies.
	Building State = "building"
	// Starting: its process runs and was not healthy yet.
	Starting State = "starting"
	// Healthy: its process was found healthy and has not ended since.
	Healthy State = "healthy"
	// Stopping: its process was asked to end, for a restart or for good.
	Stopping State = "stopping"
	// Restarting: its process has ended and will be started again.
	Restarting State = "restarting"
	// Stopped: there is no process and there won't be one any more.
	Stopped State = "stopped"
)

// The restart policy.
const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 30 * time.Second
	jitter     = 0.2         // of the delay, either way
	wellAfter  = time.Minute // healthy for so long: earlier crashes are forgiven
)

// machine decides what an end of a child's process means. It does no I/O and
// has no clock.
type machine struct {
	state        State
	wasHealthy   bool      // ever
	healthySince time.Time // meaningful in state Healthy
	crashes      int       // in a row
	restarts     int       // in all
}

// started notes that a process was started.
func (m *machine) started() { m.state = Starting }

// healthy notes that the process was found healthy.
func (m *machine) healthy(now time.Time) {
	m.state, m.wasHealthy, m.healthySince = Healthy, true, now
}

// forgive forgets earlier crashes: somebody has asked for a restart, and may
// have mended what caused them.
func (m *machine) forgive() { m.crashes = 0 }

// ended notes that the process ended, unasked, or could not be started. It
// returns how long to wait before the next start; ok is false if there is to
// be none, because the child was never healthy. random in [0,1) sets the
// jitter.
func (m *machine) ended(now time.Time, random float64) (delay time.Duration, ok bool) {
	if !m.wasHealthy {
		m.state = Stopped
		return 0, false
	}
	if m.state == Healthy && now.Sub(m.healthySince) >= wellAfter {
		m.crashes = 0
	}
	delay = backoff(m.crashes, random)
	m.crashes++
	m.restarts++
	m.state = Restarting
	return delay, true
}

// backoff returns the delay after n earlier crashes in a row.
func backoff(n int, random float64) time.Duration {
	d := maxBackoff
	if n < 6 { // 0.5 s << 6 is over 30 s
		d = minBackoff << n
	}
	return time.Duration(float64(d) * (1 - jitter + 2*jitter*random))
}
