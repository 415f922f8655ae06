package engine

import (
	"context"
	"net"
	"sync"
)

// dialer lets nats.Connect, which knows no context, end with one: until settle
// it dials under the caller's context and closes what it dialled when that
// ends, so the wait for the server's greeting ends too. Reconnects come later
// and go without.
type dialer struct {
	net net.Dialer

	mu    sync.Mutex
	ctx   context.Context // nil once settled
	stops []func() bool
	last  error
}

func newDialer(ctx context.Context) *dialer {
	return &dialer{net: net.Dialer{Timeout: dialTimeout}, ctx: ctx}
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.mu.Lock()
	ctx := d.ctx
	d.mu.Unlock()
	if ctx == nil {
		return d.net.Dial(network, address)
	}
	conn, err := d.net.DialContext(ctx, network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.last = err
		return nil, err
	}
	d.stops = append(d.stops, context.AfterFunc(ctx, func() { conn.Close() }))
	return conn, nil
}

// settle ends the first phase and gives the last dial error, if any.
func (d *dialer) settle() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, stop := range d.stops {
		stop()
	}
	d.ctx, d.stops = nil, nil
	return d.last
}
