package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keelson-go/keelson/health"
)

// Status is the state of an instance, in the vocabulary of package health.
// Only instances whose status is Serving are in rotation.
type Status = health.Status

// Limits of an instance record. They bound what one registration can cost
// every process that watches the registry.
const (
	MaxIDLength       = 128      // bytes
	MaxTextLength     = 64       // bytes, for version, zone, tags and metadata keys
	MaxTags           = 32       // tags of one instance
	MaxMetadata       = 64       // metadata entries of one instance
	MaxMetadataValue  = 1 << 10  // bytes
	MaxAddressLength  = 512      // bytes, for address and health
	MaxInstanceRecord = 60 << 10 // bytes of JSON
)

// Instance is one running copy of a service.
type Instance struct {
	// ID is unique within the service: lower-case letters, digits and '-'.
	// Normalize makes it from name, host and port when it is empty, and
	// replaces every other character by '-'.
	ID string `json:"id"`
	// Name is the service's name, [a-z0-9][a-z0-9-]{0,62}.
	Name string `json:"name"`
	// Address is the absolute base URL, such as http://10.0.0.7:3001.
	Address string `json:"address"`
	// Port is the port of Address.
	Port int `json:"port"`
	// Health is the absolute URL of the health check, on Address's host, or
	// empty: the instance is then probed by opening a connection.
	Health string `json:"health,omitempty"`
	// Version is the version of the running program, free text.
	Version string `json:"version,omitempty"`
	// Tags select instances; see [Tags].
	Tags []string `json:"tags"`
	// Metadata is free for the users.
	Metadata map[string]string `json:"metadata"`
	// Zone is the failure domain the instance runs in.
	Zone string `json:"zone,omitempty"`
	// Status decides whether the instance is in rotation.
	Status Status `json:"status"`
	// Announced is what the instance itself said last, while a registry node has
	// set Status to unhealthy, or somebody has drained it by hand; otherwise empty.
	Announced Status `json:"announced,omitempty"`
	// Lease says what renews the lease; empty means the instance itself, over
	// the connection it is bound to.
	Lease LeaseKind `json:"lease,omitempty"`
	// RegisteredAt is when the instance was first registered. It also tells
	// apart two processes that use the same id.
	RegisteredAt time.Time `json:"registeredAt,omitzero"`
	// LastHeartbeat is when the lease was last renewed, where it is known:
	// only registry nodes follow the leases.
	LastHeartbeat time.Time `json:"lastHeartbeat,omitzero"`
}

// LeaseKind says what renews an instance's lease.
type LeaseKind string

// Kinds of leases.
const (
	LeaseConnection LeaseKind = ""           // a [Registration], on its own connection
	LeaseChecks     LeaseKind = "checks"     // each check it passes
	LeaseHeartbeats LeaseKind = "heartbeats" // its heartbeats over HTTP
)

// Key names one instance in the registry.
type Key struct{ Service, ID string }

// String returns "service.id", which is also the key in the store.
func (k Key) String() string { return k.Service + "." + k.ID }

// ParseKey is the inverse of [Key.String]. It refuses whatever Normalize would
// not have let into a record.
func ParseKey(s string) (Key, error) {
	service, id, ok := strings.Cut(s, ".")
	if !ok || !ValidName(service) || id == "" || len(id) > MaxIDLength || SanitizeID(id) != id {
		return Key{}, fmt.Errorf("registry: %q is not a key of the form service.instance", s)
	}
	return Key{service, id}, nil
}

// Key returns the instance's key.
func (i Instance) Key() Key { return Key{i.Name, i.ID} }

// clone returns a copy that shares nothing with i.
func (i Instance) clone() Instance {
	i.Tags = slices.Clone(i.Tags)
	i.Metadata = maps.Clone(i.Metadata)
	return i
}

// cloneAll clones each of instances, in place.
func cloneAll(instances []Instance) []Instance {
	for n := range instances {
		instances[n] = instances[n].clone()
	}
	return instances
}

// sameRecord reports whether a and b differ at most in status and times.
func sameRecord(a, b Instance) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Address == b.Address && a.Health == b.Health &&
		a.Version == b.Version && a.Zone == b.Zone &&
		slices.Equal(a.Tags, b.Tags) && maps.Equal(a.Metadata, b.Metadata)
}

// Encode returns the record of i as drivers store it. i must be normalized. The
// error is a [*FieldError].
func (i Instance) Encode() ([]byte, error) {
	b, err := json.Marshal(i)
	switch {
	case err != nil: // nothing else of it can fail
		return nil, &FieldError{"registeredAt", "can't be written", "give a time in the years 0 to 9999"}
	case len(b) > MaxInstanceRecord:
		return nil, &FieldError{"metadata", "makes the record too large", "store less, or a reference to it"}
	}
	return b, nil
}

// Decode reads a record that [Instance.Encode] made. Records come over the
// network, so everything is checked again; unknown fields are ignored, since a
// newer release may have written them.
func Decode(record []byte) (Instance, error) {
	var i Instance
	if len(record) > MaxInstanceRecord {
		return i, fmt.Errorf("registry: decode record: %d bytes, at most %d are allowed", len(record), MaxInstanceRecord)
	}
	if err := json.Unmarshal(record, &i); err != nil {
		return Instance{}, fmt.Errorf("registry: decode record: %w", err)
	}
	if err := i.Normalize(); err != nil {
		return Instance{}, fmt.Errorf("registry: decode record: %w", err)
	}
	return i, nil
}
