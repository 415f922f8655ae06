package registry_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keelson-go/keelson/health"
	"github.com/keelson-go/keelson/registry"
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
