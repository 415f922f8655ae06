package inprocess

import (
	"net/http"
	"sync"
	"sync/atomic"
)

// Directory knows the services of one process that can be called without a socket. It
// is safe for concurrent use. Its zero value is empty and ready, and a nil *Directory
// stays empty.
type Directory struct {
	mu       sync.Mutex
	entries  []*entry
	snapshot atomic.Pointer[map[string]*entry] // by id, of ids that are there once
}

// entry is one server, which stands for an instance at an address.
type entry struct {
	id, host string
	server   *Server
}

// Add puts in a server, under the id of its instance and the host, with its port, that
// others call it at. The function it returns takes it out again, once.
func (d *Directory) Add(id, host string, s *Server) (remove func()) {
	if d == nil {
		return func() {}
	}
	e := &entry{id, host, s}
	d.change(func() { d.entries = append(d.entries, e) })
	return func() {
		d.change(func() {
			kept := make([]*entry, 0, len(d.entries))
			for _, other := range d.entries {
				if other != e {
					kept = append(kept, other)
				}
			}
			d.entries = kept
		})
	}
}

// change makes a new snapshot.
func (d *Directory) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	once := make(map[string]*entry, len(d.entries))
	for _, e := range d.entries {
		if _, taken := once[e.id]; taken {
			// An id is one of a kind within a service alone; which of these is meant,
			// nobody can tell. Their sockets can.
			once[e.id] = nil
			continue
		}
		once[e.id] = e
	}
	d.snapshot.Store(&once)
}

// Local returns what calls an instance of this process, or nil for one that isn't, as
// client.WithLocal wants it. A request for another host is not taken, with
// [http.ErrSkipAltProtocol]: there may be an instance of that id somewhere else.
func (d *Directory) Local(instance string) http.RoundTripper {
	if d == nil {
		return nil
	}
	entries := d.snapshot.Load()
	if entries == nil {
		return nil
	}
	if e := (*entries)[instance]; e != nil {
		return e
	}
	return nil
}

// RoundTrip implements http.RoundTripper.
func (e *entry) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL == nil || req.URL.Host != e.host {
		return nil, http.ErrSkipAltProtocol
	}
	return e.server.RoundTrip(req)
}
