package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	askTimeout       = 3 * time.Second
	provisionTimeout = 10 * time.Second // copies on several servers take elections
)

// Engine is one process's connection to the engine. Its methods may be called
// by several goroutines at once.
type Engine struct {
	cfg      Config
	nc, sys  *nats.Conn
	js       jetstream.JetStream
	storage  jetstream.StorageType
	replicas int

	mu        sync.Mutex
	listeners []func(bool, error)
	wanted    []jetstream.KeyValueConfig // buckets somebody asked for, to be made again like the others

	stop  context.CancelFunc
	close sync.Once
	wg    sync.WaitGroup
}

// Wrap makes an Engine of connections made elsewhere, with [ConnOptions]. sys,
// a connection in the system account, may be nil. Wrap asks what the server
// can do and provisions it, within ctx. On success the Engine owns both
// connections and Close closes them; on failure they stay the caller's. Their
// handlers are not touched. Of cfg, Replicas, Memory and Logger count here.
func Wrap(ctx context.Context, nc, sys *nats.Conn, cfg Config) (*Engine, error) {
	cfg, err := cfg.normalize()
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e := &Engine{cfg: cfg, nc: nc, sys: sys, js: js, storage: jetstream.FileStorage, replicas: cfg.Replicas}
	info, err := e.ask(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the engine what it can do: %w", err)
	}
	if cfg.Memory || info.Limits.MaxStore == 0 { // -1 is without limit, 0 none at all
		e.storage = jetstream.MemoryStorage
	}
	if e.replicas == 0 {
		e.replicas = 1
		if nc.ConnectedClusterName() != "" {
			e.replicas = 3
		}
	}
	bounded, cancel := context.WithTimeout(ctx, provisionTimeout)
	defer cancel()
	if err := e.Provision(bounded); err != nil {
		return nil, err
	}
	// Listen before returning, so that no loss from here on goes unseen.
	changes, reconnects := nc.StatusChanged(), nc.Stats().Reconnects
	returned := make(chan struct{}, 1)
	running, stop := context.WithCancel(context.Background())
	e.stop = stop
	e.wg.Go(func() { e.watch(running, changes, reconnects, returned) })
	e.wg.Go(func() { e.restore(running, returned) })
	return e, nil
}

// Conn is the connection in the application's account. It must not be closed
// or drained by others than Close.
func (e *Engine) Conn() *nats.Conn { return e.nc }

// System is the connection in the system account, on which the server tells
// when a client goes; nil where there is none.
func (e *Engine) System() *nats.Conn { return e.sys }

// JetStream is the JetStream API on Conn.
func (e *Engine) JetStream() jetstream.JetStream { return e.js }

// Storage is where new streams and buckets belong: on disk, or in memory if
// the server has no store or Config.Memory asks for it.
func (e *Engine) Storage() jetstream.StorageType { return e.storage }

// Replicas is how many copies new streams and buckets are to have.
func (e *Engine) Replicas() int { return e.replicas }

// Check asks the engine a cheap question (about 100 µs in this process) and
// returns nil if it is connected and its JetStream answers. The error wraps
// [ErrDisconnected] (at once, without waiting), [ErrNoJetStream],
// [ErrCredentials] or ctx's. A longer ctx is cut to three seconds. It fits
// health.Check.
func (e *Engine) Check(ctx context.Context) error {
	if !e.nc.IsConnected() {
		if err := e.nc.LastError(); err != nil {
			return fmt.Errorf("%w: %w", ErrDisconnected, err)
		}
		return ErrDisconnected
	}
	if _, err := e.ask(ctx); err != nil {
		return fmt.Errorf("check engine: %w", err)
	}
	return nil
}

// ask is the cheapest round trip to JetStream. A server that has none, or
// whose cluster has no leader, may not answer at all: silence on a connection
// that stands is ErrNoJetStream, unless it is the caller who doesn't wait.
func (e *Engine) ask(ctx context.Context) (*jetstream.AccountInfo, error) {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, err := e.js.AccountInfo(bounded)
	if err == nil {
		return info, nil
	}
	err = askError(e.nc, err)
	if bounded.Err() != nil && ctx.Err() == nil && !errors.Is(err, ErrCredentials) {
		err = fmt.Errorf("%w: no answer in %v", ErrNoJetStream, askTimeout)
	}
	return nil, err
}

// OnState has f called after each loss (false, the reason if known) and each
// return (true, nil) of Conn, one call after the other, in order. A loss too
// short to be seen on its own is still told as both. The state at the time of
// the call is not told: ask Check. f must not block for long and must not call
// Close. Calls end before Close returns.
func (e *Engine) OnState(f func(connected bool, err error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listeners = append(e.listeners, f)
}

// watch looks at the state whenever it may have changed, instead of believing
// each status: nats.go drops statuses that nobody fetched in time. Each return
// is signalled on returned.
func (e *Engine) watch(ctx context.Context, changes chan nats.Status, reconnects uint64, returned chan<- struct{}) {
	defer e.nc.RemoveStatusListener(changes)
	connected := true
	for {
		select {
		case <-ctx.Done():
			return
		case status, ok := <-changes:
			if !ok {
				return
			}
			if status == nats.CLOSED { // not by us: Close ends this loop first
				if connected {
					e.tell(false, nats.ErrConnectionClosed)
				}
				return
			}
		}
		now, count := e.nc.IsConnected(), e.nc.Stats().Reconnects
		if connected && (!now || count != reconnects) {
			connected = false
			e.tell(false, e.nc.LastError())
		}
		if !connected && now {
			connected = true
			select {
			case returned <- struct{}{}:
			default:
			}
			e.tell(true, nil)
		}
		if now {
			reconnects = count
		}
	}
}

func (e *Engine) tell(connected bool, err error) {
	e.mu.Lock()
	listeners := e.listeners[:len(e.listeners):len(e.listeners)]
	e.mu.Unlock()
	for _, f := range listeners {
		f(connected, err)
	}
}

// Close drains both connections (what was published is sent, what was received
// is handled, at most about ten seconds), closes them and waits until that is
// done. Every further call waits for the first one and does nothing else.
func (e *Engine) Close() {
	e.close.Do(func() {
		e.stop()
		e.wg.Wait()
		for _, nc := range []*nats.Conn{e.sys, e.nc} {
			if nc != nil {
				e.wg.Go(func() { drain(nc) })
			}
		}
		e.wg.Wait()
	})
}

func drain(nc *nats.Conn) {
	closed := nc.StatusChanged(nats.CLOSED)
	defer nc.RemoveStatusListener(closed)
	if nc.Drain() != nil { // closed already, or closed by Drain as it was away
		nc.Close()
		return
	}
	if nc.IsClosed() { // drained and closed by somebody else before we listened
		return
	}
	<-closed
}
