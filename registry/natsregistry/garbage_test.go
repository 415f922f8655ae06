package natsregistry_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/natsregistry"
)

// What others put into the buckets harms nobody: records that can't be read are
// none, strange keys are passed over.
func TestGarbage(t *testing.T) {
	t.Parallel()
	s := startServer(t, "127.0.0.1:0")
	t.Cleanup(func() { s.stop(t) })
	node, _ := runNode(t, s)
	d, err := natsregistry.New(within(t), s.node.Conn())
	if err != nil {
		t.Fatal(err)
	}
	register := func(id string) registry.Key {
		t.Helper()
		in := registry.Instance{Name: "users", ID: id, Address: s.embedded.URL()}
		in.Address = "http" + in.Address[len("nats"):] // it listens: probes succeed
		if err := in.Normalize(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Register(within(t), in, time.Minute); err != nil {
			t.Fatal(err)
		}
		return in.Key()
	}
	spoilt := register("spoilt")
	until(t, "the node has it", func() bool { return status(node, "spoilt") != "" })
	js, err := jetstream.New(s.node.Conn())
	if err != nil {
		t.Fatal(err)
	}
	for _, bucket := range []string{natsregistry.InstancesBucket, natsregistry.LeasesBucket} {
		kv, err := js.KeyValue(within(t), bucket)
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range map[string]string{
			"strange": "{}", "users.UPPER": "{}", "users.a.b": "{}", "users.empty": "", "users.json": "{", spoilt.String(): "[]",
			"users.other": `{"name":"orders","id":"x","address":"http://h:1"}`,
		} {
			if _, err := kv.PutString(within(t), key, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	register("after")
	until(t, "the node has what came after", func() bool { return status(node, "after") != "" })
	if list := node.List(); len(list) != 1 {
		t.Errorf("the node has %+v", list)
	}
}
