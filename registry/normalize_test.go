package registry_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/memregistry"
)

func TestNormalize(t *testing.T) {
	t.Parallel()
	const name = "users"
	for _, c := range []struct {
		in, want registry.Instance // of want only what is set counts
	}{
		{registry.Instance{Address: "http://10.0.0.7:3001"},
			registry.Instance{ID: "users-10-0-0-7-3001", Address: "http://10.0.0.7:3001", Port: 3001, Status: health.Healthy}},
		{registry.Instance{Address: "http://10.0.0.7:3001/"}, registry.Instance{Address: "http://10.0.0.7:3001"}},
		{registry.Instance{Address: "http://10.0.0.7"}, registry.Instance{Address: "http://10.0.0.7:80", Port: 80}},
		{registry.Instance{Address: "https://pay.example.com"}, registry.Instance{Address: "https://pay.example.com:443", Port: 443}},
		{registry.Instance{Address: "http://10.0.0.7", Port: 3001}, registry.Instance{Address: "http://10.0.0.7:3001"}},
		{registry.Instance{Address: "http://10.0.0.7:3001", Port: 3001}, registry.Instance{Address: "http://10.0.0.7:3001"}},
		{registry.Instance{Address: "HTTP://10.0.0.7:3001"}, registry.Instance{Address: "http://10.0.0.7:3001"}},
		{registry.Instance{Address: "10.0.0.7", Port: 3001}, registry.Instance{Address: "http://10.0.0.7:3001", Port: 3001}},
		{registry.Instance{Address: "localhost:3001"}, registry.Instance{ID: "users-localhost-3001", Port: 3001}},
		{registry.Instance{Address: "my_container", Port: 1}, registry.Instance{Address: "http://my_container:1"}},
		{registry.Instance{Address: "::1", Port: 3001}, registry.Instance{ID: "users---1-3001", Address: "http://[::1]:3001"}},
		{registry.Instance{Address: "[::1]", Port: 3001}, registry.Instance{ID: "users---1-3001", Address: "http://[::1]:3001"}},
		{registry.Instance{Address: "[::1]:3001"}, registry.Instance{Address: "http://[::1]:3001", Port: 3001}},
		{registry.Instance{Address: "http://[fe80::1%25eth0]:3001"}, registry.Instance{Address: "http://[fe80::1%25eth0]:3001"}},
		{registry.Instance{ID: "[::1]:3001", Address: "[::1]:3001"}, registry.Instance{ID: "---1--3001"}},
		{registry.Instance{ID: "Users.7/ä", Address: "h:1"}, registry.Instance{ID: "users-7--"}},
		{registry.Instance{ID: strings.Repeat("x", 128), Address: "h:1"}, registry.Instance{ID: strings.Repeat("x", 128)}},
		{registry.Instance{Address: "h:1", Health: "/health?deep=1"}, registry.Instance{Health: "http://h:1/health?deep=1"}},
		{registry.Instance{Address: "h:1", Health: "healthz#top"}, registry.Instance{Health: "http://h:1/healthz"}},
		{registry.Instance{Address: "h:1", Health: "http://h:2/health"}, registry.Instance{Health: "http://h:2/health"}},
		{registry.Instance{Address: "h:1", Health: "https://H/health"}, registry.Instance{Health: "https://H/health"}},
		{registry.Instance{Address: "h:1", Status: health.Draining, Announced: health.Starting},
			registry.Instance{Status: health.Draining, Announced: health.Starting}},
		{registry.Instance{Address: "h:1", Tags: []string{"b", "a", "b"}}, registry.Instance{Tags: []string{"b", "a"}}},
		{registry.Instance{Address: "h:1", Version: strings.Repeat("v", 64), Zone: "Zürich 1"}, registry.Instance{Zone: "Zürich 1"}},
	} {
		in := c.in
		in.Name = name
		if err := in.Normalize(); err != nil {
			t.Errorf("%+v: %v", c.in, err)
			continue
		}
		for field, pair := range map[string][2]string{
			"id": {c.want.ID, in.ID}, "address": {c.want.Address, in.Address}, "health": {c.want.Health, in.Health},
			"status": {string(c.want.Status), string(in.Status)}, "announced": {string(c.want.Announced), string(in.Announced)},
			"zone": {c.want.Zone, in.Zone},
		} {
			if pair[0] != "" && pair[0] != pair[1] {
				t.Errorf("%+v: %s is %q, want %q", c.in, field, pair[1], pair[0])
			}
		}
		if c.want.Port != 0 && in.Port != c.want.Port {
			t.Errorf("%+v: port is %d, want %d", c.in, in.Port, c.want.Port)
		}
		if c.want.Tags != nil && !cmp.Equal(in.Tags, c.want.Tags) || in.Tags == nil || in.Metadata == nil {
			t.Errorf("%+v: tags %#v, metadata %#v", c.in, in.Tags, in.Metadata)
		}
		again := in
		if err := again.Normalize(); err != nil || !cmp.Equal(again, in) {
			t.Errorf("normalizing %+v again: %v\n%s", in, err, cmp.Diff(in, again))
		}
		if k, err := registry.ParseKey(in.Key().String()); err != nil || k != in.Key() {
			t.Errorf("ParseKey(%q) = %v, %v", in.Key(), k, err)
		}
	}
}

func TestNormalizeRefuses(t *testing.T) {
	t.Parallel()
	many := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprint(i)] = ""
		}
		return m
	}
	tags := func(n int) []string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprint(i))
		}
		return all
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		field string
		in    registry.Instance
	}{
		{"name", registry.Instance{Name: "-"}},
		{"name", registry.Instance{Name: "-users"}},
		{"name", registry.Instance{Name: "Users"}},
		{"name", registry.Instance{Name: "users.eu"}},
		{"name", registry.Instance{Name: "üsers"}},
		{"name", registry.Instance{Name: long(64)}},
		{"address", registry.Instance{Address: "-"}}, // replaced by "" below
		{"address", registry.Instance{Address: "ftp://h:1"}},
		{"address", registry.Instance{Address: "http://"}},
		{"address", registry.Instance{Address: "http://:80"}},
		{"address", registry.Instance{Address: "http://."}},
		{"address", registry.Instance{Address: "http://a b"}},
		{"address", registry.Instance{Address: "http://user:pw@h:1"}},
		{"address", registry.Instance{Address: "http://h:1/users"}},
		{"address", registry.Instance{Address: "http://h:1?x=1"}},
		{"address", registry.Instance{Address: "http://h:1#x"}},
		{"address", registry.Instance{Address: "http://h:70000"}},
		{"address", registry.Instance{Address: "http://h:0"}},
		{"address", registry.Instance{Address: "http://[fe80::1%25a%20b]:1"}},
		{"address", registry.Instance{Address: "http://[fe80::1%25" + long(500) + "]:1"}},
		{"address", registry.Instance{Address: "http://" + long(254) + ":1"}},
		{"address", registry.Instance{Address: long(513), Port: 1}},
		{"address", registry.Instance{Address: "h:http"}},
		{"address", registry.Instance{Address: "h/path", Port: 1}},
		{"port", registry.Instance{Address: "h"}},
		{"port", registry.Instance{Address: "h", Port: -1}},
		{"port", registry.Instance{Address: "h", Port: 65536}},
		{"port", registry.Instance{Address: "h:1", Port: 2}},
		{"port", registry.Instance{Address: "http://h:1", Port: 2}},
		{"id", registry.Instance{ID: long(129)}},
		{"id", registry.Instance{Address: long(200) + ":1"}},
		{"health", registry.Instance{Health: "http://other/health"}},
		{"health", registry.Instance{Health: "//other/health"}},
		{"health", registry.Instance{Health: "ftp://h/health"}},
		{"health", registry.Instance{Health: "http:health"}},
		{"health", registry.Instance{Health: "http://u@h/health"}},
		{"health", registry.Instance{Health: "http://h:99999/health"}},
		{"health", registry.Instance{Health: "/a\nb"}},
		{"health", registry.Instance{Health: "/" + long(512)}},
		{"health", registry.Instance{Health: "/" + strings.Repeat("ä", 200)}}, // longer when escaped
		{"status", registry.Instance{Status: "fine"}},
		{"status", registry.Instance{Status: health.Unknown}},
		{"status", registry.Instance{Announced: "fine"}},
		{"version", registry.Instance{Version: long(65)}},
		{"version", registry.Instance{Version: "1\n2"}},
		{"zone", registry.Instance{Zone: long(65)}},
		{"zone", registry.Instance{Zone: "\xff"}},
		{"tags", registry.Instance{Tags: tags(33)}},
		{"tags", registry.Instance{Tags: []string{""}}},
		{"tags", registry.Instance{Tags: []string{long(65)}}},
		{"metadata", registry.Instance{Metadata: many(65)}},
		{"metadata", registry.Instance{Metadata: map[string]string{long(65): ""}}},
		{"metadata", registry.Instance{Metadata: map[string]string{"k": long(1025)}}},
		{"metadata", registry.Instance{Metadata: map[string]string{"k": "\x00"}}},
	} {
		in := c.in
		if in.Name == "" {
			in.Name = "users"
		}
		if in.Address == "" {
			in.Address = "h:1"
		}
		if in.Address == "-" {
			in.Address = ""
		}
		before := in
		err := in.Normalize()
		fieldErr, ok := errors.AsType[*registry.FieldError](err)
		if !ok || fieldErr.Field != c.field || !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%.200v: error %v, want one about %s", fmt.Sprintf("%+v", c.in), err, c.field)
			continue
		}
		if fieldErr.Problem == "" || fieldErr.Fix == "" {
			t.Errorf("%v does not say what is wrong and what would be right", err)
		}
		if !cmp.Equal(before, in) {
			t.Errorf("%v: the instance was changed all the same", err)
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "users", "users.", ".a", "Users.a", "users.A", "users.a.b", "users.a b", "users." + strings.Repeat("x", 129)} {
		if k, err := registry.ParseKey(s); err == nil {
			t.Errorf("ParseKey(%q) = %v", s, k)
		}
	}
}

func TestEncodeLimits(t *testing.T) {
	t.Parallel()
	in := registry.Instance{Name: "users", Address: "h:1", Metadata: map[string]string{}}
	for i := range registry.MaxMetadata {
		in.Metadata[fmt.Sprint(i)] = strings.Repeat("x", registry.MaxMetadataValue)
	}
	if err := in.Normalize(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Encode(); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("a record that is too large: %v, want ErrInvalid", err)
	}
	in.Metadata = nil
	in.RegisteredAt = time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, err := in.Encode(); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("a time JSON can't have: %v, want ErrInvalid", err)
	}
	if _, err := registry.Decode(make([]byte, registry.MaxInstanceRecord+1)); err == nil {
		t.Error("a record that is too large was read")
	}
}

func TestDecodeIgnoresTheUnknown(t *testing.T) {
	t.Parallel()
	in, err := registry.Decode([]byte(`{"name":"users","address":"http://h:1","weight":7,"id":"a"}`))
	if err != nil || in.Key() != (registry.Key{Service: "users", ID: "a"}) {
		t.Errorf("%+v, %v", in, err)
	}
	for _, bad := range []string{``, `null`, `[]`, `{}`, `{"name":"users"}`, `{"name":"users","address":"http://h:1"} trailing`} {
		if in, err := registry.Decode([]byte(bad)); err == nil {
			t.Errorf("Decode(%s) = %+v", bad, in)
		}
	}
}

// Whatever is read can be written, and is then read as the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":"a","name":"users","address":"http://10.0.0.1:3001","port":3001,"health":"/health","tags":["a"],"metadata":{"k":"v"},"status":"healthy","registeredAt":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"name":"u","address":"[::1]","port":1,"announced":"degraded","status":"unhealthy"}`))
	f.Add([]byte(`{"name":"u","address":"http://[fe80::1%25eth0]:3001","health":"?%"}`))
	f.Fuzz(func(t *testing.T, record []byte) {
		in, err := registry.Decode(record)
		if err != nil {
			return
		}
		encoded, err := in.Encode()
		if err != nil {
			if errors.Is(err, registry.ErrInvalid) {
				return // it grew beyond the limit
			}
			t.Fatal(err)
		}
		again, err := registry.Decode(encoded)
		if err != nil {
			t.Fatalf("%s was read as %+v, but its record %s is refused: %v", record, in, encoded, err)
		}
		if diff := cmp.Diff(in, again); diff != "" {
			t.Fatal(diff)
		}
		if k, err := registry.ParseKey(in.Key().String()); err != nil || k != in.Key() {
			t.Fatalf("key %q: %v", in.Key(), err)
		}
		if len(maps.Clone(in.Metadata)) > registry.MaxMetadata || len(in.Tags) > registry.MaxTags {
			t.Fatal("over the limits")
		}
	})
}

// Who registers for others can't name an address that is no single instance's,
// in whatever form it is written.
func TestAnnouncedAddresses(t *testing.T) {
	t.Parallel()
	r := open(t, memregistry.New().Connect())
	for _, address := range []string{
		"http://169.254.169.254", "http://169.254.0.1:80", "169.254.169.254:80", "http://[fe80::1]:80", "http://[fe80::1%25eth0]:80", "[fe80::1]:80",
		"http://0.0.0.0:80", "http://[::]:80", "http://0.1.2.3:80", "http://224.0.0.1:80", "http://239.255.255.255:80", "http://[ff02::1]:80", "http://[ff05::2]:80",
		"http://255.255.255.255:80", "http://240.0.0.1:80", "http://[fd00::1%25eth0]:80",
		// Where clouds tell a machine its secrets.
		"http://100.100.100.200", "http://168.63.129.16:80", "http://192.0.0.192:80", "http://[fd00:ec2::254]:80", "http://[fd20:ce::254]:80", "http://[::ffff:100.100.100.200]:80",
		// Embedded in IPv6.
		"http://[::ffff:169.254.169.254]:80", "http://[::ffff:a9fe:a9fe]:80", "http://[::ffff:0.0.0.0]:80", "http://[::ffff:224.0.0.1]:80",
		"http://[::169.254.169.254]:80", "http://[64:ff9b::169.254.169.254]:80", "http://[64:ff9b::a9fe:a9fe]:80", "http://[2002:a9fe:a9fe::1]:80",
		// Numbers that some take for IPv4 addresses.
		"http://2852039166/", "http://2852039166:80", "http://0xa9fea9fe:80", "http://0XA9FEA9FE:80", "http://0x7f.1:80", "http://127.1:80", "http://0177.0.0.1:80",
		"http://025177524776:80", "http://169.254.43518:80", "http://0xa9.0xfe.0xa9.0xfe:80", "http://127.0.0.1.:80", "http://169.254.169.254.:80", "http://1.2.3.4.5:80",
		"http://010.0.0.1:80", "http://example.0:80", "http://0x:80", "0:80", "1:80", "http://256.256.256.256:80",
	} {
		_, _, err := r.Announce(t.Context(), registry.Instance{Name: "pay", Address: address, Lease: registry.LeaseHeartbeats})
		if fe, ok := errors.AsType[*registry.FieldError](err); !ok || fe.Field != "address" || fe.Fix == "" {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, address := range []string{
		"http://10.0.0.1:80", "http://127.0.0.1:80", "http://[::1]:80", "http://localhost:80", "http://pay:80", "http://pay.example.com", "http://pay-1.svc.cluster.local.:80",
		"http://[fd00::1]:80", "http://[2001:db8::1]:80", "http://[::ffff:10.0.0.1]:80", "http://[64:ff9b::10.0.0.1]:80", "http://0xyz:80", "http://x1:80", "http://1e3:80", "http://a.0xg:80",
		"http://100.64.0.1:80", "http://192.168.1.1:80",
	} {
		if _, _, err := r.Announce(t.Context(), registry.Instance{Name: "pay", Address: address, Lease: registry.LeaseHeartbeats}); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// inetAton reports whether C libraries take s for an IPv4 address.
func inetAton(s string) bool {
	parts := strings.Split(s, ".")
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 0, 32); err != nil || strings.ContainsAny(p, "_oObB+") {
			return false
		}
	}
	return len(parts) <= 4
}

// Whatever is accepted means the same to everybody who connects to it.
func FuzzAnnouncedAddress(f *testing.F) {
	for _, s := range []string{"http://10.0.0.1:80", "0x7f.1:80", "http://[::ffff:1.2.3.4]:1", "http://2852039166", "http://a.b.:9", "http://017700000001:1", "0:1"} {
		f.Add(s, 0)
	}
	r := registry.Open(context.Background(), memregistry.New().Connect())
	f.Cleanup(r.Close)
	if err := r.WaitSynced(f.Context()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, address string, port int) {
		in, _, err := r.Announce(t.Context(), registry.Instance{ID: "x", Name: "pay", Address: address, Port: port, Lease: registry.LeaseHeartbeats})
		if err != nil {
			if !errors.Is(err, registry.ErrInvalid) {
				t.Errorf("%q %d: %v", address, port, err)
			}
			return
		}
		u, err := url.Parse(in.Address)
		if err != nil {
			t.Fatal(err)
		}
		ip, err := netip.ParseAddr(u.Hostname())
		switch {
		case err != nil && inetAton(u.Hostname()):
			t.Errorf("%q is an address to some: %q", address, in.Address)
		case err == nil && (ip.Unmap().IsLinkLocalUnicast() || ip.Unmap().IsMulticast() || ip.Unmap().IsUnspecified() || ip.Zone() != ""):
			t.Errorf("%q is nobody's: %q", address, in.Address)
		}
	})
}
