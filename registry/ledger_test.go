package registry_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

// What strangers register is bounded by its size, too.
func TestAnnouncedBytes(t *testing.T) {
	t.Parallel()
	d := memregistry.New().Connect()
	r := open(t, d)
	large := map[string]string{}
	for n := range 56 {
		large[fmt.Sprint(n)] = strings.Repeat("x", registry.MaxMetadataValue)
	}
	send := func(n int, metadata map[string]string) error {
		_, _, err := r.Announce(t.Context(), announced(fmt.Sprint("pay-", n), beating, func(in *registry.Instance) { in.Metadata = metadata }))
		return err
	}
	if err := send(5000, nil); err != nil {
		t.Fatal(err)
	}
	n := 0
	for n < 2000 && send(n, large) == nil {
		n++
	}
	if _, bytes := r.Announced(); bytes > registry.MaxAnnouncedBytes || bytes < registry.MaxAnnouncedBytes*9/10 {
		t.Errorf("%d instances of %d bytes", n, bytes)
	}
	for _, c := range []struct {
		what     string
		n        int
		metadata map[string]string
		full     bool
	}{
		{"one more", 5001, large, true},
		{"one that is in has grown", 5000, large, true},
		{"one that is in is the same", 0, large, false},
		{"a small one that is in is the same", 5000, nil, false},
		{"one has shrunk", 0, nil, false},
		{"another one in its room", 5001, large, false},
	} {
		if err := send(c.n, c.metadata); errors.Is(err, registry.ErrFull) != c.full || !c.full && err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
	}
	if err := r.Remove(t.Context(), registry.Key{Service: "pay", ID: "pay-1"}); err != nil {
		t.Fatal(err)
	}
	if err := send(5002, large); err != nil {
		t.Errorf("after one was removed: %v", err)
	}
	// What joins by itself does not count.
	before, _ := r.Announced()
	if _, err := r.Register(t.Context(), instance("native", func(in *registry.Instance) { in.Metadata = large })); err != nil {
		t.Fatal(err)
	}
	if after, _ := r.Announced(); after != before {
		t.Errorf("%d announced, before it was %d", after, before)
	}
}

// Small entries take memory, too, and so do tags.
func TestAnnouncedBytesOfSmallThings(t *testing.T) {
	t.Parallel()
	r := open(t, memregistry.New().Connect())
	send := func(change func(*registry.Instance)) int {
		t.Helper()
		if _, _, err := r.Announce(t.Context(), announced("pay-1", beating, change)); err != nil {
			t.Fatal(err)
		}
		_, bytes := r.Announced()
		return bytes
	}
	plain := send(func(*registry.Instance) {})
	tags := send(func(in *registry.Instance) {
		for n := range registry.MaxTags {
			in.Tags = append(in.Tags, fmt.Sprintf("%064d", n))
		}
	})
	if tags < plain+registry.MaxTags*64 {
		t.Errorf("%d bytes with tags of %d, %d without", tags, registry.MaxTags*64, plain)
	}
	entries := send(func(in *registry.Instance) {
		in.Metadata = map[string]string{}
		for n := range registry.MaxMetadata {
			in.Metadata[fmt.Sprint(n)] = ""
		}
	})
	if entries < plain+registry.MaxMetadata*32 { // two strings' headers each
		t.Errorf("%d bytes with %d entries, %d without", entries, registry.MaxMetadata, plain)
	}
}
